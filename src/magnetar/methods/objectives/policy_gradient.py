"""Policy-gradient objectives of Magnetic Preference Optimization, each with its exact minimiser on a tabular policy.

An objective is a pure function of a `RolloutBatch`: no optimiser, no collectives, no random numbers, no reduction over
responses. The same object knows the closed form that the loss has on a matrix game (every response is one token, all
responses enumerated, exact weights); a test minimises the loss numerically and compares.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.objectives.base import GAME_VALUE, FloatArray, SampledObjective, check_positive
from magnetar.methods.objectives.surrogate import check_clip_range, clipped_surrogate, probability_ratio
from magnetar.numerics import log_normalize, masked_sum, reward_to_go, sampled_reverse_kl, tilt
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = ["KLEstimator", "MagneticPolicyGradient", "PolicyGradient", "Proximal", "RewardTransformedPolicyGradient"]

Proximal = Literal["kl", "clip"]
"""What keeps an update small: a KL term, or PPO's clipping."""
KLEstimator = Literal["exact", "sampled"]
"""KL terms of next-token distributions: summed over the vocabulary, or estimated from the sampled tokens."""


@dataclass(frozen=True)
class PolicyGradient(SampledObjective):
    """What the current policy minimises on one batch; its closed form takes the KL as the proximal term.

    Attributes:
        step_size: η, the weight of the payoff against staying near the behaviour policy; positive.
        magnet_strength: α, the weight of the magnet's pull, in units of win probability per nat; zero for none.
        proximal: "kl" adds ``KL(π_θ‖π_k)/η`` to the loss; "clip" clips the probability ratio as PPO does instead, and η
            then has no effect on the loss (the learning rate alone sets the step).
        clip_range: Half-width ε of the clipping interval [1 − ε, 1 + ε]; used with "clip" only.
        kl_estimator: "exact" sums KL terms over the vocabulary at each visited state; "sampled" estimates them from the
            sampled tokens with `magnetar.numerics.sampled_reverse_kl`.
    """

    step_size: float
    magnet_strength: float = 0.0
    proximal: Proximal = "kl"
    clip_range: float = 0.2
    kl_estimator: KLEstimator = "sampled"

    def __post_init__(self) -> None:
        check_positive(step_size=self.step_size)
        if self.magnet_strength != 0:
            check_positive(magnet_strength=self.magnet_strength)
        if self.proximal not in ("kl", "clip"):
            raise ConfigError(unknown_name("proximal", self.proximal, ("kl", "clip")))
        if self.kl_estimator not in ("exact", "sampled"):
            raise ConfigError(unknown_name("kl_estimator", self.kl_estimator, ("exact", "sampled")))
        check_clip_range(self.clip_range)

    @property
    def needs_magnet(self) -> bool:
        """Whether the loss looks at the magnet's log-probabilities."""
        return self.magnet_strength > 0

    @property
    def needs_behavior_distribution(self) -> bool:
        """Whether the loss needs the behaviour policy's whole next-token distributions."""
        return self.proximal == "kl" and self.kl_estimator == "exact"

    def _proximal_terms(self, batch: RolloutBatch, gain_BGT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """``− r · gain + KL_t(π_θ‖π_k)/η`` per token, or its clipped form; and what to log about it."""
        kl_BGT = batch.behavior_kl_BGT
        if kl_BGT is None:
            kl_BGT = sampled_reverse_kl(batch.logp_BGT, batch.behavior_logp_BGT, batch.behavior_logp_BGT)
        metrics = {"kl_behavior": masked_sum(kl_BGT.detach(), batch.mask_BGT)}
        if self.proximal == "kl":
            return -probability_ratio(batch) * gain_BGT + kl_BGT / self.step_size, metrics
        loss_BGT, metrics["clip_share"] = clipped_surrogate(batch, gain_BGT, self.clip_range)
        return loss_BGT, metrics


@dataclass(frozen=True)
class MagneticPolicyGradient(PolicyGradient):
    r"""Magnetic mirror descent by policy gradient: the magnet's pull is a KL term of the loss.

    ``L_i = Σ_t [ − r_{i,t} A_i + α KL_t(π_θ‖ρ) + KL_t(π_θ‖π_k)/η ]`` with ``r_{i,t} = π_θ(y_t|·)/π_k(y_t|·)`` and
    ``A_i = q̂_i − 1/2``. On a tabular policy its minimiser is
    ``log π_{k+1} = (log π_k + ηα log ρ + η q)/(1 + ηα) + const``. With α = 0 it is mirror descent (self-play).

    The advantage is not divided by the group's standard deviation: that would rescale payoffs prompt by prompt, and α
    and η would lose their meaning.

    Source: arXiv:2410.16714, Algorithm 1; arXiv:2206.05825.
    """

    @property
    def needs_magnet_distribution(self) -> bool:
        """True for the exact estimator."""
        return self.needs_magnet and self.kl_estimator == "exact"

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with the magnet's log-probabilities (or exact KL) when ``magnet_strength`` is positive.

        Returns:
            ``loss_BG`` and metrics "payoff", "kl_behavior" and, with a magnet, "kl_magnet" (nats per response).

        Raises:
            ValueError: The magnet's log-probabilities are missing.
        """
        advantage_BG = batch.payoff_BG - GAME_VALUE
        loss_BGT, metrics = self._proximal_terms(batch, advantage_BG[..., None].to(batch.logp_BGT.dtype))
        if self.needs_magnet:
            magnet_kl_BGT = batch.magnet_kl_BGT
            if magnet_kl_BGT is None:
                if batch.magnet_logp_BGT is None:
                    raise ValueError(
                        "magnet_logp_BGT is None, expected the magnet's log-probabilities: magnet_strength > 0"
                    )
                magnet_kl_BGT = sampled_reverse_kl(batch.logp_BGT, batch.behavior_logp_BGT, batch.magnet_logp_BGT)
            loss_BGT = loss_BGT + self.magnet_strength * magnet_kl_BGT
            metrics["kl_magnet"] = masked_sum(magnet_kl_BGT.detach(), batch.mask_BGT)
        return ObjectiveOutput(masked_sum(loss_BGT, batch.mask_BGT), {"payoff": batch.payoff_BG.detach(), **metrics})

    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """``(log π + ηα log ρ + η q)/(1 + ηα)``, normalised; see `PayoffObjective.exact_update`."""
        # Weights rather than products, so that no step size overflows: η/(1 + ηα) = 1/(1/η + α).
        stay = 1.0 / (1.0 + self.step_size * self.magnet_strength)
        gain = 1.0 / (1.0 / self.step_size + self.magnet_strength)
        with np.errstate(invalid="ignore", over="ignore"):  # 0 · (-inf) is met again below
            mixed = stay * log_policy_A + (1.0 - stay) * log_magnet_A if stay < 1.0 else log_policy_A
            logits = mixed + gain * payoff_A
            if isfinite(
                np.add.reduce(logits.ravel())
            ):  # the common case, for which the rest is half the cost of an update
                return log_normalize(logits)
        absent = np.isneginf(log_policy_A) | (np.isneginf(log_magnet_A) if stay < 1.0 else False)
        return tilt(np.where(absent, -np.inf, mixed), payoff_A, gain)


@dataclass(frozen=True)
class RewardTransformedPolicyGradient(PolicyGradient):
    r"""MPO-RT: the magnet enters the reward, so that early tokens answer for the KL of later ones.

    Per-token reward ``−α log(π_k/ρ)(y_t)``, terminal reward ``q̂_i − 1/2``, undiscounted reward-to-go ``R_{i,t}``:
    ``L_i = Σ_t [ − r_{i,t} R_{i,t} + KL_t(π_θ‖π_k)/η ]``. On a tabular policy its minimiser is
    ``log π_{k+1} = log π_k + η (q − α log(π_k/ρ)) + const``, whose fixed points are those of magnetic mirror descent.

    Source: arXiv:2410.16714, Algorithm 2; the reward transformation is from arXiv:2002.08456.
    """

    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response.

        Args:
            batch: Rollouts with the magnet's log-probabilities.

        Returns:
            ``loss_BG`` and metrics "payoff", "kl_behavior", "kl_magnet" (of the behaviour policy, nats per response).

        Raises:
            ValueError: The magnet's log-probabilities are missing.
        """
        if batch.magnet_logp_BGT is None:
            raise ValueError(
                "magnet_logp_BGT is None, expected the magnet's log-probabilities: they are part of the reward"
            )
        log_ratio_BGT = torch.where(batch.mask_BGT, batch.behavior_logp_BGT - batch.magnet_logp_BGT, 0.0).detach()
        terminal_BG1 = (batch.payoff_BG - GAME_VALUE)[..., None].to(log_ratio_BGT.dtype)
        return_BGT = terminal_BG1 + reward_to_go(-self.magnet_strength * log_ratio_BGT)
        loss_BGT, metrics = self._proximal_terms(batch, return_BGT)
        metrics["kl_magnet"] = log_ratio_BGT.sum(-1)
        return ObjectiveOutput(masked_sum(loss_BGT, batch.mask_BGT), {"payoff": batch.payoff_BG.detach(), **metrics})

    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """``log π + η (q − α log(π/ρ))``, normalised; see `PayoffObjective.exact_update`."""
        with np.errstate(invalid="ignore", over="ignore"):  # inf − inf is met again below
            reward = payoff_A - self.magnet_strength * (log_policy_A - log_magnet_A)
            logits = log_policy_A + self.step_size * reward
            if isfinite(np.add.reduce(logits.ravel())):  # as in `MagneticPolicyGradient`
                return log_normalize(logits)
        absent = np.isneginf(log_policy_A) | np.isneginf(log_magnet_A)
        return tilt(np.where(absent, -np.inf, log_policy_A), reward, self.step_size)
