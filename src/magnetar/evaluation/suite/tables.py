"""A suite's figures as tables: for the terminal, Markdown and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magnetar.errors import DataError
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite.results import SuiteResult

__all__ = ["Table", "suite_tables", "table_csv", "table_markdown", "table_text", "write_tables"]

OURS = re.compile(
    r"policies|matchups|matchup_categories|costs|cost_categories|tournament(_\d+)?|attacks|benchmarks|exploitability"
)
Cell = str | float | int | Estimate | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Part of its file's name.
        title: What it shows.
        header: Names of the columns.
        rows: Cells; an `Estimate` is one cell for people and three columns in a file.
        shares: Names of the columns that are shares, shown in percent.
        note: What a reader should know; empty for nothing.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shares: frozenset[str] = frozenset()
    note: str = ""


def suite_tables(result: SuiteResult) -> list[Table]:
    """Tables of all sections that have records.

    Args:
        result: What was found.

    Returns:
        The tables, in the order of the sections.
    """
    made = (
        _policies(result),
        _matchups(result),
        _matchup_categories(result),
        _costs(result),
        _cost_categories(result),
        *(_tournament(result, at) for at in range(len(result.tournament))),
        _attacks(result),
        _benchmarks(result),
        _exploitability(result),
    )
    return [table for table in made if table.rows]


def write_tables(result: SuiteResult, folder: Path) -> list[Path]:
    """Write ``suite.md`` and a CSV file for each table into ``tables``; those of tables that are no more are removed.

    Args:
        result: What was found.
        folder: Of the suite.

    Returns:
        The files.

    Raises:
        DataError: One cannot be written.
    """
    tables = suite_tables(result)
    texts = {folder / "tables" / f"{table.name}.csv": table_csv(table) for table in tables}
    texts[folder / "suite.md"] = "\n".join(table_markdown(table) for table in tables)
    try:
        (folder / "tables").mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            unfinished = path.with_name(f"{path.name}.part")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
        for path in (folder / "tables").glob("*.csv"):
            if path not in texts and OURS.fullmatch(path.stem):
                path.unlink()
    except OSError as error:
        raise DataError(f"cannot write the tables into {str(folder)!r} ({error}); choose another output_dir") from error
    return list(texts)


def table_text(table: Table) -> str:
    """The table for a terminal, in columns."""
    rows = [list(table.header), *_words(table)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(table.header))]
    lines = [
        "  ".join(
            cell.rjust(width) if _is_number(table, at) else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([table.title, rule, lines[0], rule, *lines[1:], rule, *([table.note] if table.note else [])])


def table_markdown(table: Table) -> str:
    """The table for a README."""
    aligned = ["---:" if _is_number(table, at) else "---" for at in range(len(table.header))]
    lines = [f"**{table.title}**", "", _line(table.header), _line(aligned)]
    lines += [_line([cell.replace("|", "\\|") for cell in row]) for row in _words(table)]
    return "\n".join([*lines, "", *([table.note, ""] if table.note else [])])


def table_csv(table: Table) -> str:
    """The table for programs: estimates as three columns, shares from 0 to 1."""
    wide = [at for at in range(len(table.header)) if any(isinstance(row[at], Estimate) for row in table.rows)]
    header = [
        column
        for at, name in enumerate(table.header)
        for column in ([name, f"{name} low", f"{name} high"] if at in wide else [name])
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        cells: list[object] = []
        for at, cell in enumerate(row):
            if at in wide:
                cells += [cell.value, cell.low, cell.high] if isinstance(cell, Estimate) else [cell, None, None]
            else:
                cells.append(cell)
        writer.writerow(cells)
    return file.getvalue()


def _policies(result: SuiteResult) -> Table:
    measured = any(record.distance is not None for record in result.policies.values())
    rows = [
        [
            name,
            record.kind,
            len(record.spec),
            None if (looks := record.responses) is None else looks.tokens,
            None if looks is None else looks.characters,
            None if looks is None else looks.truncated,
            None if looks is None else looks.degeneracy.looping,
            None if looks is None else looks.degeneracy.repeated_across_prompts,
            *([record.distance] if measured else []),
        ]
        for name, record in result.policies.items()
    ]
    far = (f"KL to {result.reference}, nats",) if measured else ()
    header = ("policy", "kind", "runs", "tokens", "characters", "cut off", "looping", "canned", *far)
    return Table("policies", "Policies", header, rows, frozenset({"cut off", "looping", "canned"}))


def _matchups(result: SuiteResult) -> Table:
    rows = [
        [
            one.judge,
            one.policy,
            one.opponent,
            one.prompts,
            one.win_rate,
            one.length_controlled,
            one.wins,
            one.ties,
            one.losses,
            None if one.orders is None else one.orders.first_place.value,
            one.masked,
        ]
        for one in result.matchups
    ]
    header = (
        *("judge", "policy", "opponent", "prompts", "win rate", "at equal length"),
        *("wins", "ties", "losses", "first place wins", "unanswered"),
    )
    return Table("matchups", "Match-ups", header, rows, frozenset(header[4:10]), _confidence(result))


def _matchup_categories(result: SuiteResult) -> Table:
    rows = [
        [one.judge, one.policy, one.opponent, name, part.prompts, part.win_rate, part.wins, part.ties, part.losses]
        for one in result.matchups
        for name, part in one.categories.items()
    ]
    header = ("judge", "policy", "opponent", "category", "prompts", "win rate", "wins", "ties", "losses")
    return Table("matchup_categories", "Match-ups by category", header, rows, frozenset(header[5:]))


def _costs(result: SuiteResult) -> Table:
    rows = [
        [one.judge, one.policy, one.prompts, one.mean_cost, one.share_safe, one.change, one.change_safe]
        for one in result.costs
    ]
    change = "cost − reference's"
    header = ("judge", "policy", "prompts", "mean cost", "safe (cost < 0)", change, "safe − reference's")
    return Table("costs", "Costs", header, rows, frozenset({"safe (cost < 0)", "safe − reference's"}))


def _cost_categories(result: SuiteResult) -> Table:
    rows = [
        [one.judge, one.policy, name, part.prompts, part.mean_cost, part.share_safe]
        for one in result.costs
        for name, part in one.categories.items()
    ]
    header = ("judge", "policy", "category", "prompts", "mean cost", "safe (cost < 0)")
    return Table("cost_categories", "Costs by category", header, rows, frozenset({"safe (cost < 0)"}))


def _tournament(result: SuiteResult, at: int) -> Table:
    one = result.tournament[at]
    magnets = {step.name for step in one.path if step.magnet}
    header = ("player", *one.names, "Nash weight", "in support", "magnet")
    rows = [
        [name, *one.win_rate[row], one.nash[name], one.in_support.get(name), "yes" if name in magnets else ""]
        for row, name in enumerate(one.names)
    ]
    told = [
        f"{one.last[run]} (the last of {run}) is beaten by "
        + (f"{', '.join(others)}" if others else "nobody: no interval against it lies above one half")
        for run, others in one.beaten_by.items()
    ]
    return Table(
        "tournament" if len(result.tournament) == 1 else f"tournament_{at + 1}",
        f"Tournament under judge {one.judge}: how often the row beats the column",
        header,
        rows,
        frozenset(header[1:-1]),
        ". ".join(told) + ("." if told else ""),
    )


def _attacks(result: SuiteResult) -> Table:
    rows = [
        [one.judge, one.policy, one.attack, one.reads, one.prompts, one.unsafe_share, one.change, one.mean_cost]
        for one in result.attacks
    ]
    header = ("judge", "policy", "attack", "judge reads", "prompts", "unsafe", "unsafe − plain", "mean cost")
    return Table("attacks", "Safety under attack", header, rows, frozenset({"unsafe", "unsafe − plain"}))


def _benchmarks(result: SuiteResult) -> Table:
    rows = [[one.policy, one.task, one.metric, one.value, one.standard_error, one.samples] for one in result.benchmarks]
    return Table("benchmarks", "Benchmarks", ("policy", "task", "metric", "value", "standard error", "items"), rows)


def _exploitability(result: SuiteResult) -> Table:
    rows = [
        [
            one.judge,
            one.policy,
            one.attacker,
            ", ".join(f"{key}={value}" for key, value in one.settings.items()),
            one.win_rate,
            one.excess,
        ]
        for one in result.exploitability
    ]
    header = ("judge", "policy", "attacker", "settings", "attacker wins", "exploitability at least")
    title = "Exploitability, from below"
    return Table("exploitability", title, header, rows, frozenset({"attacker wins", "exploitability at least"}))


def _confidence(result: SuiteResult) -> str:
    shown = f"{result.matchups[0].win_rate.confidence:.0%}" if result.matchups else ""
    return f"{shown} intervals, one line at a time" if shown else ""


def _words(table: Table) -> list[list[str]]:
    return [
        [_word(cell, share=name in table.shares) for name, cell in zip(table.header, row, strict=True)]
        for row in table.rows
    ]


def _word(cell: Cell, *, share: bool) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, Estimate):
        if cell.low is None or cell.high is None:
            return _word(cell.value, share=share)
        low, high = (_word(end, share=share) for end in (cell.low, cell.high))
        return f"{_word(cell.value, share=share)} [{low.removesuffix('%')}, {high.removesuffix('%')}]"
    if isinstance(cell, float):
        return f"{100.0 * cell:.1f}%" if share else f"{cell:.3g}" if abs(cell) < 100 else f"{cell:.0f}"
    return str(cell)


def _is_number(table: Table, at: int) -> bool:
    cells = [row[at] for row in table.rows if row[at] is not None]
    return bool(cells) and not any(isinstance(cell, str) for cell in cells)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
