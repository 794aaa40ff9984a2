"""What one batch of prompts taught: responses, who beat whom, log-probabilities under the roles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

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
        seconds: Time of each stage: "rollout" and "logprobs" by the trainer, "judge" while the judge was busy with any
            question, and "waiting", the part of that for which the trainer had nothing else to do.
        behavior_states: What the output layer read at the response tokens in a pass of the sampling policy, for each
            prompt, shape (tokens, width); None unless exact KL divergences to it are needed.
        magnet_states: The same of the magnet.
        sampling_logp_BGT: As the engine computed them, which may be another program; None from one that lists all.
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
    sampling_logp_BGT: Tensor | None = None
    spent: Ledger = NOTHING_SPENT

    @property
    def payoff_BG(self) -> Tensor:
        """Estimated payoff of each response against the opponents, as `RolloutBatch.payoff_BG`."""
        return (self.win_prob_BGH * self.opponent_weight_BGH).sum(-1)

    @property
    def trainer_seconds(self) -> float:
        """Time that passed for the trainer; the judge's own is in it where the trainer waited."""
        return sum(seconds for stage, seconds in self.seconds.items() if stage != "judge")

    def take(self, places: Sequence[int]) -> "Experience":
        """The same of some prompts, in the order of ``places``; time and spending are not divided, and left out."""
        at = list(places)
        if at == list(range(len(self.prompts))):
            return self
        taken = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Tensor):
                taken[name] = value[at]
            elif isinstance(value, list):
                taken[name] = [value[b] for b in at]
        return replace(self, seconds={}, spent=NOTHING_SPENT, **taken)

    @classmethod
    def joined(cls, parts: "Sequence[Experience]", places: Sequence[Sequence[int]]) -> "Experience":
        """One record of parts of a batch.

        Args:
            parts: At least one, made under the same policy.
            places: For each part, where its prompts stand in the batch; together each place once.

        Returns:
            The prompts in the order of the batch; time and spending added up.
        """
        if len(parts) == 1:
            return parts[0]
        order = [place for part in places for place in part]
        back = sorted(range(len(order)), key=lambda at: order[at])
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            column = [getattr(part, name) for part in parts]
            if isinstance(column[0], Tensor):
                values[name] = torch.cat(_padded(column) if name.endswith("_BGT") else column)[back]
            elif isinstance(column[0], list):
                rows = [row for part in column for row in part]
                values[name] = [rows[at] for at in back]
        stages = {stage for part in parts for stage in part.seconds}
        answered = [float(part.response_weight_BG.sum()) for part in parts]
        return replace(
            parts[0],
            cyclic_triples=_mean_of_known([part.cyclic_triples for part in parts], answered),
            finite=all(part.finite for part in parts),
            seconds={stage: sum(part.seconds.get(stage, 0.0) for part in parts) for stage in sorted(stages)},
            spent=sum((part.spent for part in parts), NOTHING_SPENT),
            **values,
        )

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


def _padded(values: list[Tensor]) -> list[Tensor]:
    """Tokens of several parts, zeros behind the shorter ones."""
    longest = max(value.shape[-1] for value in values)
    return [pad(value, (0, longest - value.shape[-1])) for value in values]


def _mean_of_known(values: list[float], weights: list[float]) -> float:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total > 0 else float("nan")
