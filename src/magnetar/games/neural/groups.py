"""Groups of responses and who beat whom in them: all actions with exact weights, or samples with noisy outcomes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from magnetar.errors import ConfigError, checked_integer, unknown_name
from magnetar.games.checks import LARGEST_SEED
from magnetar.methods import group_opponent_weights

__all__ = ["EnumeratedFeedback", "GroupFeedback", "GroupSampling", "JudgedGroup", "Judgement", "OpponentShare"]

Judgement = Literal["outcome", "probability"]
"""What a comparison of two responses gives: a coin flip of P, or P itself."""

OpponentShare: TypeAlias = tuple[float, Tensor | None]
"""A weight, and the log-probabilities, shape (A,), of an opponent; None for the group itself (self-play)."""


@dataclass(frozen=True)
class JudgedGroup:
    """Responses to the one prompt of a game, and their results against opponents.

    Attributes:
        actions_G: The responses, indices of actions, shape (G,).
        response_weight_G: Their weights in expectations, sum one.
        win_prob_GH: P(response g beats opponent h), or the outcome 0 or 1 of one duel.
        opponent_weight_GH: Weights of the opponents; each row sums to one. Weights of an extrapolation are negative for
            the opponents that it leads away from.
        duels: Comparisons that were judged.
        evaluations: Estimates of q that were made, one for each opponent met.
    """

    actions_G: Tensor
    response_weight_G: Tensor
    win_prob_GH: Tensor
    opponent_weight_GH: Tensor
    duels: int
    evaluations: int


class GroupFeedback(ABC):
    """How responses and opponents are drawn and judged."""

    @abstractmethod
    def generator(self) -> torch.Generator | None:
        """A fresh source of random numbers, always in the same state; None if none are drawn."""

    @abstractmethod
    def judge(
        self,
        generator: torch.Generator | None,
        win_prob_AA: Tensor,
        log_policy_A: Tensor,
        opponents: Sequence[OpponentShare],
    ) -> JudgedGroup:
        """Draw a group and judge it against opponents.

        Args:
            generator: As returned by `generator`; advanced.
            win_prob_AA: P, shape (A, A).
            log_policy_A: Policy whose responses are judged, nats, normalised.
            opponents: Weights, which sum to one, and policies; the payoff is ``q̂ = Σ_o c_o q̂(π_o)``.

        Returns:
            The group.
        """


@dataclass(frozen=True)
class EnumeratedFeedback(GroupFeedback):
    """Every action is a response with its exact probability as weight, judged exactly: nothing is random."""

    def generator(self) -> None:
        """None: nothing is drawn."""
        return None

    def judge(
        self,
        generator: torch.Generator | None,
        win_prob_AA: Tensor,
        log_policy_A: Tensor,
        opponents: Sequence[OpponentShare],
    ) -> JudgedGroup:
        """See `GroupFeedback.judge`; what was judged before is remembered, so only one evaluation is new."""
        del generator
        size = len(log_policy_A)
        policy_A = log_policy_A.exp()
        weights = [
            share * group_opponent_weights((policy_A if other is None else other.exp())[None], (1, size))[0]
            for share, other in opponents
        ]
        return JudgedGroup(
            actions_G=torch.arange(size),
            response_weight_G=policy_A,
            win_prob_GH=win_prob_AA.repeat(1, len(opponents)),
            opponent_weight_GH=torch.cat(weights, dim=1),
            duels=0,
            evaluations=1,
        )


@dataclass(frozen=True)
class GroupSampling(GroupFeedback):
    """Responses are drawn from the policy and judged in duels, as with a language model.

    In self-play every unordered pair of the group meets once, G(G−1)/2 duels; against another policy every response
    meets the same draws of it, G · opponents duels.

    Attributes:
        responses: G, at least 2.
        opponents: Draws of an opponent other than the group itself, at least 1; None for as many as responses.
        judgement: "outcome" is one Bernoulli draw for each duel, "probability" the win probability itself.
        seed: Of PyTorch's generator, at least 0; the same seed gives the same run.

    Raises:
        ConfigError: A number outside its range, or an unknown judgement.
    """

    responses: int = 32
    opponents: int | None = None
    judgement: Judgement = "outcome"
    seed: int = 0

    def __post_init__(self) -> None:
        if checked_integer("responses", self.responses, 0) < 2:
            raise ConfigError(f"responses is {self.responses}, expected at least 2, which meet each other")
        if self.opponents is not None:
            checked_integer("opponents", self.opponents, 1)
        if self.judgement not in ("outcome", "probability"):
            raise ConfigError(unknown_name("judgement", str(self.judgement), ("outcome", "probability")))
        checked_integer("seed", self.seed, 0, at_most=LARGEST_SEED)

    def generator(self) -> torch.Generator:
        """See `GroupFeedback.generator`."""
        return torch.Generator().manual_seed(self.seed)

    def judge(
        self,
        generator: torch.Generator | None,
        win_prob_AA: Tensor,
        log_policy_A: Tensor,
        opponents: Sequence[OpponentShare],
    ) -> JudgedGroup:
        """See `GroupFeedback.judge`; every opponent is met by fresh duels."""
        size = self.responses
        drawn_G = _draw(log_policy_A, size, generator)
        results, weights, duels = [], [], 0
        for share, other in opponents:
            if other is None:
                results.append(self._round_robin(win_prob_AA, drawn_G, generator))
                weights.append(share * group_opponent_weights(None, (1, size))[0])
                duels += size * (size - 1) // 2
            else:
                met_H = _draw(other, size if self.opponents is None else self.opponents, generator)
                results.append(self._outcomes(win_prob_AA[drawn_G[:, None], met_H[None, :]], generator))
                weights.append(torch.full((size, len(met_H)), share / len(met_H), dtype=torch.float64))
                duels += results[-1].numel()
        return JudgedGroup(
            actions_G=drawn_G,
            response_weight_G=torch.full((size,), 1.0 / size, dtype=torch.float64),
            win_prob_GH=torch.cat(results, dim=1),
            opponent_weight_GH=torch.cat(weights, dim=1),
            duels=duels,
            evaluations=len(opponents),
        )

    def _round_robin(self, win_prob_AA: Tensor, drawn_G: Tensor, generator: torch.Generator | None) -> Tensor:
        """Each pair meets once; the other order is the complement, and nobody meets himself."""
        upper = self._outcomes(win_prob_AA[drawn_G[:, None], drawn_G[None, :]], generator).triu(1)
        return upper + (1.0 - upper.T).tril(-1) + 0.5 * torch.eye(len(drawn_G), dtype=torch.float64)

    def _outcomes(self, win_prob: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.judgement == "probability":
            return win_prob
        return (torch.rand(win_prob.shape, generator=generator, dtype=torch.float64) < win_prob).to(torch.float64)


def _draw(log_policy_A: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    return torch.multinomial(log_policy_A.exp(), count, replacement=True, generator=generator)
