"""Records that pass between the stages, and the one legend of axis letters.

Axis letters, used as suffixes of every array and tensor name in the library:

| letter | meaning |
|---|---|
| B | prompts (one group of responses each) |
| G | responses of the trained policy to one prompt: the group |
| H | opponents' responses to one prompt |
| T | response tokens, the end-of-sequence token included |
| A | actions of a matrix game |
| V | vocabulary |

Sign convention: ``win_prob[..., i, j] = P(i beats j)`` in [0, 1], always.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

__all__ = ["Message", "ObjectiveOutput", "Prompt", "Role", "RolloutBatch"]

Message: TypeAlias = dict[str, str]
"""One chat turn: ``{"role": "user", "content": "..."}``."""

Prompt: TypeAlias = str | list[Message]
"""A prompt in TRL's standard (text) or conversational (chat turns) form."""

Role: TypeAlias = Literal["current", "behavior", "magnet", "reference", "previous", "lookahead"]
"""The parts a policy plays: trained, sampled this batch, pulled towards, where training started; and for predictions of
the opponent the policy of the update before, and the one that a first, discarded half of an update leads to."""


@dataclass(frozen=True)
class RolloutBatch:
    """All that an objective may look at: log-probabilities by role, who beat whom, and weights.

    A matrix game is the case B = 1, G = A (all responses), T = 1 with exact weights; a language model has sampled
    responses with equal weights.

    Attributes:
        logp_BGT: Log-probability of each response token under the current policy, nats, differentiable.
        behavior_logp_BGT: The same under the policy that sampled the batch; no gradient.
        magnet_logp_BGT: The same under the magnet; None when the method has no magnet term.
        mask_BGT: True at response tokens, the end-of-sequence token included; False at padding.
        win_prob_BGH: P(response g beats opponent h), in [0, 1].
        opponent_weight_BGH: Weight of opponent h for response g; each row sums to one. Zero where the judge left the
            pair unanswered.
        response_weight_BG: Weight of each response in expectations; sums to one over G, or to zero for a group of which
            the judge answered nothing.
        magnet_kl_BGT: Exact KL(current‖magnet) of the next-token distributions at each visited state, nats,
            differentiable; None when it is to be estimated from samples.
        behavior_kl_BGT: Exact KL(current‖behavior) likewise.
        reward_BG: Score of each response by a judge that scores; None when the method looks at preferences alone.
        value_BGT: The critic's value of the state before each response token, in units of the reward, differentiable;
            None for a method without a critic.
        behavior_value_BGT: The same by the critic as it was when the batch was sampled; no gradient.
    """

    logp_BGT: Tensor
    behavior_logp_BGT: Tensor
    magnet_logp_BGT: Tensor | None
    mask_BGT: Tensor
    win_prob_BGH: Tensor
    opponent_weight_BGH: Tensor
    response_weight_BG: Tensor
    magnet_kl_BGT: Tensor | None = None
    behavior_kl_BGT: Tensor | None = None
    reward_BG: Tensor | None = None
    value_BGT: Tensor | None = None
    behavior_value_BGT: Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes at the door, so that no broadcast goes unnoticed."""
        b, g, t = self.logp_BGT.shape
        expected = {
            "behavior_logp_BGT": (b, g, t),
            "magnet_logp_BGT": (b, g, t),
            "mask_BGT": (b, g, t),
            "magnet_kl_BGT": (b, g, t),
            "behavior_kl_BGT": (b, g, t),
            "reward_BG": (b, g),
            "value_BGT": (b, g, t),
            "behavior_value_BGT": (b, g, t),
            "win_prob_BGH": (b, g, self.win_prob_BGH.shape[-1]),
            "opponent_weight_BGH": tuple(self.win_prob_BGH.shape),
            "response_weight_BG": (b, g),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {shape}")
        if self.mask_BGT.dtype != torch.bool:
            raise ValueError(f"mask_BGT has dtype {self.mask_BGT.dtype}, expected torch.bool")

    @property
    def payoff_BG(self) -> Tensor:
        """Estimated payoff q̂ of each response against its opponents, in [0, 1]."""
        return (self.win_prob_BGH * self.opponent_weight_BGH).sum(-1)


@dataclass(frozen=True)
class ObjectiveOutput:
    """What an objective returns: nothing is reduced over responses, that is the trainer's task.

    Attributes:
        loss_BG: Loss of each response (summed over its tokens), differentiable.
        metrics: Named per-response values for the log, each of shape (B, G), no gradient.
    """

    loss_BG: Tensor
    metrics: dict[str, Tensor]
