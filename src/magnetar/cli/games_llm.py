"""`magnetar games llm`: the real trainer on a language model whose every response can be listed; exact gaps."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.cli.games_llm_runs import DEFAULT_METHODS, FinishedRun, RunFolder, RunPlan, choose_methods, settings_of
from magnetar.errors import checked_integer
from magnetar.methods import METHODS

__all__ = ["draw", "finish", "main"]

NAMES = {"mirror_descent": "self-play, no magnet", "mmd": "fixed magnet (MMD)", "mpo": "MPO"}
"""Names of the default methods, for readers who do not know the others."""

NO_PANELS_UP_TO = 4  # curves; more are drawn in panels


def main(argv: list[str]) -> int:
    """Run methods and print, and on request draw, their duality gaps.

    Args:
        argv: Arguments after ``magnetar games llm``.

    Returns:
        Exit status.

    Raises:
        ConfigError: A method that cannot be trained, a number of updates below 1, or files that cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="magnetar games llm", description=__doc__, epilog="A method takes about half a minute for 200 updates."
    )
    parser.add_argument(
        "--methods",
        metavar="NAME,NAME|all",
        default=",".join(DEFAULT_METHODS),
        help="methods to run; all that language models can be trained with (default: %(default)s)",
    )
    parser.add_argument("--updates", type=int, default=100, help="updates of each method")
    parser.add_argument("--seed", type=int, default=0, help="seed of the model's weights")
    parser.add_argument("--inner_epochs", type=int, default=8, help="optimiser steps on each batch")
    parser.add_argument("--sampled", action="store_true", help="sample responses instead of listing them all")
    parser.add_argument("--out", metavar="DIR", help="keep finished methods there, and do not run them again")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves; .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    for name in ("updates", "inner_epochs"):
        checked_integer(name, getattr(arguments, name), 1)
    methods = choose_methods(arguments.methods)
    if arguments.plot:
        from magnetar.reports.plot_style import check_plot_path

        check_plot_path(arguments.plot)
    folder = RunFolder(arguments.out) if arguments.out else None

    plans = [
        RunPlan(name, arguments.updates, arguments.seed, arguments.sampled, arguments.inner_epochs) for name in methods
    ]
    runs = finish(plans, folder)
    if arguments.plot:
        draw(runs, arguments.plot)
    print(json.dumps({name: _numbers(name, run) for name, run in runs.items()}) if arguments.json else _table(runs))
    return 0


def finish(plans: Sequence[RunPlan], folder: RunFolder | None) -> dict[str, FinishedRun]:
    """Run what is not in the folder yet, one after another, and say so on stderr.

    Args:
        plans: One a method.
        folder: Where finished runs are kept; None to keep none.

    Returns:
        The runs by method.

    Raises:
        ConfigError: A damaged file.
    """
    runs = {}
    for plan in plans:
        found = folder.load(plan) if folder else None
        if found is None:
            print(f"{plan.method}: {plan.updates} updates of the real trainer ...", file=sys.stderr, flush=True)
            found = plan.run()
            if folder:
                folder.save(plan, found)
        runs[plan.method] = found
    return runs


def draw(runs: Mapping[str, FinishedRun], path: str | Path) -> None:
    """Draw the gaps: a few methods in one plot, more in panels by what their last iterates reach.

    Args:
        runs: By method.
        path: PNG, SVG or PDF.

    Raises:
        ConfigError: A file that cannot be written.
    """
    from magnetar.evaluation.enumerable import EnumerableGame

    title = f"A language model with {len(EnumerableGame.build().texts)} possible responses, trained by NashTrainer"
    if len(runs) <= NO_PANELS_UP_TO:
        from magnetar.reports.gap_plot import GapCurve, draw_gap_plot

        curves = [
            GapCurve(
                NAMES.get(name, name),
                np.arange(len(run.duality_gap)),
                np.array(run.duality_gap),
                None,
                np.array(run.magnet_moves, dtype=np.int64),
            )
            for name, run in runs.items()
        ]
        draw_gap_plot(curves, path, title, x_label="updates")
        return
    from magnetar.reports.llm_gap_plot import LimitCurve, draw_limits_plot

    draw_limits_plot([_limit_curve(name, run, LimitCurve) for name, run in _in_panels(runs)], path, title)


def _in_panels(runs: Mapping[str, FinishedRun]) -> list[tuple[str, FinishedRun]]:
    """In the order of the panels: what is reached with the least gap first."""
    order = list(PANELS)
    return sorted(runs.items(), key=lambda item: order.index(METHODS[item[0]]().converges_to))


PANELS = {
    "original equilibrium": "original equilibrium",
    "average only": "average only: the last iterate circles",
    "regularised equilibrium": "regularised equilibrium",
    "nothing known": "regularised equilibrium",
    "Bradley–Terry policy": "Bradley–Terry policy",
    "best response to the reference": "best response to the reference",
}
"""Panel of what a last iterate reaches."""


def _limit_curve(name: str, run: FinishedRun, make: Any) -> Any:
    reached = METHODS[name]().converges_to
    return make(
        label=f"{name} (no proof)" if reached == "nothing known" else name,
        panel=PANELS[reached],
        gap=np.array(run.duality_gap),
        average_gap=np.array(run.average_gap) if reached == "average only" else None,
        limit=run.limit_gap,
        faint=reached == "nothing known",
    )


def _numbers(name: str, run: FinishedRun) -> dict[str, Any]:
    low, high = run.last_fifth()
    return {
        "method": name,
        **settings_of(name),
        "converges_to": METHODS[name]().converges_to,
        "updates": len(run.duality_gap) - 1,
        "first_gap": run.duality_gap[0],
        "final_gap": run.duality_gap[-1],
        "last_fifth_lowest": low,
        "last_fifth_highest": high,
        "average_gap": run.average_gap[-1],
        "limit_gap": run.limit_gap,
        "kl_to_limit": run.kl_to_limit,
        "seconds": run.seconds,
    }


def _table(runs: Mapping[str, FinishedRun]) -> str:
    head = ("method", "last iterate reaches", "first gap", "final gap", "in the last fifth", "average", "exact limit")
    rows = []
    for name, run in runs.items():
        low, high = run.last_fifth()
        limit = "–" if run.limit_gap is None else f"{run.limit_gap:.3f}"
        first, final = f"{run.duality_gap[0]:.3f}", f"{run.duality_gap[-1]:.3f}"
        span = f"{low:.3f} to {high:.3f}"
        rows.append((name, METHODS[name]().converges_to, first, final, span, f"{run.average_gap[-1]:.3f}", limit))
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
