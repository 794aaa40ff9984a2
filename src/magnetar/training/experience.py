"""What one batch of prompts taught: responses, who beat whom, log-probabilities under the roles."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from magnetar.training.ledger import Ledger
from magnetar.types import Prompt, Role

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
        behavior_logp_BGT: Under the sampling policy; None when it is the policy of the only optimiser step. Where it is
            the policy of the first of several, that step's pass fills it in (`record`), and nothing is computed twice.
        magnet_logp_BGT: Under the magnet; None when not needed or when the magnet is the sampling policy.
        reference_logp_BGT: Under the reference; None when it is the sampling policy.
        reward_BG: Scores of the responses; None for a method that learns from preferences.
        behavior_value_BGT: Values by the critic at sampling; None for a method without a critic, and when the batch has
            one optimiser step, whose own values they are; filled in like the log-probabilities.
        magnet_is_behavior: The magnet equals the sampling policy.
        reference_is_behavior: The reference equals the sampling policy.
        finite: Whether the sampling probabilities of all responses were finite; else the responses are meaningless.
        seconds: Time of each stage.
        behavior_states: What the output layer read at the response tokens in a pass of the sampling policy, for each
            prompt, shape (tokens, width); None unless exact KL divergences to it are needed.
        magnet_states: The same of the magnet.
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
    behavior_states: list[Tensor] | None = None
    magnet_states: list[Tensor] | None = None
    spent: Ledger = NOTHING_SPENT

    @property
    def payoff_BG(self) -> Tensor:
        """Estimated payoff of each response against the opponents, as `RolloutBatch.payoff_BG`."""
        return (self.win_prob_BGH * self.opponent_weight_BGH).sum(-1)

    def states(self, role: Role) -> list[Tensor] | None:
        """What is kept of a frozen role's pass, for each prompt; None if nothing is."""
        return {"magnet": self.magnet_states, "behavior": self.behavior_states}.get(role)

    def record(self, part: Sequence[int], logp_BGT: Tensor, value_BGT: Tensor | None, hidden_NH: Tensor | None) -> None:
        """Fill in what a pass of the sampling policy says of some prompts.

        Args:
            part: Indices of the prompts.
            logp_BGT: Log-probabilities of their responses.
            value_BGT: The critic's values, if there is one.
            hidden_NH: What the output layer read, if it is kept.
        """
        longest = logp_BGT.shape[-1]
        for whole, values in ((self.behavior_logp_BGT, logp_BGT), (self.behavior_value_BGT, value_BGT)):
            if whole is not None and values is not None:
                whole[list(part), :, :longest] = values.detach().to(whole)
        if hidden_NH is None:
            return
        rows = hidden_NH.cpu().split([sum(len(response) for response in self.response_ids[b]) for b in part])
        for states in (self.behavior_states, self.magnet_states if self.magnet_is_behavior else None):
            if states is not None:
                for b, row in zip(part, rows, strict=True):
                    states[b] = row

    def to_state(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "spent"}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Experience":
        """Inverse of `to_state`."""
        return cls(**state)
