"""The empirical game between players that were compared, and its equilibrium."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from magnetar.evaluation.comparison.round_robin import WinRates
from magnetar.games.equilibrium import maximum_entropy_equilibrium

__all__ = ["nash_average"]

GAME_RESAMPLES = 200
IN_SUPPORT = 1e-6


def nash_average(
    members: Mapping[str, Sequence[str]], rates: WinRates, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The equilibrium of the game between players, and how often each is part of it when prompts and runs are redrawn.

    A mixture over players is a mixture over their runs, each equally likely. A prompt counts for two players if the
    judge answered it for all of their runs; two players that have none, or were not compared, count as equal. Of
    several equilibria it is the one of the largest entropy: players that nothing tells apart weigh the same.

    Args:
        members: Player → the names of its runs in ``rates``.
        rates: Win rates between runs on each prompt.
        seed: Of the resampling.

    Returns:
        Weight of each player in the equilibrium; share of 200 resamples in which it has a weight.

    Source: Balduzzi et al. (2018), arXiv:1806.02643, which calls this equilibrium the Nash average.
    """
    labels = list(members)

    def equilibrium(draw: Sequence[Sequence[str]], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        matrix = np.full((len(labels), len(labels)), 0.5)
        for i in range(len(labels)):
            for j in range(i):
                values = rates.between(draw[i], draw[j])[..., rows]
                answered = ~np.isnan(values).any(axis=(0, 1))
                rate = float(values[..., answered].mean()) if answered.any() else 0.5
                matrix[i, j], matrix[j, i] = rate, 1.0 - rate
        return maximum_entropy_equilibrium(matrix)

    prompts = rates.win_prob_PPB.shape[-1]
    found = equilibrium([members[label] for label in labels], np.arange(prompts))
    rng = np.random.default_rng(seed)
    times = np.zeros(len(labels))
    for _ in range(GAME_RESAMPLES):
        draw: list[Sequence[str]] = [
            [names[int(at)] for at in rng.integers(0, len(names), len(names))] for names in members.values()
        ]
        times += equilibrium(draw, rng.integers(0, prompts, prompts)) > IN_SUPPORT
    return (
        {label: float(weight) for label, weight in zip(labels, found, strict=True)},
        {label: float(share) for label, share in zip(labels, times / GAME_RESAMPLES, strict=True)},
    )
