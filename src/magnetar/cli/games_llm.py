"""`magnetar games llm`: the real trainer on a language model whose every response can be listed; exact gaps."""

import argparse
import json
import sys
from typing import Any

import numpy as np

from magnetar.errors import ConfigError

__all__ = ["RUNS", "main"]

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "self-play, no magnet": ("mirror_descent", {"step_size": 2.0}),
    "fixed magnet (MMD)": ("mmd", {"step_size": 2.0, "magnet_strength": 0.1}),
    "MPO": ("mpo", {"step_size": 2.0, "magnet_strength": 0.1, "magnet_every": 10}),
}
"""The three curves: label, method and its settings."""


def main(argv: list[str]) -> int:
    """Run the three methods and print, and on request draw, their duality gaps.

    Args:
        argv: Arguments after ``magnetar games llm``.

    Returns:
        Exit status.

    Raises:
        ConfigError: A number of updates below 1 or a plot file of an unknown form.
    """
    parser = argparse.ArgumentParser(prog="magnetar games llm", description=__doc__)
    parser.add_argument("--updates", type=int, default=100, help="updates of each method")
    parser.add_argument("--seed", type=int, default=0, help="seed of the model's weights")
    parser.add_argument("--sampled", action="store_true", help="sample responses instead of listing them all")
    parser.add_argument("--plot", metavar="FILE", help="draw the curves; .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    if arguments.updates < 1:
        raise ConfigError(f"updates is {arguments.updates}, expected an integer of at least 1")

    from magnetar.reports.gap_plot import GapCurve, check_plot_path, draw_gap_plot

    if arguments.plot:
        check_plot_path(arguments.plot)

    from magnetar.evaluation.enumerable import EnumerableGame
    from magnetar.training.enumerable import run_enumerable

    game = EnumerableGame.build()
    curves, results = [], {}
    for label, (method, settings) in RUNS.items():
        print(f"{label}: {arguments.updates} updates of the real trainer ...", file=sys.stderr, flush=True)
        trace = run_enumerable(
            game, updates=arguments.updates, seed=arguments.seed, sampled=arguments.sampled, method=method, **settings
        )
        tail = trace.duality_gap[-max(1, arguments.updates // 5) :]
        results[label] = {
            "method": method,
            **settings,
            "updates": arguments.updates,
            "first_gap": float(trace.duality_gap[0]),
            "final_gap": float(trace.duality_gap[-1]),
            "last_fifth_lowest": float(tail.min()),
            "last_fifth_highest": float(tail.max()),
            "average_gap": float(trace.average_gap[-1]),
        }
        updates = np.arange(arguments.updates + 1)
        moves = np.array(trace.magnet_moves, dtype=np.int64)
        curves.append(GapCurve(label, updates, trace.duality_gap, None, moves))
    if arguments.plot:
        title = f"A language model with {len(game.texts)} possible responses, trained by NashTrainer"
        draw_gap_plot(curves, arguments.plot, title, x_label="updates")
    print(json.dumps(results) if arguments.json else _table(results))
    return 0


def _table(results: dict[str, dict[str, Any]]) -> str:
    rows = [f"{'':<22}{'first gap':>10}{'final gap':>11}{'in the last fifth':>22}"]
    for label, row in results.items():
        span = f"{row['last_fifth_lowest']:.3f} to {row['last_fifth_highest']:.3f}"
        rows.append(f"{label:<22}{row['first_gap']:>10.3f}{row['final_gap']:>11.3f}{span:>22}")
    return "\n".join(rows)
