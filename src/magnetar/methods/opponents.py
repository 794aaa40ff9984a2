"""Opponents: whose responses the trained policy's responses are compared with."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from magnetar.errors import ConfigError, unknown_name

__all__ = ["OPPONENT_ROLES", "Opponent", "group_opponent_weights", "leave_out_unanswered"]

OpponentRole = Literal["current", "magnet", "reference", "mixture"]
OPPONENT_ROLES: tuple[OpponentRole, ...] = ("current", "magnet", "reference", "mixture")


@dataclass(frozen=True)
class Opponent:
    """Who plays against the responses.

    Attributes:
        role: "current" is self-play: the opponents of a response are the others of its own group, which are samples of
            the same policy. "magnet" and "reference" draw a second set of responses from that role. "mixture" is
            the geometric mixture ``π^(1−w) ref^w`` of Nash-MD, normalised (arXiv:2312.00886).
        reference_weight: w in [0, 1] of the role "mixture"; 0 for the others.
    """

    role: OpponentRole = "current"
    reference_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.role not in OPPONENT_ROLES:
            raise ConfigError(unknown_name("opponent", self.role, OPPONENT_ROLES))
        if not 0 <= self.reference_weight <= 1:
            raise ConfigError(
                f"reference_weight is {self.reference_weight}, expected a number in [0, 1]; for Nash-MD it is "
                "step_size · magnet_strength"
            )
        if self.reference_weight and self.role != "mixture":
            raise ConfigError(
                f"reference_weight is {self.reference_weight} with opponent {self.role!r}; only 'mixture' has one"
            )

    @property
    def is_self_play(self) -> bool:
        """Whether the group plays against itself."""
        return self.role == "current"


def group_opponent_weights(response_weight_BG: Tensor | None, shape: tuple[int, int]) -> Tensor:
    r"""Weights of each response's opponents when a group plays against itself.

    Sampled responses (no weights given): ``1/(G − 1)`` for every *other* response. The payoff is then the U-statistic
    ``q̂_i = Σ_{j≠i} P(y_i ≻ y_j)/(G − 1)``, unbiased for ``q_{y_i}(π_k)``; its mean over the group is exactly 1/2.
    Enumerated responses with exact weights: the weights themselves, the response's own included, since
    ``q_i = Σ_j π(y_j) P(y_i ≻ y_j)`` is a sum over the whole response space.

    Args:
        response_weight_BG: Exact weights of the responses, shape (B, G), each row summing to one; None for samples.
        shape: (B, G).

    Returns:
        Shape (B, G, G), rows summing to one.

    Raises:
        ConfigError: A group of fewer than two sampled responses, which has no opponents.
    """
    b, g = shape
    if response_weight_BG is not None:
        return response_weight_BG[:, None, :].expand(b, g, g)
    if g < 2:
        raise ConfigError(f"group of {g} response: self-play compares the responses of a group, so it needs at least 2")
    others = 1.0 - torch.eye(g, dtype=torch.float64)
    return (others / (g - 1)).expand(b, g, g)


def leave_out_unanswered(
    win_prob_BGH: Tensor, opponent_weight_BGH: Tensor, response_weight_BG: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the pairs that the judge left unanswered no weight, so that no answer is made up for them.

    An opponent without an answer leaves the payoff of a response, whose other opponents share its weight; a response
    without any answer leaves its group, whose other responses share its weight; a group without any answer has no
    weight at all.

    Args:
        win_prob_BGH: P(response g beats opponent h), NaN where there is no answer.
        opponent_weight_BGH: Rows sum to one.
        response_weight_BG: Rows sum to one.

    Returns:
        The win probabilities without NaN (1/2 where the weight is now zero), and both weights, rows summing to one;
        the response weights of a group without any answer are all zero.
    """
    answered = ~win_prob_BGH.isnan()
    if bool(answered.all()):
        return win_prob_BGH, opponent_weight_BGH, response_weight_BG
    weight_BGH = torch.where(answered, opponent_weight_BGH, 0.0)
    total_BG1 = weight_BGH.sum(-1, keepdim=True)
    # A response without an answer keeps its row, so that rows sum to one; its own weight becomes zero.
    opponents = torch.where(
        total_BG1 > 0, weight_BGH / total_BG1.clamp(min=torch.finfo(weight_BGH.dtype).tiny), opponent_weight_BGH
    )
    responses = torch.where(total_BG1.squeeze(-1) > 0, response_weight_BG, 0.0)
    total_B1 = responses.sum(-1, keepdim=True)
    responses = torch.where(total_B1 > 0, responses / total_B1.clamp(min=torch.finfo(responses.dtype).tiny), 0.0)
    return torch.where(answered, win_prob_BGH, 0.5), opponents, responses
