"""Masked sums, log-space mixtures and KL divergences, in NumPy for games and in PyTorch for language models."""

from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "discounted_to_go",
    "drawn_number",
    "log_mixture",
    "log_normalize",
    "log_probabilities",
    "masked_mean",
    "masked_sum",
    "max_last",
    "project_to_simplex",
    "reward_to_go",
    "sampled_reverse_kl",
    "sum_last",
    "tilt",
]

FloatArray = NDArray[np.float64]

SHORT_ROW = 64  # entries; from there on NumPy's reductions of rows are as fast as any


def log_normalize(logits: FloatArray) -> FloatArray:
    """Log-probabilities proportional to ``exp(logits)`` over the last axis, without overflow.

    Args:
        logits: Shape (..., A), any finite values or -inf (probability zero).

    Returns:
        Shape (..., A), in (-inf, 0].
    """
    shifted = logits - max_last(logits)[..., None]
    return shifted - np.log(sum_last(np.exp(shifted)))[..., None]


def max_last(values: FloatArray) -> FloatArray:
    """Maximum over the last axis; several times as fast as NumPy's own on many short rows.

    Args:
        values: Shape (..., A), A at least 1.

    Returns:
        Shape (...).
    """
    if values.ndim > 1 and values.shape[-1] <= SHORT_ROW:
        # NumPy loops over one row at a time; along the first axis it takes whole columns.
        return np.maximum.reduce(np.ascontiguousarray(np.moveaxis(values, -1, 0)), axis=0)
    # The ufunc's own reduction: the array's method wraps it in Python, which costs as much again on small games.
    return np.maximum.reduce(values, axis=-1)


def sum_last(values: FloatArray) -> FloatArray:
    """Sum over the last axis; see `max_last`."""
    if values.ndim > 1 and values.shape[-1] <= SHORT_ROW:
        return np.einsum("...a->...", values)
    return np.add.reduce(values, axis=-1)


def log_probabilities(policy_A: FloatArray) -> FloatArray:
    """Natural logarithm, with -inf for probability zero and no warning.

    Args:
        policy_A: Probabilities, shape (..., A), at least 0.

    Returns:
        Same shape, nats, not renormalised: probabilities down to the smallest subnormal stay apart from zero.
    """
    with np.errstate(divide="ignore"):
        return np.log(policy_A)


def log_mixture(log_a_A: FloatArray, log_b_A: FloatArray, weight: float) -> FloatArray:
    """Geometric mixture ``a^(1−w) b^w``, normalised; probability zero in either stays zero unless its weight is zero.

    Args:
        log_a_A: Shape (..., A), nats; -inf for probability zero.
        log_b_A: Same form.
        weight: w, in [0, 1].

    Returns:
        Shape (..., A), nats, normalised.
    """
    if weight <= 0.0:
        return log_a_A
    return log_b_A if weight >= 1.0 else log_normalize((1.0 - weight) * log_a_A + weight * log_b_A)


def tilt(log_policy_A: FloatArray, reward_A: FloatArray, step_size: float) -> FloatArray:
    """``log π + step_size · reward``, normalised, at any step size: never NaN, and probability zero stays zero.

    Args:
        log_policy_A: Shape (..., A), nats; -inf for probability zero, with at least one finite entry in each row.
        reward_A: Shape (..., A); whatever stands at probability zero is not looked at.
        step_size: Positive.

    Returns:
        Shape (..., A), normalised.
    """
    present = ~np.isneginf(log_policy_A)
    reward = np.where(present, reward_A, -np.inf)
    best = reward.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        # The best action keeps its own log-probability, so that huge steps send the others to -inf and never NaN.
        gain = step_size * np.where(reward == best, 0.0, reward - best)
        return log_normalize(np.where(present, log_policy_A + gain, -np.inf))


def project_to_simplex(values: FloatArray) -> FloatArray:
    """Euclidean projection onto the probability simplex, over the last axis (sorting algorithm, arXiv:1309.1541).

    Args:
        values: Shape (..., A), finite or -inf, with a finite maximum.

    Returns:
        Same shape, non-negative, sums to one.
    """
    ordered = np.sort(values, axis=-1)[..., ::-1]
    ranks = np.arange(1, values.shape[-1] + 1)
    thresholds = (np.cumsum(ordered, axis=-1) - 1.0) / ranks
    support = np.count_nonzero(ordered > thresholds, axis=-1, keepdims=True)
    threshold = np.take_along_axis(thresholds, support - 1, axis=-1)
    projected = np.maximum(values - threshold, 0.0)
    return projected / projected.sum(axis=-1, keepdims=True)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the last axis where ``mask`` holds; masked values may be anything, NaN included.

    Args:
        values: Shape (..., T).
        mask: Shape (..., T), boolean.

    Returns:
        Shape (...).
    """
    return torch.where(mask, values, torch.zeros_like(values)).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of all values where ``mask`` holds; zero when it holds nowhere."""
    return masked_sum(values, mask).sum() / mask.sum().clamp(min=1)


def reward_to_go(reward: Tensor) -> Tensor:
    """Sum of this and all later rewards along the last axis.

    Args:
        reward: Shape (..., T), zero at padding.

    Returns:
        Shape (..., T); entry t is ``reward[t] + reward[t + 1] + …``.
    """
    return reward.flip(-1).cumsum(-1).flip(-1)


def discounted_to_go(reward: Tensor, discount: float) -> Tensor:
    """Discounted sum of this and all later rewards along the last axis.

    Args:
        reward: Shape (..., T), zero at padding.
        discount: γ, in [0, 1].

    Returns:
        Shape (..., T); entry t is ``reward[t] + γ reward[t + 1] + γ² reward[t + 2] + …``.
    """
    if discount == 1.0:
        return reward_to_go(reward)
    place = torch.arange(reward.shape[-1], device=reward.device)
    distance = place[:, None] - place[None, :]  # from entry t (columns) to a later one (rows)
    weight = torch.where(distance >= 0, float(discount) ** distance.clamp(min=0).to(reward.dtype), 0.0)
    return reward @ weight


def sampled_reverse_kl(logp: Tensor, behavior_logp: Tensor, other_logp: Tensor) -> Tensor:
    r"""Estimate KL(π_θ‖other) from actions drawn from the behaviour policy, with the right value *and* gradient.

    With ``r = π_θ/π_k`` and ``u = log(π_θ/other)`` the estimate is ``r (u − 1) + other/π_k``, which is ``r`` times the
    "k3" estimator ``other/π_θ − 1 + u``. It is never negative and its mean over ``y ~ π_k`` is the KL. Its gradient is
    ``r u ∇log π_θ`` for every single sample, whose mean is the reverse KL's gradient. Dropping the ratio would not do:
    without it "k1" has a zero gradient at θ = θ_k and "k3" the gradient of the forward KL.

    Args:
        logp: log π_θ(y), any shape, differentiable, nats.
        behavior_logp: log π_k(y), same shape.
        other_logp: log other(y), same shape.

    Returns:
        Same shape, non-negative, nats.
    """
    ratio = (logp - behavior_logp).exp()
    return ratio * (logp - other_logp - 1.0) + (other_logp - behavior_logp).exp()


def drawn_number(text: str, seed: int) -> float:
    """A number in [0, 1) that a text has for good, whatever is drawn beside it.

    Args:
        text: What stands for the thing that is drawn.
        seed: Another seed, other numbers.

    Returns:
        The number, uniform over texts.
    """
    digest = blake2b(f"{seed}|".encode() + text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53
