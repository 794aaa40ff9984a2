"""Policy gradients on a reward with the group as the baseline: RLOO and GRPO."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.objectives.base import FloatArray, check_flags
from magnetar.methods.objectives.scores import (
    PENALTIES,
    STD_FLOOR,
    Penalty,
    RewardObjective,
    averaged_over_tokens,
    log_ratio_to_reference,
    required_reward,
)
from magnetar.methods.objectives.surrogate import check_clip_range, clipped_surrogate
from magnetar.numerics import masked_sum, sampled_reverse_kl
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = ["GroupRelativeGradient", "LeaveOneOutGradient", "PenaltyEstimator"]

PenaltyEstimator = Literal["k3", "sampled"]
"""Estimator of the penalty in the loss: that of GRPO's paper, or one whose gradient is that of the reverse KL."""


@dataclass(frozen=True)
class LeaveOneOutGradient(RewardObjective):
    r"""REINFORCE with the other responses of the group as the baseline (RLOO).

    The reward of a response holds the penalty of the whole sequence, ``R_i = r_i − β Σ_t log(π_k/ref)(y_t)``, the
    baseline is the mean over the others, ``A_i = R_i − Σ_{j≠i} R_j/(G − 1)``, and
    ``L_i = − Σ_t min(ρ_t A_i, clip(ρ_t) A_i)`` with ``ρ = π_θ/π_k``: on its first step plain REINFORCE.

    Source: arXiv:2402.14740, section 3.2; the clipping, for later steps on a batch, from arXiv:1707.06347.

    Attributes:
        clip_range: ε, half-width of the clipping interval of the ratio, in (0, 1).
        token_average: Divide a response's loss by its length; the source sums.
    """

    clip_range: float = 0.2
    token_average: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clip_range(self.clip_range)
        check_flags(token_average=self.token_average)

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with rewards, and the reference's log-probabilities as the magnet's.

        Returns:
            ``loss_BG`` and the metrics "payoff", "reward", "kl_magnet" (of the behaviour policy, nats per response)
            and "clip_share".

        Raises:
            ValueError: Rewards or the reference's log-probabilities are missing.
        """
        reward_BG = required_reward(batch)
        kl_BG = log_ratio_to_reference(batch).sum(-1)
        advantage_BG = leave_one_out_advantage(reward_BG - self.kl_coef * kl_BG, batch)
        loss_BGT, share_BG = clipped_surrogate(batch, advantage_BG[..., None], self.clip_range)
        metrics = {"payoff": batch.payoff_BG.detach(), "reward": reward_BG, "kl_magnet": kl_BG, "clip_share": share_BG}
        return ObjectiveOutput(averaged_over_tokens(loss_BGT, batch, self.token_average), metrics)


@dataclass(frozen=True)
class GroupRelativeGradient(RewardObjective):
    r"""Group relative policy optimization (GRPO): rewards standardised within the group, the penalty in the loss.

    ``A_i = (r_i − mean)/std`` over the group,
    ``L_i = (1/|y_i|) Σ_t [ − min(ρ_t A_i, clip(ρ_t) A_i) + β k3_t ]``, ``k3 = ref/π_θ − log(ref/π_θ) − 1``. The
    division by the standard deviation makes β mean something else for each prompt, and the gradient of k3 without an
    importance ratio is that of KL(ref‖π_θ), not of KL(π_θ‖ref): both can be switched off.

    Source: arXiv:2402.03300, equations 3 and 4.

    Attributes:
        clip_range: ε, half-width of the clipping interval of the ratio, in (0, 1).
        scale_rewards: Divide by the standard deviation of the group.
        token_average: Divide a response's loss by its length.
        kl_estimator: "k3", or "sampled": with the importance ratio, whose gradient is that of KL(π_θ‖ref).
    """

    clip_range: float = 0.2
    scale_rewards: bool = True
    token_average: bool = True
    kl_estimator: PenaltyEstimator = "k3"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clip_range(self.clip_range)
        check_flags(scale_rewards=self.scale_rewards, token_average=self.token_average)
        if self.kl_estimator not in ("k3", "sampled"):
            raise ConfigError(unknown_name("kl_estimator", self.kl_estimator, ("k3", "sampled")))

    @property
    def penalty(self) -> Penalty:
        """That of k3 is KL(ref‖π)."""
        return PENALTIES[1] if self.kl_estimator == "k3" else PENALTIES[0]

    def advantage(self, score_A: FloatArray, policy_A: FloatArray) -> FloatArray:
        """Scores less their mean, over their standard deviation under the policy."""
        centred = score_A - policy_A @ score_A
        return centred / (np.sqrt(policy_A @ centred**2) + STD_FLOOR) if self.scale_rewards else centred

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with rewards, and the reference's log-probabilities as the magnet's.

        Returns:
            ``loss_BG`` and the metrics "payoff", "reward", "kl_magnet" (nats per response) and "clip_share".

        Raises:
            ValueError: Rewards or the reference's log-probabilities are missing.
        """
        reward_BG = required_reward(batch)
        advantage_BG = standardised_advantage(reward_BG, batch, self.scale_rewards)
        loss_BGT, share_BG = clipped_surrogate(batch, advantage_BG[..., None], self.clip_range)
        log_ratio_to_reference(batch)  # raises when there is no reference
        penalty_BGT = self._penalty_BGT(batch)
        metrics = {
            "payoff": batch.payoff_BG.detach(),
            "reward": reward_BG,
            "kl_magnet": masked_sum(penalty_BGT.detach(), batch.mask_BGT),
            "clip_share": share_BG,
        }
        loss_BGT = loss_BGT + self.kl_coef * penalty_BGT
        return ObjectiveOutput(averaged_over_tokens(loss_BGT, batch, self.token_average), metrics)

    def _penalty_BGT(self, batch: RolloutBatch) -> Tensor:
        assert batch.magnet_logp_BGT is not None
        if self.kl_estimator == "sampled":
            return sampled_reverse_kl(batch.logp_BGT, batch.behavior_logp_BGT, batch.magnet_logp_BGT)
        log_ratio_BGT = torch.where(batch.mask_BGT, batch.magnet_logp_BGT - batch.logp_BGT, 0.0)
        return log_ratio_BGT.exp() - log_ratio_BGT - 1.0


