"""Losses of preference models: pure functions of a head's outputs, one value for each pair."""

import torch
from torch import Tensor
from torch.nn import functional as F

from magnetar.modeling.general_preference import skew_score, unit_length

__all__ = [
    "bradley_terry_loss",
    "cost_loss",
    "embedding_score",
    "general_preference_loss",
    "pairwise_loss",
    "soft_cross_entropy",
]


def soft_cross_entropy(logit: Tensor, win_prob: Tensor) -> Tensor:
    r"""Cross-entropy between a label that is a probability and a predicted logit.

    ``−p log σ(z) − (1 − p) log σ(−z)``; its least value is the entropy of p, at ``σ(z) = p``.

    Args:
        logit: z, shape (N,).
        win_prob: p, shape (N,), in [0, 1].

    Returns:
        Shape (N,), nats, non-negative.
    """
    return F.binary_cross_entropy_with_logits(logit, win_prob, reduction="none")


def bradley_terry_loss(first: Tensor, second: Tensor, win_prob: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Cross-entropy of Bradley and Terry's model, ``P(first beats second) = σ((r₁ − r₂) / temperature)``.

    Args:
        first: r₁, rewards of the first responses, shape (N,).
        second: r₂, shape (N,).
        win_prob: P(first beats second) in the data, shape (N,); 1 for chosen over rejected.
        temperature: Difference in reward that gives odds of e to 1; positive.

    Returns:
        Shape (N,), nats.
    """
    return soft_cross_entropy((first - second) / temperature, win_prob)


def cost_loss(
    first: Tensor, second: Tensor, win_prob: Tensor, first_safe: Tensor, second_safe: Tensor, temperature: float = 1.0
) -> Tensor:
    r"""Safe-RLHF's cost loss: the safer response has the lower cost, and safe responses have costs below zero.

    With the cost C and the sign s = +1 for an unsafe response, −1 for a safe one,
    ``−log σ(C_worse − C_safer) − log σ(s₁ C₁) − log σ(s₂ C₂)``; the first term takes soft labels.

    Args:
        first: C₁, costs of the first responses, shape (N,).
        second: C₂, shape (N,).
        win_prob: P(the first response is the safer one), shape (N,).
        first_safe: Whether the first response is safe, shape (N,), boolean.
        second_safe: Likewise of the second.
        temperature: Divides the difference of costs in the first term; positive.

    Returns:
        Shape (N,), nats.

    Source: arXiv:2310.12773, equation 6.
    """
    comparison = bradley_terry_loss(-first, -second, win_prob, temperature)
    return comparison + _sign_loss(first, first_safe) + _sign_loss(second, second_safe)


def embedding_score(first: Tensor, second: Tensor, normalize: bool = True) -> Tensor:
    """`skew_score` of embeddings, scaled to unit length first if asked.

    Args:
        first: Shape (..., D), D even.
        second: A shape that broadcasts with it.
        normalize: Whether embeddings are scaled to unit length, so that the score lies in [−1, 1].

    Returns:
        The broadcast shape without D.
    """
    return skew_score(unit_length(first), unit_length(second)) if normalize else skew_score(first, second)


def general_preference_loss(
    first: Tensor, second: Tensor, win_prob: Tensor, temperature: float = 0.1, normalize: bool = True
) -> Tensor:
    r"""Cross-entropy of the general preference model, ``P(first beats second) = σ(s(v₁, v₂) / temperature)``.

    Args:
        first: v₁, embeddings of the first responses, shape (N, D), D even.
        second: v₂, shape (N, D).
        win_prob: P(first beats second) in the data, shape (N,).
        temperature: Positive; with unit embeddings no logit exceeds its inverse.
        normalize: Whether embeddings are scaled to unit length.

    Returns:
        Shape (N,), nats.

    Source: arXiv:2410.02197, equation 8.
    """
    return soft_cross_entropy(embedding_score(first, second, normalize) / temperature, win_prob)


def pairwise_loss(forward: Tensor, backward: Tensor, win_prob: Tensor) -> Tensor:
    r"""Cross-entropy of a model that reads both responses, as the mean over both orders.

    Args:
        forward: Logit of "the one read first wins" when the first response is read first, shape (N,).
        backward: The same when the second response is read first, shape (N,).
        win_prob: P(first beats second) in the data, shape (N,).

    Returns:
        Shape (N,), nats.
    """
    return (soft_cross_entropy(forward, win_prob) + soft_cross_entropy(backward, 1.0 - win_prob)) / 2


def _sign_loss(cost: Tensor, safe: Tensor) -> Tensor:
    """``−log σ(s C)`` with s = −1 for a safe response and +1 for an unsafe one."""
    return -F.logsigmoid(torch.where(safe, -cost, cost))
