"""The files of a comparison: figures as JSON, the table as CSV and Markdown, and the page."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.comparison.results import ComparisonResult, CurvePoint, MethodRow, RunRow, Spent
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SampleRecord
from magnetar.reports.comparison_page import comparison_page

__all__ = ["comparison_csv", "comparison_markdown", "comparison_record", "read_comparison", "write_comparison"]

NAME = "comparison"


def write_comparison(result: ComparisonResult, folder: Path) -> list[Path]:
    """Write ``comparison.json``, ``.csv``, ``.md`` and ``.html``.

    Args:
        result: What was found.
        folder: Where to write.

    Returns:
        The files.

    Raises:
        DataError: One cannot be written.
    """
    texts = {
        "json": json.dumps(comparison_record(result), indent=2, ensure_ascii=False) + "\n",
        "csv": comparison_csv(result),
        "md": comparison_markdown(result),
        "html": comparison_page(result, folder),
    }
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{NAME}.{suffix}"
        unfinished = folder / f"{NAME}.{suffix}.part"
        try:
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        except OSError as error:
            raise DataError(f"cannot write {str(path)!r} ({error}); choose another output_dir") from error
        paths.append(path)
    return paths


def comparison_record(result: ComparisonResult) -> dict[str, Any]:
    """The whole result as plain values; `read_comparison` is the inverse."""
    return asdict(result)


def read_comparison(path: Path) -> ComparisonResult:
    """Read ``comparison.json``.

    Raises:
        DataError: It is missing, damaged or of another form.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return ComparisonResult(
            **{
                **record,
                "rows": [_method_row(row) for row in record["rows"]],
                "runs": [
                    RunRow(**{**row, "win_rate": _estimate(row["win_rate"]), "spent": Spent(**row["spent"])})
                    for row in record["runs"]
                ],
                "matrix": [[_estimate(cell) for cell in row] for row in record["matrix"]],
                "curves": {
                    label: [CurvePoint(**{**point, "win_rate": _estimate(point["win_rate"])}) for point in points]
                    for label, points in record["curves"].items()
                },
                "samples": tuple(SampleRecord(**one) for one in record.get("samples", ())),
            }
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a comparison ({type(error).__name__}: {error})") from error


def comparison_csv(result: ComparisonResult) -> str:
    """One line for each method, with its runs pooled, and then one for each run."""
    file = io.StringIO()
    estimates = ("win_rate", "win_rate_others", "kl_nats", "tokens")
    plain = ("truncated", "distinct_2", "looping", "canned", "equilibrium", "in_support")
    spent = ("comparisons", "tokens", "updates", "seconds")
    header = ["label", "method", "seeds"]
    header += [f"{name}{end}" for name in estimates for end in ("", "_low", "_high")]
    header += [*plain, *(f"spent_{name}" for name in spent)]
    writer = csv.DictWriter(file, header, lineterminator="\n")
    writer.writeheader()
    for row in result.rows:
        line: dict[str, Any] = {"label": row.label, "method": row.method, "seeds": " ".join(map(str, row.seeds))}
        for name in estimates:
            line |= _csv_estimate(name, getattr(row, name))
        line |= {name: getattr(row, name) for name in plain}
        line |= {f"spent_{name}": None if row.spent is None else getattr(row.spent, name) for name in spent}
        writer.writerow(line)
    for run in result.runs:
        line = {"label": run.label, "method": "", "seeds": run.seed, **_csv_estimate("win_rate", run.win_rate)}
        writer.writerow(line | {f"spent_{name}": getattr(run.spent, name) for name in spent})
    return file.getvalue()


def comparison_markdown(result: ComparisonResult) -> str:
    """The table and the matrix, for a README."""
    confidence = f"{100 * result.confidence:g}%"
    lines = [
        f"Budget of each run: {result.budget:,} {result.budget_unit}. Judge of the comparison: {result.eval_judge} "
        f"(trained by: {result.judge}). {result.prompts} held-out prompts, {result.responses} "
        f"response{'s' if result.responses > 1 else ''} each; {confidence} intervals, one line at a time.",
        "",
        "| method | runs | win rate against the reference | against the other methods | KL (nats) | length (tokens) "
        "| cut off | distinct-2 | Nash weight | comparisons | tokens | updates | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result.rows:
        cells = [
            row.label,
            str(len(row.seeds)) if row.seeds else "–",
            _percent(row.win_rate),
            _percent(row.win_rate_others),
            _number(row.kl_nats),
            _number(row.tokens),
            f"{row.truncated:.0%}",
            "–" if row.distinct_2 is None else f"{row.distinct_2:.2f}",
            f"{row.equilibrium:.2f}",
            *(
                ("–",) * 4
                if row.spent is None
                else (
                    f"{row.spent.comparisons:,.0f}",
                    f"{row.spent.tokens:,.0f}",
                    f"{row.spent.updates:,.0f}",
                    f"{row.spent.seconds / 60:,.1f}",
                )
            ),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    labels = [label.replace("|", "\\|") for label in result.labels]
    lines += ["", "Win rate of the row's method against the column's:", ""]
    lines += ["| | " + " | ".join(labels) + " |", "|---|" + "---|" * len(labels)]
    for label, row in zip(labels, result.matrix, strict=True):
        lines.append(f"| {label} | " + " | ".join(_percent(cell) for cell in row) + " |")
    for title, told in (("Not in the tables", result.missing), ("Notes", result.notes)):
        if told:
            lines += ["", f"{title}:", "", *(f"- {line}" for line in told)]
    return "\n".join(lines) + "\n"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    interval = (
        ""
        if estimate.low is None or estimate.high is None
        else f" ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"
    )
    return f"{100 * estimate.value:.1f}%{interval}"


def _number(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1f}"
    return f"{estimate.value:.1f} ({estimate.low:.1f}–{estimate.high:.1f})"


def _csv_estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _estimate(record: Mapping[str, Any] | None) -> Any:
    return None if record is None else Estimate(**record)


def _method_row(record: Mapping[str, Any]) -> MethodRow:
    estimates: Sequence[str] = ("win_rate", "win_rate_others", "kl_nats", "tokens")
    return MethodRow(
        **{
            **record,
            "seeds": tuple(record["seeds"]),
            **{name: _estimate(record[name]) for name in estimates},
            "spent": None if record["spent"] is None else Spent(**record["spent"]),
        }
    )