def leave_one_out_advantage(reward_BG: Tensor, batch: RolloutBatch) -> Tensor:
    """Rewards less the mean over the other responses of the group, shape (B, G), no gradient.

    Where all responses are listed with their exact weights, the mean is that of the policy itself.
    """
    weight_BGG = _group_weights(batch).to(reward_BG)
    return (reward_BG - (weight_BGG * reward_BG[..., None, :]).sum(-1)).detach()


def standardised_advantage(reward_BG: Tensor, batch: RolloutBatch, scale: bool) -> Tensor:
    """Rewards less the group's mean, and with ``scale`` over its standard deviation (of a sample, G − 1); (B, G)."""
    weight_BG = batch.response_weight_BG.to(reward_BG)
    centred_BG = (reward_BG - (weight_BG * reward_BG).sum(-1, keepdim=True)).detach()
    if not scale:
        return centred_BG
    # Half the mean squared difference of two responses is the variance: that of a sample where the pairs leave a
    # response with itself out, the exact one where responses are listed with exact weights.
    squared_BGG = (reward_BG[..., :, None] - reward_BG[..., None, :]) ** 2
    variance_BG = (_group_weights(batch).to(reward_BG) * squared_BGG).sum(-1) / 2.0
    return centred_BG / ((weight_BG * variance_BG).sum(-1, keepdim=True).sqrt() + STD_FLOOR)


def _group_weights(batch: RolloutBatch) -> Tensor:
    if batch.opponent_weight_BGH.shape[-1] != batch.opponent_weight_BGH.shape[-2]:
        raise ValueError(
            f"opponent_weight_BGH has shape {tuple(batch.opponent_weight_BGH.shape)}, expected (B, G, G): the group "
            "itself is the baseline"
        )
    return batch.opponent_weight_BGH
