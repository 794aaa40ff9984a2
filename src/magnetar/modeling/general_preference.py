"""The general preference score: an embedding for each response, compared so that cycles can be represented.

A score of one number a response can only rank. The general preference model gives each response a vector and compares
two of them by a skew-symmetric form, so that a ≻ b ≻ c ≻ a is possible, with one reading for each response. The
functions work on NumPy arrays (judging) and on PyTorch tensors (training, differentiable) alike.
"""

from typing import Any, TypeVar

from numpy.typing import NDArray
from torch import Tensor

__all__ = ["skew_score", "unit_length"]

Array = TypeVar("Array", NDArray, Tensor)

SMALLEST_SQUARE = 1e-24  # of a length; shorter vectors are not stretched to unit length


def skew_score(first: Array, second: Array) -> Array:
    r"""Score of one embedding over another, which is zero for equal ones and changes sign when they are exchanged.

    ``s(v, w) = ⟨R v, w⟩ = Σ_k (v_{2k} w_{2k+1} − v_{2k+1} w_{2k})``, with R a rotation by 90° in each of D / 2 planes.
    The win probability is ``σ(s / temperature)``. Every skew-symmetric matrix of scores between G responses is of this
    form for some D ≤ G.

    Args:
        first: Shape (..., D), D even.
        second: A shape that broadcasts with it, of the same type.

    Returns:
        The broadcast shape without D; positive where the first is preferred; within ±1 for vectors of unit length.

    Raises:
        ValueError: If D is odd, zero or not the same for both.

    Source: arXiv:2410.02197, section 4.
    """
    size = first.shape[-1]
    if size != second.shape[-1] or size % 2 or not size:
        raise ValueError(f"embeddings of {size} and {second.shape[-1]} dimensions, expected one even number for both")
    score: Any = (first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]).sum(-1)
    return score


def unit_length(embedding: Array) -> Array:
    """Scale each embedding to length one; the zero vector stays what it is, with a gradient of zero, not NaN.

    Args:
        embedding: Shape (..., D), single or double precision.

    Returns:
        Same shape.
    """
    square: Any = (embedding * embedding).sum(-1)[..., None]
    return embedding / square.clip(SMALLEST_SQUARE) ** 0.5
