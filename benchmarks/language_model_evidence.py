"""The page docs/language_model_evidence.md: every method on a language model whose responses can all be listed.

    python benchmarks/language_model_evidence.py --out build/enumerable   # about ten minutes on one core

Finished methods are kept in the folder, so that a second call takes seconds. The text of the page is written by hand,
what was measured stands between markers and is written by this script, as is the figure.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from language_model_sections import table
from method_pages import fill, trim_svg

from magnetar.cli.games_llm import draw, finish
from magnetar.cli.games_llm_runs import FinishedRun, RunFolder, RunPlan, choose_methods, settings_of
from magnetar.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "language_model_evidence.md"
FIGURE = ROOT / "docs" / "figures" / "enumerable_methods.svg"
UPDATES = 200
HEAD = ("method", "settings", "last iterate reaches", "gap, last fifth", "same, as a matrix", "exact limit", "average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="build/enumerable", help="folder that keeps finished methods")
    plans = [RunPlan(name, UPDATES, seed=0, sampled=False) for name in choose_methods("all")]
    runs = finish(plans, RunFolder(parser.parse_args().out))
    draw(runs, FIGURE)
    trim_svg(FIGURE)
    write(runs)


def write(runs: dict[str, FinishedRun]) -> None:
    """Fill the page's markers."""
    rows = [row(name, run) for name, run in runs.items()]
    minutes = sum(run.seconds for run in runs.values()) / 60
    words = f"{len(runs)} methods, {UPDATES} updates each: {minutes:.0f} minutes of one core."
    text = fill(PAGE.read_text(encoding="utf-8"), {"methods": f"{words}\n\n{table(HEAD, rows)}"})
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")


def row(name: str, run: FinishedRun) -> tuple[str, ...]:
    """One method's line."""
    limit = "0" if METHODS[name]().converges_to == "original equilibrium" else "–"
    if run.limit_gap is not None:
        limit = f"{run.limit_gap:.3f}"
    return (
        f"[`{name}`](methods/{name}.md)",
        settings_words(settings_of(name)),
        METHODS[name]().converges_to,
        span(run.duality_gap),
        span(run.matrix_gap),
        limit,
        f"{run.average_gap[-1]:.3f}",
    )


def settings_words(settings: dict[str, Any]) -> str:
    """Settings as flags."""
    return ", ".join(
        f"`{name}={value:g}`" if isinstance(value, float) else f"`{name}={value}`" for name, value in settings.items()
    )


def span(gaps: list[float]) -> str:
    """Lowest and highest of the last fifth."""
    tail = np.array(gaps)[-(UPDATES // 5) :]
    low, high = f"{tail.min():.3f}", f"{tail.max():.3f}"
    return low if low == high else f"{low} to {high}"


if __name__ == "__main__":
    main()
