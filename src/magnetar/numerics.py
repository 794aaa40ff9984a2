"""Masked sums, log-space mixtures and KL divergences, in NumPy for games and in PyTorch for language models."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "log_normalize",
    "masked_mean",
    "masked_sum",
    "reward_to_go",
    "sampled_reverse_kl",
]

FloatArray = NDArray[np.float64]


def log_normalize(logits: FloatArray) -> FloatArray:
    """Log-probabilities proportional to ``exp(logits)`` over the last axis, without overflow.

    Args:
        logits: Shape (..., A), any finite values or -inf (probability zero).

    Returns:
        Shape (..., A), in (-inf, 0].
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


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
