"""How intransitive a judge is: the share of triples in which three responses beat each other in a circle."""

import numpy as np
from numpy.typing import ArrayLike

from magnetar.errors import JudgeError

__all__ = ["cyclic_triple_share", "cyclic_triples"]


def cyclic_triple_share(win_prob: ArrayLike) -> float:
    r"""Share of response triples with a strict majority cycle.

    A triple is cyclic when each of its three responses beats one of the others with probability above 1/2 and loses
    to the other. With W the matrix of strict wins, the cyclic triples number ``trace(W³) / 3``. A triple with a pair
    that the judge left unanswered does not count at all.

    Args:
        win_prob: Shape (..., G, G), in [0, 1], ``P + Pᵀ = 1``, or NaN for a pair without an answer.

    Returns:
        A share in [0, 1]; NaN when there is no triple at all.

    Raises:
        JudgeError: If the last two axes differ in length.
    """
    cyclic, triples = cyclic_triples(win_prob)
    return cyclic / triples if triples else float("nan")


def cyclic_triples(win_prob: ArrayLike) -> tuple[float, float]:
    """Count triples with a strict majority cycle, and all triples, so that batches can be added up.

    Args:
        win_prob: Shape (..., G, G), in [0, 1] or NaN.

    Returns:
        The cyclic triples, and the triples whose pairs were all answered.

    Raises:
        JudgeError: If the last two axes differ in length.
    """
    matrices = np.asarray(win_prob, dtype=np.float64)
    if matrices.ndim < 2 or matrices.shape[-1] != matrices.shape[-2]:
        raise JudgeError(f"win_prob has shape {matrices.shape}, expected (..., G, G)")
    # The same sum over closed walks counts the answered triples, each in both directions from each of its ends.
    answered = (~np.isnan(matrices) & ~np.eye(matrices.shape[-1], dtype=bool)).astype(np.float64)
    wins = (matrices > 0.5).astype(np.float64)
    closed_walks, paths = (float(((edges @ edges) * edges.swapaxes(-1, -2)).sum()) for edges in (wins, answered))
    return closed_walks / 3.0, paths / 6.0
