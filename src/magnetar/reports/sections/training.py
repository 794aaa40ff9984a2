"""Curves of training runs, folded run by run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from magnetar.reports.charts import Chart, run_charts
from magnetar.reports.run_data import read_run

__all__ = ["ShownRun", "shown_runs"]


@dataclass(frozen=True)
class ShownRun:
    """A training run on a page of several.

    Attributes:
        name: What it is called.
        told: What there is to say in a few words.
        charts: Its curves, with magnet moves.
    """

    name: str
    told: str
    charts: list[Chart]


def shown_runs(folders: Mapping[str, Path]) -> list[ShownRun]:
    """Read runs and draw their curves.

    Args:
        folders: Folder of each run, by name.

    Returns:
        The runs, in the same order.

    Raises:
        DataError: A run's file is damaged.
    """
    shown = []
    for name, folder in folders.items():
        run = read_run(folder)
        moves = len(run.magnet_moves())
        told = f"{len(run.metrics)} updates, the magnet moved {moves} {'time' if moves == 1 else 'times'}"
        shown.append(ShownRun(name, told, run_charts(run)))
    return shown
