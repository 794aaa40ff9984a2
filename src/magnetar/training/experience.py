"""What one batch of prompts taught: responses, who beat whom, log-probabilities under the roles."""

from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from magnetar.training.ledger import Ledger
from magnetar.types import Prompt

__all__ = ["Experience"]

NOTHING_SPENT = Ledger()


@dataclass(frozen=True)
class Experience:
    """What one process learned from its share of an update's prompts, ready for one or more optimiser steps.

    Attributes:
        positions: Place of each prompt in the stream.
        prompts: The prompts as the judge saw them.
        prompt_ids: Their tokens.
        response_ids: Tokens of each response, B × G lists.
        texts: Decoded responses.
        truncated_BG: Whether a response hit the length limit.
        exact_weight_BG: Probabilities of the responses, from an engine that lists them all; None for samples.
        win_prob_BGH: P(response g beats opponent h).
        opponent_weight_BGH: Weights of the opponents; rows sum to one; zero for a pair that the judge left unanswered,
            negative for an opponent that an optimistic prediction leads away from.
        response_weight_BG: Weights of the responses; rows sum to one, or to zero where nothing was answered.
        cyclic_triples: Share of response triples with a cyclic majority; NaN when there is none to look at, or the
            opponents are another role.
        behavior_logp_BGT: Under the sampling policy; None when it is the policy of the only optimiser step.
        magnet_logp_BGT: Under the magnet; None when not needed or when the magnet is the sampling policy.
        reference_logp_BGT: Under the reference; None when it is the sampling policy.
        reward_BG: Scores of the responses; None for a method that learns from preferences.
        behavior_value_BGT: Values by the critic at sampling; None for a method without a critic, and when the batch has
            one optimiser step, whose own values they are.
        magnet_is_behavior: The magnet equals the sampling policy.
        reference_is_behavior: The reference equals the sampling policy.
        finite: Whether the sampling probabilities of all responses were finite; else the responses are meaningless.
        seconds: Time of each stage.
        states: What the output layer read at the response tokens in the one pass of a frozen role, by role and prompt,
            shape (tokens, width); only of roles to which exact KL divergences are needed.
        spent: What this process spent on it; booked when it was collected, so that a checkpoint's copy has none.
    """

    positions: list[int]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    response_ids: list[list[list[int]]]
    texts: list[list[str]]
    truncated_BG: Tensor
    exact_weight_BG: Tensor | None
    win_prob_BGH: Tensor
    opponent_weight_BGH: Tensor
    response_weight_BG: Tensor
    cyclic_triples: float
    behavior_logp_BGT: Tensor | None
    magnet_logp_BGT: Tensor | None
    reference_logp_BGT: Tensor | None
    reward_BG: Tensor | None
    behavior_value_BGT: Tensor | None
    magnet_is_behavior: bool
    reference_is_behavior: bool
    finite: bool
    seconds: dict[str, float]
    states: dict[str, list[Tensor]] = field(default_factory=dict)
    spent: Ledger = NOTHING_SPENT

    @property
    def payoff_BG(self) -> Tensor:
        """Estimated payoff of each response against the opponents, as `RolloutBatch.payoff_BG`."""
        return (self.win_prob_BGH * self.opponent_weight_BGH).sum(-1)

    def to_state(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "spent"}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Experience":
        """Inverse of `to_state`."""
        return cls(**state)
