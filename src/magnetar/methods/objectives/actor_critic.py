"""Proximal policy optimization with a learned critic: what alignment on a reward model usually means."""

from dataclasses import dataclass

import torch
from torch import Tensor

from magnetar.errors import ConfigError
from magnetar.methods.objectives.base import check_flags, check_positive
from magnetar.methods.objectives.scores import (
    RewardObjective,
    averaged_over_tokens,
    log_ratio_to_reference,
    required_reward,
)
from magnetar.methods.objectives.surrogate import check_clip_range, clipped_surrogate
from magnetar.numerics import discounted_to_go
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = ["ActorCritic", "advantages_and_returns"]


@dataclass(frozen=True)
class ActorCritic(RewardObjective):
    r"""PPO: a critic's values are the baseline of every token.

    Per-token reward ``−β log(π_k/ref)(y_t)``, at the last token also the judge's score; advantages by generalised
    estimation with the values V_k of the critic when the batch was sampled, ``A_t = Σ_s (γλ)^s δ_{t+s}``,
    ``δ_t = r_t + γ V_k(t + 1) − V_k(t)``; actor's loss ``− min(ρ_t A_t, clip(ρ_t) A_t)``, critic's loss
    ``½ max[(V − R)², (clip(V, V_k ± c) − R)²]`` with ``R_t = A_t + V_k(t)``. Actor and critic share no weights, so
    their losses simply add.

    Source: arXiv:1707.06347, equation 7; arXiv:1506.02438, equation 16 (advantages); on language models with these
    defaults arXiv:2310.12773 (Safe-RLHF).

    Attributes:
        clip_range: ε, half-width of the clipping interval of the ratio, in (0, 1).
        value_clip_range: c, how far a value may move from V_k before its loss is clipped; positive, in reward.
        reward_clip: Scores and penalties of a token are held within ± this; positive, in reward.
        discount: γ, in (0, 1].
        gae_lambda: λ, in [0, 1]; at 1 the advantage is the return less V_k.
        token_average: Divide a response's loss by its length.

    The advantages are not whitened: over what (a pass, a batch, a group) would be one more convention, and the loss
    would depend on how a batch is split into passes.
    """

    clip_range: float = 0.2
    value_clip_range: float = 5.0
    reward_clip: float = 50.0
    discount: float = 1.0
    gae_lambda: float = 0.95
    token_average: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_clip_range(self.clip_range)
        check_positive(value_clip_range=self.value_clip_range, reward_clip=self.reward_clip)
        check_flags(token_average=self.token_average)
        if not 0 < self.discount <= 1:
            raise ConfigError(f"discount is {self.discount}, expected a number in (0, 1]")
        if not 0 <= self.gae_lambda <= 1:
            raise ConfigError(f"gae_lambda is {self.gae_lambda}, expected a number in [0, 1]")

    @property
    def needs_value(self) -> bool:
        """True: a critic must value every state."""
        return True

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with rewards, values of the critic now and at sampling, and the reference's
                log-probabilities as the magnet's.

        Returns:
            ``loss_BG`` and the metrics "payoff", "reward", "kl_magnet" (of the behaviour policy, nats per response),
            "clip_share", "value_loss" and "value_error" (mean absolute error of the values, in reward).

        Raises:
            ValueError: Rewards, values or the reference's log-probabilities are missing.
        """
        if batch.value_BGT is None or batch.behavior_value_BGT is None:
            raise ValueError("value_BGT and behavior_value_BGT are None, expected a critic's values of every state")
        reward_BG, log_ratio_BGT = required_reward(batch), log_ratio_to_reference(batch)
        mask_BGT, old_BGT = batch.mask_BGT, batch.behavior_value_BGT
        last_BGT = mask_BGT & (mask_BGT.flip(-1).cumsum(-1).flip(-1) == 1)
        reward_BGT = -self.kl_coef * log_ratio_BGT + torch.where(last_BGT, reward_BG[..., None], 0.0)
        reward_BGT = reward_BGT.clamp(-self.reward_clip, self.reward_clip)
        advantage_BGT, return_BGT = advantages_and_returns(
            reward_BGT, old_BGT, mask_BGT, discount=self.discount, decay=self.gae_lambda
        )
        actor_BGT, share_BG = clipped_surrogate(batch, advantage_BGT, self.clip_range)
        near_BGT = old_BGT + (batch.value_BGT - old_BGT).clamp(-self.value_clip_range, self.value_clip_range)
        critic_BGT = torch.maximum((batch.value_BGT - return_BGT) ** 2, (near_BGT - return_BGT) ** 2) / 2.0
        critic_BG = averaged_over_tokens(critic_BGT, batch, self.token_average)
        metrics = {
            "payoff": batch.payoff_BG.detach(),
            "reward": reward_BG,
            "kl_magnet": log_ratio_BGT.sum(-1),
            "clip_share": share_BG,
            "value_loss": critic_BG.detach(),
            "value_error": averaged_over_tokens((batch.value_BGT - return_BGT).abs().detach(), batch, True),
        }
        return ObjectiveOutput(averaged_over_tokens(actor_BGT, batch, self.token_average) + critic_BG, metrics)


def advantages_and_returns(
    reward_BGT: Tensor, value_BGT: Tensor, mask_BGT: Tensor, *, discount: float, decay: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns that the critic learns.

    Args:
        reward_BGT: Reward of each token.
        value_BGT: Value of the state before each token.
        mask_BGT: True at response tokens, which come before the padding.
        discount: γ.
        decay: λ.

    Returns:
        Advantages and returns, shape (B, G, T), zero at padding, no gradient.

    Source: arXiv:1506.02438, equation 16.
    """
    value_BGT = torch.where(mask_BGT, value_BGT, 0.0).detach()
    after_BGT = torch.cat([value_BGT[..., 1:], torch.zeros_like(value_BGT[..., :1])], dim=-1)  # the end is worth 0
    error_BGT = torch.where(mask_BGT, reward_BGT + discount * after_BGT - value_BGT, 0.0)
    advantage_BGT = torch.where(mask_BGT, discounted_to_go(error_BGT, discount * decay), 0.0)
    return advantage_BGT, advantage_BGT + value_BGT
