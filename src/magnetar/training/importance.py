"""Correction for responses that were drawn by another program than the one that learns from them.

A rollout engine with kernels of its own, or weights rounded in another way, draws from a policy μ that is not quite the
trainer's π. Expectations under π are then averages over the responses with weights in proportion to π(y)/μ(y).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from magnetar.types import RolloutBatch

__all__ = ["ImportanceWeights", "corrected", "importance_weights", "reweighted_opponents", "token_weighted"]


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights of responses under the trainer's policy, and what they say of the engine.

    Attributes:
        weight_BG: Weights of the responses; rows sum to what they summed to before.
        gap_nats: Mean distance |log π − log μ| of a token's log-probabilities, nats.
        effective_share: Effective sample size over the number of responses that count, in (0, 1], mean over prompts.
        capped_share: Share of responses whose ratio exceeded the cap.
    """

    weight_BG: Tensor
    gap_nats: float
    effective_share: float
    capped_share: float


def importance_weights(
    weight_BG: Tensor, policy_logp_BGT: Tensor, sampling_logp_BGT: Tensor, mask_BGT: Tensor, cap: float
) -> ImportanceWeights:
    r"""Weights of responses by their truncated importance ratio, normalised over each group.

    ``w_g ∝ v_g · min(π(y_g)/μ(y_g), cap)``, with ``v`` the weights before. The ratio is that of the whole response, so
    that any function of it is averaged rightly; dividing by the sum leaves a bias of order 1/G in the ratios' variance.

    Args:
        weight_BG: Weights v of the responses, at least 0.
        policy_logp_BGT: log π of each token by the trainer, nats.
        sampling_logp_BGT: log μ of each token by the engine, nats.
        mask_BGT: True at response tokens.
        cap: Largest ratio, above 0; infinity for none.

    Returns:
        The weights and the figures that go with them.

    Raises:
        ValueError: A cap that is not above 0.

    Source: Yao et al., "On the Rollout-Training Mismatch in Modern RL Systems" (2025), for ratios against engines.
    """
    if not cap > 0.0:
        raise ValueError(f"cap = {cap}, expected above 0")
    gap_BGT = torch.where(mask_BGT, policy_logp_BGT.double() - sampling_logp_BGT.double(), 0.0)
    log_ratio_BG = gap_BGT.sum(-1)
    # Divided by the group's largest ratio, which changes no normalised weight and cannot overflow.
    bounded_BG = log_ratio_BG.clamp(max=torch.tensor(cap, dtype=torch.float64).log().item())
    ratio_BG = (bounded_BG - bounded_BG.amax(-1, keepdim=True)).exp()
    raw_BG = weight_BG.double() * ratio_BG
    total_B1 = weight_BG.double().sum(-1, keepdim=True)
    sum_B1 = raw_BG.sum(-1, keepdim=True)
    corrected_BG = torch.where(sum_B1 > 0, total_B1 * raw_BG / sum_B1.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    counts_BG = weight_BG > 0
    heard_B = counts_BG.any(-1)
    share_B = corrected_BG.sum(-1) ** 2 / (corrected_BG.square().sum(-1) * counts_BG.sum(-1)).clamp(min=1e-300)
    return ImportanceWeights(
        weight_BG=corrected_BG.to(weight_BG.dtype),
        gap_nats=float(gap_BGT.abs().sum() / mask_BGT.sum().clamp(min=1)),
        effective_share=float(share_B[heard_B].mean()) if bool(heard_B.any()) else 1.0,
        capped_share=float((log_ratio_BG > bounded_BG).double().mean()),
    )


def reweighted_opponents(opponent_weight_BGH: Tensor, before_BG: Tensor, after_BG: Tensor) -> Tensor:
    """Weights of the group's members as opponents of one another, corrected as the responses are.

    Args:
        opponent_weight_BGH: Weights of opponent h for response g; H = G, the group itself.
        before_BG: Weights of the responses before the correction.
        after_BG: The same afterwards.

    Returns:
        Shape (B, G, H); rows sum to what they summed to before.
    """
    ratio_BG = torch.where(before_BG > 0, after_BG / before_BG.clamp(min=torch.finfo(before_BG.dtype).tiny), 0.0)
    raw = opponent_weight_BGH * ratio_BG.to(opponent_weight_BGH)[:, None, :]
    total, new = opponent_weight_BGH.sum(-1, keepdim=True), raw.sum(-1, keepdim=True)
    return torch.where(new > 0, total * raw / torch.where(new > 0, new, 1.0), 0.0)


def token_weighted(logp_BGT: Tensor, policy_logp_BGT: Tensor, sampling_logp_BGT: Tensor, cap: float) -> Tensor:
    r"""Log-probabilities of the same values whose gradients are multiplied by each token's truncated ratio.

    ``∇ log π(y_t) · min(π(y_t)/μ(y_t), cap)``: biased, for the ratios of earlier tokens are left out, but of small
    variance however long the response, where the product over a long response lets one response speak for its group.

    Args:
        logp_BGT: log π_θ of each token, nats, differentiable.
        policy_logp_BGT: The same under the trainer's policy when the responses were drawn.
        sampling_logp_BGT: log μ by the engine.
        cap: Largest ratio, above 0.
    """
    ratio_BGT = (policy_logp_BGT.detach() - sampling_logp_BGT.to(policy_logp_BGT)).exp().clamp(max=cap)
    fixed_BGT = logp_BGT.detach()
    return fixed_BGT + ratio_BGT * (logp_BGT - fixed_BGT)


def corrected(
    batch: RolloutBatch, sampling_logp_BGT: Tensor, kind: str, cap: float, *, own_group: bool
) -> tuple[RolloutBatch, dict[str, float]]:
    """A batch that another program drew, as if the trainer's policy had drawn it, and figures to log.

    Args:
        batch: With the log-probabilities under the trainer's policy when the responses were drawn.
        sampling_logp_BGT: Those that the engine computed, nats.
        kind: "off" measures only; "token" scales the gradient of each token's log-probability; "sequence" weights the
            responses.
        cap: Largest ratio, above 0.
        own_group: Whether the responses are each other's opponents, the first G of them, which are then weighted alike;
            opponents that another role drew stay as they are.

    Returns:
        The batch, and the mean distance of log-probabilities ("sampling_gap", nats a token), the effective share of the
        responses by whole-response ratios ("sampling_effective_share") and the share above the cap.
    """
    found = importance_weights(
        batch.response_weight_BG, batch.behavior_logp_BGT.detach(), sampling_logp_BGT, batch.mask_BGT, cap
    )
    figures = {
        "sampling_gap": found.gap_nats,
        "sampling_effective_share": found.effective_share,
        "sampling_capped": found.capped_share,
    }
    if kind == "token":
        logp = token_weighted(batch.logp_BGT, batch.behavior_logp_BGT, sampling_logp_BGT, cap)
        batch = replace(batch, logp_BGT=torch.where(batch.mask_BGT, logp, batch.logp_BGT))
    elif kind == "sequence":
        opponents = batch.opponent_weight_BGH
        if own_group:
            group, others = opponents.tensor_split([opponents.shape[1]], dim=-1)
            group = reweighted_opponents(group, batch.response_weight_BG, found.weight_BG)
            opponents = torch.cat([group, others], dim=-1)
        batch = replace(batch, response_weight_BG=found.weight_BG, opponent_weight_BGH=opponents)
    return batch, figures
