"""Opponents: whose responses the trained policy's responses are compared with."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from magnetar.errors import ConfigError, unknown_name

__all__ = ["OPPONENT_ROLES", "Opponent", "group_opponent_weights"]

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
