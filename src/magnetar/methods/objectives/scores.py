"""What all methods share that maximise one score per response near a reference: their form on exact games."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from magnetar.methods.objectives.base import FloatArray, OracleObjective, PayoffOracle, SampledLoss, check_positive
from magnetar.methods.objectives.bradley_terry import SMALLEST_KL_COEF, fit_bradley_terry
from magnetar.numerics import log_normalize, masked_sum, tilt
from magnetar.types import RolloutBatch

__all__ = ["PENALTIES", "Penalty", "RewardObjective", "averaged_over_tokens"]

Penalty = Literal["reverse", "k3"]
PENALTIES: tuple[Penalty, ...] = ("reverse", "k3")
STD_FLOOR = 1e-4  # added to a standard deviation before dividing by it: equal rewards give no advantage, not 0/0


@dataclass(frozen=True)
class RewardObjective(OracleObjective, SampledLoss):
    r"""Maximise a reward per response, kept near the reference by a KL penalty.

    On an exact game the rewards are the scores that maximum likelihood fits to all preferences under the reference
    policy, as reward modelling does, and one update is the best policy for the advantages A under the current one:
    ``π' = argmax ⟨π', A⟩ − β KL(π'‖ref)``, which is ``ref exp(A/β)``. Subclasses say what A is.

    Attributes:
        kl_coef: β, in units of the reward per nat; positive.
    """

    kl_coef: float

    def __post_init__(self) -> None:
        check_positive(kl_coef=self.kl_coef)

    @property
    def needs_reward(self) -> bool:
        """True: a judge must score each response."""
        return True

    @property
    def needs_magnet(self) -> bool:
        """True: the magnet, which never moves, is the reference of the penalty."""
        return True

    @property
    def penalty(self) -> Penalty:
        """Which divergence from the reference the gradient of the penalty belongs to."""
        return "reverse"

    def advantage(self, score_A: FloatArray, policy_A: FloatArray) -> FloatArray:
        """Advantage of every action under a policy; the scores less their mean, unless a subclass rescales it."""
        return score_A - policy_A @ score_A

    def initial_state(self, log_policy_A: FloatArray) -> None:
        """No scores yet."""
        del log_policy_A

    def exact_step(
        self, oracle: PayoffOracle, log_policy_A: FloatArray, log_reference_A: FloatArray, state: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """See `OracleObjective.exact_step`; the state is the fitted scores."""
        score = fit_bradley_terry(oracle.win_prob(), np.exp(log_reference_A)) if state is None else state
        advantage = self.advantage(score, np.exp(log_policy_A))
        if self.penalty == "reverse":
            return tilt(log_reference_A, advantage, 1.0 / max(self.kl_coef, SMALLEST_KL_COEF)), score
        return _forward_penalised(log_reference_A, advantage, self.kl_coef), score


def _forward_penalised(log_reference_A: FloatArray, advantage_A: FloatArray, kl_coef: float) -> FloatArray:
    """``argmax ⟨π, A⟩ − β KL(ref‖π)``: ``π = β ref/(λ − A)``, with the λ above max A that normalises it."""
    present = ~np.isneginf(log_reference_A)
    log_share = np.log(kl_coef) + log_reference_A[present]
    with np.errstate(divide="ignore"):  # −∞ for the best action
        # λ − A = margin + below, so that nothing cancels near λ = max A; in logs, so that no β overflows.
        log_below = np.log(advantage_A[present].max() - advantage_A[present])

    def excess(log_margin: float) -> float:
        return float(np.logaddexp.reduce(log_share - np.logaddexp(log_margin, log_below)))

    # At the lower end the best action alone has more than its share, at the upper end all have less than theirs.
    best = log_below.argmin()
    log_margin: Any = brentq(excess, log_share[best] - 1.0, np.log(kl_coef) + 1.0, xtol=1e-14)
    policy = np.full(len(log_reference_A), -np.inf)
    policy[present] = log_share - np.logaddexp(log_margin, log_below)
    return log_normalize(policy)


def averaged_over_tokens(loss_BGT: Tensor, batch: RolloutBatch, average: bool) -> Tensor:
    """Sum of a loss over the tokens of each response, or their mean; shape (B, G)."""
    total_BG = masked_sum(loss_BGT, batch.mask_BGT)
    return total_BG / batch.mask_BGT.sum(-1).clamp(min=1) if average else total_BG


def required_reward(batch: RolloutBatch) -> Tensor:
    """The rewards of a batch.

    Raises:
        ValueError: There are none.
    """
    if batch.reward_BG is None:
        raise ValueError("reward_BG is None, expected a score of each response by a judge that scores")
    return batch.reward_BG.to(batch.logp_BGT.dtype)


def log_ratio_to_reference(batch: RolloutBatch) -> Tensor:
    """``log(π_k/ref)`` of each token, no gradient, zero at padding.

    Raises:
        ValueError: The reference's log-probabilities are missing.
    """
    if batch.magnet_logp_BGT is None:
        raise ValueError("magnet_logp_BGT is None, expected the reference's log-probabilities")
    return torch.where(batch.mask_BGT, batch.behavior_logp_BGT - batch.magnet_logp_BGT, 0.0).detach()
