"""Direct preference optimization: a policy's own log-ratios are the scores that are fitted to preferences."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.objectives.base import (
    FloatArray,
    OracleObjective,
    PayoffOracle,
    SampledLoss,
    check_flags,
    check_positive,
)
from magnetar.methods.objectives.bradley_terry import SMALLEST_KL_COEF, fit_bradley_terry
from magnetar.numerics import masked_sum, tilt
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = ["DirectPreference", "PairChoice"]

PairChoice = Literal["all", "best_worst"]
"""Pairs of a group in the loss."""
PAIR_CHOICES: tuple[PairChoice, ...] = ("all", "best_worst")


@dataclass(frozen=True)
class DirectPreference(OracleObjective, SampledLoss):
    r"""The DPO loss on pairs of a group, the reference fixed.

    ``ℓ_ij = − t_ij log σ(β (h_i − h_j)) − (1 − t_ij) log σ(β (h_j − h_i))`` with ``h = log π_θ − log ref`` (sums over
    the tokens of a response). With all pairs, ``L_i = Σ_j w_ij ℓ_ij`` and ``t_ij = P_ij``, its minimiser on a tabular
    policy is ``ref exp(s/β)`` for the scores s that maximum likelihood fits to pairs of the sampling policy, which is
    the exact form here. With "best_worst" only the pair of the highest and the lowest payoff of each group is kept, as
    the sources do.

    Source: arXiv:2305.18290, equation 7; on pairs of the current policy arXiv:2405.07863 and arXiv:2402.04792.

    Attributes:
        kl_coef: β, in logits per nat; positive.
        pairs: "all" pairs of a group, or its "best_worst" one.
        hard_labels: Whether t is the winner, 0 or 1 (1/2 for a tie), or the win probability itself.
    """

    kl_coef: float
    pairs: PairChoice = "all"
    hard_labels: bool = False

    def __post_init__(self) -> None:
        check_positive(kl_coef=self.kl_coef)
        if self.pairs not in PAIR_CHOICES:
            raise ConfigError(unknown_name("pairs", self.pairs, PAIR_CHOICES))
        check_flags(hard_labels=self.hard_labels)

    @property
    def needs_magnet(self) -> bool:
        """True: the magnet, which never moves, is the reference of the log-ratios."""
        return True

    @property
    def compares_group(self) -> bool:
        """True: preferences of pairs are fitted."""
        return True

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with the reference's log-probabilities as the magnet's; the opponents must be the group.

        Returns:
            ``loss_BG`` and the metrics "payoff" and "margin" (β times the log-ratio margin by which the response that
            more likely wins leads, averaged over its pairs; logits).

        Raises:
            ValueError: The reference's log-probabilities are missing, or the opponents are not the group.
        """
        if batch.magnet_logp_BGT is None:
            raise ValueError("magnet_logp_BGT is None, expected the reference's log-probabilities")
        if batch.win_prob_BGH.shape[-1] != batch.win_prob_BGH.shape[-2]:
            raise ValueError(
                f"win_prob_BGH has shape {tuple(batch.win_prob_BGH.shape)}, expected (B, G, G): the loss compares the "
                "responses of a group with each other"
            )
        score_BG = self.kl_coef * masked_sum(batch.logp_BGT - batch.magnet_logp_BGT, batch.mask_BGT)
        margin_BGG = score_BG[..., :, None] - score_BG[..., None, :]
        win_prob_BGG = batch.win_prob_BGH.to(margin_BGG)
        target_BGG = (1.0 + torch.sign(win_prob_BGG - 0.5)) / 2.0 if self.hard_labels else win_prob_BGG
        loss_BGG = -target_BGG * logsigmoid(margin_BGG) - (1.0 - target_BGG) * logsigmoid(-margin_BGG)
        weight_BGG = self._pair_weights(batch).to(loss_BGG)
        towards_winner_BGG = torch.sign(win_prob_BGG - 0.5) * margin_BGG.detach()
        metrics = {"payoff": batch.payoff_BG.detach(), "margin": (weight_BGG * towards_winner_BGG).sum(-1)}
        return ObjectiveOutput((weight_BGG * loss_BGG).sum(-1), metrics)

    def _pair_weights(self, batch: RolloutBatch) -> Tensor:
        """Weights of pairs (i, j), such that response weights times these sum to one over the pairs of a group."""
        if self.pairs == "all":
            return batch.opponent_weight_BGH  # no pair of a response with itself, none without an answer
        weight_BG = batch.response_weight_BG
        answered_BGG = batch.opponent_weight_BGH > 0
        payoff_BG = batch.payoff_BG
        heard_BG = weight_BG > 0
        best = payoff_BG.masked_fill(~heard_BG, -torch.inf).argmax(-1, keepdim=True)
        worst = payoff_BG.masked_fill(~heard_BG, torch.inf).argmin(-1, keepdim=True)
        one = torch.zeros_like(payoff_BG)
        first_BG, last_BG = one.scatter(-1, best, 1.0), one.scatter(-1, worst, 1.0)
        pair_BGG = (first_BG[..., :, None] * last_BG[..., None, :]) * answered_BGG
        # The loss of a response is weighted with its response weight afterwards, which must not count here.
        own_BG1 = torch.where(heard_BG, weight_BG, torch.ones_like(weight_BG))[..., None]
        return torch.where(best[..., None] == worst[..., None], 0.0, pair_BGG / own_BG1)

    def initial_state(self, log_policy_A: FloatArray) -> None:
        """Nothing to remember."""
        del log_policy_A

    def exact_step(
        self, oracle: PayoffOracle, log_policy_A: FloatArray, log_reference_A: FloatArray, state: None
    ) -> tuple[FloatArray, None]:
        """The minimiser of the loss over all pairs of the current policy; see `OracleObjective.exact_step`."""
        del state
        score = fit_bradley_terry(oracle.win_prob(), np.exp(log_policy_A))
        return tilt(log_reference_A, score, 1.0 / max(self.kl_coef, SMALLEST_KL_COEF)), None
