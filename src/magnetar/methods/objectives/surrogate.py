"""The importance-weighted gain of a policy gradient, and PPO's clipped form of it."""

import torch
from torch import Tensor

from magnetar.errors import ConfigError
from magnetar.numerics import masked_sum
from magnetar.types import RolloutBatch

__all__ = ["check_clip_range", "clipped_surrogate", "probability_ratio"]


def probability_ratio(batch: RolloutBatch) -> Tensor:
    """``π_θ/π_k`` of each sampled token, shape (B, G, T), differentiable; 1 at padding."""
    return torch.where(batch.mask_BGT, batch.logp_BGT - batch.behavior_logp_BGT, 0.0).exp()


def clipped_surrogate(batch: RolloutBatch, gain_BGT: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """``− min(r · gain, clip(r, 1 − ε, 1 + ε) · gain)`` of each token, r being the probability ratio.

    Args:
        batch: Rollouts.
        gain_BGT: What a token's probability is worth, no gradient.
        clip_range: ε, half-width of the clipping interval, in (0, 1).

    Returns:
        The loss, shape (B, G, T), and the share of each response's tokens whose ratio lies outside, shape (B, G).

    Source: arXiv:1707.06347, equation 7.
    """
    ratio_BGT = probability_ratio(batch)
    clipped_BGT = ratio_BGT.clamp(1.0 - clip_range, 1.0 + clip_range)
    outside_BGT = ((ratio_BGT - clipped_BGT).abs() > 0).detach().to(gain_BGT.dtype)
    share_BG = masked_sum(outside_BGT, batch.mask_BGT) / batch.mask_BGT.sum(-1).clamp(min=1)
    return -torch.minimum(ratio_BGT * gain_BGT, clipped_BGT * gain_BGT), share_BG


def check_clip_range(clip_range: float) -> None:
    """Refuse a half-width outside (0, 1).

    Raises:
        ConfigError: It is.
    """
    if not 0 < clip_range < 1:
        raise ConfigError(f"clip_range is {clip_range}, expected a number strictly between 0 and 1")
