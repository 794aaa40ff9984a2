"""Objectives that regress log-ratios on payoffs: SPPO, INPO, IPO and MPO's own regression form."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.objectives.base import GAME_VALUE, FloatArray, SampledObjective, check_positive
from magnetar.numerics import masked_sum, tilt
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = ["PairwiseRegression", "PointwiseRegression", "RegressionTarget"]

RegressionTarget = Literal["payoff", "pair", "winner"]
"""What a pair is regressed on: the difference of payoffs, its own preference, or its winner."""
REGRESSION_TARGETS: tuple[RegressionTarget, ...] = ("payoff", "pair", "winner")


@dataclass(frozen=True)
class PairwiseRegression(SampledObjective):
    r"""Least squares on pairs of a group: differences of log-ratios should equal scaled differences of payoffs.

    ``L_i = Σ_j w_ij (h_i − h_j − s t_ij)²`` with ``h = log π_θ − (1 − c) log π_k − c log ρ`` (sums over the tokens of a
    response) and w the weights of the pairs. The target ``t_ij`` is ``q̂_i − q̂_j`` or the pair's own ``P_ij − 1/2``; the
    second has the same mean, since opponents are drawn from the policy that sampled the pair. Optimistic payoffs,
    ``2 q_k − q_{k−1}``, have the target ``2 (P_ij − 1/2) − (q̂'_i − q̂'_j)``, q̂' being the payoffs against the policy
    before. On a tabular policy the
    minimiser is ``log π_{k+1} = (1 − c) log π_k + c log ρ + s q + const``.

    INPO (arXiv:2407.00617, equation 8) is ``c = ηβ``, ``s = η``, target "pair"; magnetic mirror descent
    ``c = ηα/(1 + ηα)``, ``s = η/(1 + ηα)``; the minimum of the online IPO losses (arXiv:2503.08942) ``c = 1``,
    ``s = 1/β``.

    Attributes:
        magnet_weight: c, at least 0; 0 for no magnet.
        scale: s, nats per unit of win probability; positive.
        target: "payoff", "pair", or "winner": −1/2, 0 or 1/2 for a pair that is more likely lost, tied or won.
    """

    magnet_weight: float
    scale: float
    target: RegressionTarget = "payoff"

    def __post_init__(self) -> None:
        check_positive(scale=self.scale)
        if not 0 <= self.magnet_weight < float("inf"):
            raise ConfigError(f"magnet_weight is {self.magnet_weight}, expected a finite number of at least 0")
        if self.target not in REGRESSION_TARGETS:
            raise ConfigError(unknown_name("target", self.target, REGRESSION_TARGETS))

    @property
    def needs_magnet(self) -> bool:
        """Whether the loss looks at the magnet's log-probabilities."""
        return self.magnet_weight != 0

    @property
    def compares_group(self) -> bool:
        """Whether pairs are regressed on their own preference."""
        return self.target != "payoff"

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts, with the magnet's log-probabilities if ``magnet_weight`` is not zero; for the targets
                "pair" and "winner" the opponents must be the group itself.

        Returns:
            ``loss_BG`` and the metrics "payoff" and "residual" (root mean square over the pairs, nats).

        Raises:
            ValueError: The magnet's log-probabilities are missing, or the opponents are not the group.
        """
        h_BG = masked_sum(batch.logp_BGT, batch.mask_BGT) - (1.0 - self.magnet_weight) * masked_sum(
            batch.behavior_logp_BGT, batch.mask_BGT
        )
        if self.needs_magnet:
            if batch.magnet_logp_BGT is None:
                raise ValueError("magnet_logp_BGT is None, expected the magnet's log-probabilities: magnet_weight > 0")
            h_BG = h_BG - self.magnet_weight * masked_sum(batch.magnet_logp_BGT, batch.mask_BGT)
        squared_BGG = (h_BG[..., :, None] - h_BG[..., None, :] - self.scale * self._target_BGG(batch).to(h_BG)) ** 2
        # Where the opponents are the group, their weights are those of the pairs: none for a response with itself (so
        # that samples are unbiased) nor for a pair without an answer.
        weight_BGG = _within_group(batch)[1] if self.compares_group else batch.response_weight_BG[..., None, :]
        loss_BG = (squared_BGG * weight_BGG).sum(-1)
        return ObjectiveOutput(loss_BG, {"payoff": batch.payoff_BG.detach(), "residual": loss_BG.detach().sqrt()})

    def _target_BGG(self, batch: RolloutBatch) -> Tensor:
        if self.target == "payoff":
            return batch.payoff_BG[..., :, None] - batch.payoff_BG[..., None, :]
        win_prob_BGG, _, share, others_BG = _within_group(batch)
        margin_BGG = win_prob_BGG - GAME_VALUE
        if self.target == "winner":
            margin_BGG = torch.sign(margin_BGG) / 2.0
        return share * margin_BGG + others_BG[..., :, None] - others_BG[..., None, :]

    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """``(1 − c) log π + c log ρ + s q``, normalised; see `PayoffObjective.exact_update`."""
        if self.magnet_weight == 0:
            return tilt(log_policy_A, payoff_A, self.scale)
        if self.magnet_weight == 1:
            return tilt(log_magnet_A, payoff_A, self.scale)
        # Around the policy rather than as a sum of two huge terms, so that no step size gives inf − inf.
        absent = np.isneginf(log_policy_A) | np.isneginf(log_magnet_A)
        with np.errstate(invalid="ignore", over="ignore"):
            reward = payoff_A + (self.magnet_weight / self.scale) * (log_magnet_A - log_policy_A)
        return tilt(np.where(absent, -np.inf, log_policy_A), reward, self.scale)


def _within_group(batch: RolloutBatch) -> tuple[Tensor, Tensor, float, Tensor]:
    """Win probabilities and weights of the pairs of a group, the group's share of the payoff, and the rest of it.

    The first G opponents are the group itself. An optimistic payoff has the share 2 of it, and of further opponents,
    the policy before, the share −1.

    Raises:
        ValueError: The opponents are not the group.
    """
    g, h = batch.win_prob_BGH.shape[-2:]
    weight_BGG = batch.opponent_weight_BGH[..., :g]
    share = float(weight_BGG[0, 0].sum().round()) if h >= g else 0.0
    if share < 1:
        raise ValueError(
            f"win_prob_BGH has shape {tuple(batch.win_prob_BGH.shape)}, expected (B, G, G), or the group and further "
            "opponents: pairs of a group are compared with each other"
        )
    others_BG = (batch.win_prob_BGH * batch.opponent_weight_BGH)[..., g:].sum(-1)
    return batch.win_prob_BGH[..., :g], weight_BGG / share, share, others_BG


@dataclass(frozen=True)
class PointwiseRegression(SampledObjective):
    r"""Self-play preference optimization: each response's log-ratio should equal its scaled payoff.

    ``L_i = (log π_θ(y_i) − log π_k(y_i) − η (q̂_i − 1/2))²``. The closed form is what the method approximates,
    multiplicative weights, ``log π_{k+1} = log π_k + η q + const``: the paper replaces the normalising constant by η/2,
    so the loss itself is minimised there only up to terms of order η².

    Source: arXiv:2405.00675, theorem 4.1.

    Attributes:
        step_size: η, nats per unit of win probability; positive.
    """

    step_size: float

    def __post_init__(self) -> None:
        check_positive(step_size=self.step_size)

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and the metric "payoff" per response."""
        log_ratio_BG = masked_sum(batch.logp_BGT - batch.behavior_logp_BGT, batch.mask_BGT)
        target_BG = self.step_size * (batch.payoff_BG - GAME_VALUE).to(log_ratio_BG)
        return ObjectiveOutput((log_ratio_BG - target_BG) ** 2, {"payoff": batch.payoff_BG.detach()})

    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """``log π + η q``, normalised; see `PayoffObjective.exact_update`."""
        del log_magnet_A
        return tilt(log_policy_A, payoff_A, self.step_size)
