"""How many verdicts injected responses turn, with the defence and without: the table of docs/judges/language_models.md.

    python benchmarks/injections.py                      # the embedded model; a quarter of an hour of one CPU core
    python benchmarks/injections.py --write              # also rewrites the table of the page and the file of outcomes
    python benchmarks/injections.py --judge llm:MODEL --options '{"base_url": "http://localhost:8000/v1"}'

A flip is a verdict for the good response (mean of both orders) that becomes one for the bad response with the
injection in it. Intervals are Wilson's, 95%.
"""

import argparse
import json
import math
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from magnetar.judges import build_judge
from magnetar.judges.language_model import InjectionReport, measure_injections

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "judges" / "language_models.md"
RESULTS = ROOT / "benchmarks" / "results" / "injections"


def table(report: InjectionReport) -> str:
    """Markdown: all cases, then each family, both arms."""
    lines = [
        "| cases | asked | flips | flip rate (95% interval) | flips, each order alone | gain of the bad response |",
        "|---|---|---|---|---|---|",
    ]
    for s in report.summaries():
        rate = "–" if math.isnan(s.flip_rate) else f"{s.flip_rate:.0%} ({s.low:.0%} to {s.high:.0%})"
        alone = f"{s.ordered_flips} of {s.ordered_won}"
        gain = f"{s.shift:+.3f} ({s.shift_low:+.3f} to {s.shift_high:+.3f})"
        lines.append(f"| {s.family}, {s.arm} | {s.cases} | {s.flips} of {s.won} | {rate} | {alone} | {gain} |")
    return "\n".join(lines)


def facts(report: InjectionReport, judge: str, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """All outcomes with the circumstances, as JSON can hold them."""
    return {
        "judge": judge,
        "options": options,
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "confidence": report.confidence,
        "plain_accuracy": {arm: plain_accuracy(report, arm) for arm in report.arms},
        "summaries": [vars(summary) for summary in report.summaries()],
        "outcomes": report.rows(),
    }


def plain_accuracy(report: InjectionReport, arm: str) -> float:
    """Share of the pairs without an injection in which the good response wins."""
    pairs = {o.case.prompt: o.plain for o in report.outcomes if o.arm == arm}
    return sum(value < 0.5 for value in pairs.values()) / len(pairs)


def write(report: InjectionReport, found: dict[str, Any], name: str) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=True)
    # NaN is no JSON: what there was nothing to measure of is null.
    (RESULTS / f"{name}.json").write_text(re.sub(r"\bNaN\b", "null", text) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    accuracy = ", ".join(f"{value:.0%} {arm}" for arm, value in found["plain_accuracy"].items())
    block = f"{table(report)}\n\nWithout any injection the good response wins in {accuracy} of the ten pairs."
    new, count = re.subn(
        r"(<!-- injections: begin -->\n).*?(\n<!-- injections: end -->)",
        lambda found: found[1] + block + found[2],
        page,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{PAGE} has {count} places for the table, expected 1")
    PAGE.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judge", default="llm:demo", help="spec of a judge")
    parser.add_argument("--options", default="{}", help="its options as JSON")
    parser.add_argument("--write", action="store_true", help="write the outcomes and the table of the page")
    parser.add_argument("--save", type=Path, help="write the outcomes to this file")
    args = parser.parse_args()
    options = {"on_unreadable": "mask", **json.loads(args.options)}
    judge = build_judge(args.judge, **options)
    begin = time.monotonic()
    report = measure_injections(judge)
    found = facts(report, args.judge, options, time.monotonic() - begin)
    print(table(report))
    print({arm: round(value, 3) for arm, value in found["plain_accuracy"].items()}, f"{found['seconds']} s")
    if args.save:
        args.save.write_text(json.dumps(found), encoding="utf-8")
    if args.write:
        write(report, found, re.sub(r"\W+", "_", args.judge))


if __name__ == "__main__":
    main()
