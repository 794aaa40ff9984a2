"""Counterfactual regret minimisation, OpenSpiel's own, as a yardstick."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from magnetar.games.extensive.exact import ExtensiveTrace, measuring_points
from magnetar.games.extensive.openspiel import Exploitability, policy_from_openspiel, require_openspiel
from magnetar.games.extensive.tree import ExtensiveGame, check_extensive
from magnetar.games.length import counted

__all__ = ["run_cfr"]

FloatArray = NDArray[np.float64]


def run_cfr(
    game: ExtensiveGame,
    updates: int = 1000,
    *,
    measure_at: Iterable[int] | None = None,
    measure: Callable[[FloatArray], float] | None = None,
    progress: bool = False,
) -> ExtensiveTrace:
    """Run OpenSpiel's ``CFRSolver`` and measure its current and its average policy as the methods' are.

    Args:
        game: The listed game.
        updates: Iterations; each updates both players in turn, hence two passes over the game.
        measure_at: Numbers of iterations at which to measure; by default `measuring_points`.
        measure: Exploitability of a policy (I, A); OpenSpiel's function by default.
        progress: Show a progress bar on stderr.

    Returns:
        The trace, named "cfr"; ``average_exploitability`` is the one with a guarantee. It has no magnet: the field
        holds the average policy.

    Raises:
        ConfigError: Updates, or numbers of updates to measure at, that are not integers of at least 0.
        GameError: Not a listed game.

    Source: Zinkevich et al., Regret minimization in games with incomplete information, 2007.
    """
    check_extensive(game)
    points = measuring_points(updates, measure_at)
    solver = require_openspiel().CFRSolver(game.openspiel)
    measure = Exploitability(game) if measure is None else measure
    wanted = set(points.tolist())
    last, averages = [], []

    def policies() -> tuple[FloatArray, FloatArray]:
        current = policy_from_openspiel(game, solver.current_policy())
        average = policy_from_openspiel(game, solver.average_policy())
        return current, average

    def look(update: int) -> None:
        if update in wanted:
            current, average = policies()
            last.append(measure(current))
            averages.append(measure(average))

    look(0)
    for update in counted(updates, progress, f"{game.name} cfr", leave=False):
        solver.evaluate_and_update_policy()
        look(update)
    current, average = policies()
    return ExtensiveTrace(
        method="cfr",
        game=game.name,
        updates=points,
        exploitability=np.array(last),
        average_exploitability=np.array(averages),
        policy=current,
        magnet=average,
        magnet_moves=np.empty(0, dtype=np.int64),
    )
