"""What one method does on one game, thinned for keeping, and what many such results say together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import NonFiniteLossError
from magnetar.games.comparison.choices import Cell, starting_policy
from magnetar.games.game import PreferenceGame
from magnetar.games.play.runner import run
from magnetar.games.settings import setting_text

__all__ = [
    "CellResult",
    "MethodSummary",
    "evaluations_to",
    "result_row",
    "run_cell",
    "summarize",
    "target_text",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CURVE_BINS = 600
ALL_POLICIES_UP_TO = 3000
MOST_MAGNETS = 1000


@dataclass(frozen=True, eq=False)
class CellResult:
    """What a cell gave, thinned so that thousands of cells can be kept.

    The entries kept are the lowest and the highest gap in each of about 600 stretches of geometrically growing length,
    and every update at which the gap fell below all earlier ones: the first crossing of any target is exact.

    Attributes:
        updates: Number of the update of each entry, shape (n,), the first 0 and the last the end.
        evaluations: Evaluations of the payoffs spent until then, shape (n,).
        gap: Duality gap of the last iterate, shape (n,).
        average_gap: The same of the average iterate, shape (n,).
        seconds: Wall-clock time of the run.
        policies: Policies at some of the updates, shape (k, A), games of three actions only.
        magnets: Positions of the magnet, the first included, shape (m, A), games of three actions only.
        average_policy: Average of all policies, shape (A,), games of three actions only.
    """

    updates: IntArray
    evaluations: IntArray
    gap: FloatArray
    average_gap: FloatArray
    seconds: float
    policies: FloatArray | None = None
    magnets: FloatArray | None = None
    average_policy: FloatArray | None = None


@dataclass(frozen=True)
class MethodSummary:
    """One method over all games.

    Attributes:
        label: The method.
        games: Number of games asked for.
        failed: Games on which it failed.
        solved: Games solved, for each target.
        median_evaluations: Median over games of the evaluations to each target, unsolved games counting as never; None
            where that median is never.
        worst_evaluations: Largest number of evaluations to each target; None where a game is unsolved.
        fewest: Games on which no other method needed fewer evaluations, for each target.
        median_final_gap: Median final gap over games that did not fail; None without any.
        worst_final_gap: Largest final gap; None without any.
    """

    label: str
    games: int
    failed: int
    solved: tuple[int, ...]
    median_evaluations: tuple[float | None, ...]
    worst_evaluations: tuple[float | None, ...]
    fewest: tuple[int, ...]
    median_final_gap: float | None
    worst_final_gap: float | None


def run_cell(cell: Cell, game: PreferenceGame) -> CellResult:
    """Run one cell.

    Args:
        cell: Method, updates and start.
        game: The cell's game.

    Returns:
        The result.

    Raises:
        MagnetarError: The run failed; `NonFiniteLossError` for gaps that are not finite.
    """
    keep_policies = game.num_actions == 3
    began = time.perf_counter()
    # Steps beyond the range of float64 show as gaps that are not finite, which is checked; their warnings say less.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        trace = run(
            cell.choice.method,
            game,
            updates=cell.updates,
            initial=starting_policy(cell.start, game.num_actions),
            record=keep_policies,
        )
    seconds = time.perf_counter() - began
    if not np.isfinite(trace.duality_gap).all():
        first = int(np.argmin(np.isfinite(trace.duality_gap)))
        raise NonFiniteLossError(f"the duality gap after update {first} is not finite; use a smaller step size")
    kept = _kept_updates(trace.duality_gap)
    policies = magnets = average = None
    if trace.policies is not None:
        policies = trace.policies[_kept_policies(len(trace.policies))]
        magnets = trace.magnets[:MOST_MAGNETS] if trace.magnets is not None and cell.choice.has_magnet else None
        average = trace.average_policy
    return CellResult(
        updates=kept,
        evaluations=trace.evaluations[kept],
        gap=trace.duality_gap[kept],
        average_gap=trace.average_gap[kept],
        seconds=seconds,
        policies=policies,
        magnets=magnets,
        average_policy=average,
    )


def evaluations_to(result: CellResult, target: float) -> int | None:
    """Evaluations of the payoffs after which the gap first was at most ``target``.

    Args:
        result: A cell's result.
        target: Gap, positive.

    Returns:
        Number of evaluations, or None if the gap stayed above.
    """
    reached = result.gap <= target
    return int(result.evaluations[int(np.argmax(reached))]) if reached.any() else None


def target_text(target: float) -> str:
    """A target as in a column's name: ``1e-2`` rather than ``0.01``."""
    power = round(-np.log10(target))
    return f"1e-{power}" if power > 0 and np.isclose(target, 10.0**-power, rtol=1e-12, atol=0) else f"{target:g}"


def result_row(cell: Cell, result: CellResult | None, failure: str, targets: Sequence[float]) -> dict[str, object]:
    """One row of the table of results.

    Args:
        cell: What was run.
        result: What it gave; None if it failed.
        failure: Why it failed, empty if it did not.
        targets: Gaps that count as solved.

    Returns:
        Values by column; empty where there is none.
    """
    row: dict[str, object] = {
        "game": cell.game.label,
        "actions": len(cell.game.actions),
        "method": cell.choice.name,
        "settings": " ".join(f"{key}={setting_text(value)}" for key, value in cell.choice.all_settings.items()),
        "updates": cell.updates,
        "evaluations": "" if result is None else int(result.evaluations[-1]),
        "final_gap": "" if result is None else float(result.gap[-1]),
        "best_gap": "" if result is None else float(result.gap.min()),
        "average_gap": "" if result is None else float(result.average_gap[-1]),
    }
    for target in targets:
        needed = None if result is None else evaluations_to(result, target)
        row[f"evaluations_to_{target_text(target)}"] = "" if needed is None else needed
    return row | {"seconds": "" if result is None else round(result.seconds, 4), "failure": failure}


def summarize(
    labels: Sequence[str], results: Sequence[Sequence[CellResult | None]], targets: Sequence[float]
) -> list[MethodSummary]:
    """Sum each method up over the games.

    Args:
        labels: Methods.
        results: ``results[game][method]``; None for a cell that failed.
        targets: Gaps that count as solved, positive.

    Returns:
        One summary for each method, in order.
    """
    needed = np.array(
        [
            [[_or_never(result, target) for result in row] for row in results]
            for target in targets
        ]
    ).reshape(len(targets), len(results), len(labels))  # fmt: skip
    best = needed.min(axis=2, keepdims=True) if labels else needed
    summaries = []
    for m, label in enumerate(labels):
        mine = needed[:, :, m]
        final = [float(row[m].gap[-1]) for row in results if row[m] is not None]  # type: ignore[union-attr]
        summaries.append(
            MethodSummary(
                label=label,
                games=len(results),
                failed=len(results) - len(final),
                solved=tuple(int(n) for n in np.isfinite(mine).sum(axis=1)),
                median_evaluations=tuple(_finite(_median(row)) for row in mine),
                worst_evaluations=tuple(_finite(float(row.max())) if len(row) else None for row in mine),
                fewest=tuple(int(n) for n in ((mine == best[:, :, 0]) & np.isfinite(mine)).sum(axis=1)),
                median_final_gap=float(np.median(final)) if final else None,
                worst_final_gap=max(final) if final else None,
            )
        )
    return summaries


def _or_never(result: CellResult | None, target: float) -> float:
    needed = None if result is None else evaluations_to(result, target)
    return np.inf if needed is None else float(needed)


def _median(values: FloatArray) -> float:
    """Upper median: with an even number of games the mean of the middle two could hide one that was never solved."""
    return float(np.sort(values)[len(values) // 2]) if len(values) else np.inf


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _kept_updates(gap: FloatArray) -> IntArray:
    """Entries that keep the first crossing of every target, and the envelope of a curve that swings."""
    count = len(gap)
    record_low = np.flatnonzero(np.append(True, gap[1:] < np.minimum.accumulate(gap)[:-1]))
    edges = np.unique(np.geomspace(1, count, CURVE_BINS).astype(np.int64))
    extremes = [
        start + int(pick(gap[start:stop])) for start, stop in pairwise(edges) for pick in (np.argmin, np.argmax)
    ]
    return np.unique(np.concatenate([record_low, np.array([0, *extremes, count - 1], dtype=np.int64)]))


def _kept_policies(count: int) -> IntArray:
    late = np.geomspace(ALL_POLICIES_UP_TO, max(count - 1, ALL_POLICIES_UP_TO), 1000).astype(np.int64)
    kept = np.unique(np.concatenate([np.arange(min(count, ALL_POLICIES_UP_TO)), late]))
    return kept[kept < count]
