"""The loss of a judged group, which is the method's own, and the optimiser steps on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from magnetar.errors import ConfigError, NonFiniteLossError, checked_integer, unknown_name
from magnetar.games.neural.groups import JudgedGroup
from magnetar.methods import SampledLoss
from magnetar.methods.objectives.base import check_positive
from magnetar.types import RolloutBatch

__all__ = ["OptimizerSettings", "descend", "group_loss"]

OptimizerName = Literal["sgd", "adam", "lbfgs"]
OPTIMIZERS: tuple[OptimizerName, ...] = ("sgd", "adam", "lbfgs")


@dataclass(frozen=True)
class OptimizerSettings:
    """How the weights follow a loss.

    Attributes:
        name: "sgd" and "adam" keep their state from update to update, as a trainer does. "lbfgs" starts anew for each
            update and minimises its loss as far as ``inner_steps`` allow: the ideal update within the policy's class.
        learning_rate: Positive; of "lbfgs", the first length that its line search tries.
        inner_steps: Steps on the loss of one group, at least 1.

    Raises:
        ConfigError: A number outside its range, or an unknown name.
    """

    name: OptimizerName = "adam"
    learning_rate: float = 0.01
    inner_steps: int = 4

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ConfigError(unknown_name("optimizer", str(self.name), OPTIMIZERS))
        check_positive(learning_rate=self.learning_rate)
        checked_integer("inner_steps", self.inner_steps, 1)

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """A new optimiser of the module's weights."""
        if self.name == "sgd":
            return torch.optim.SGD(module.parameters(), lr=self.learning_rate)
        if self.name == "adam":
            return torch.optim.Adam(module.parameters(), lr=self.learning_rate)
        return torch.optim.LBFGS(
            module.parameters(),
            lr=self.learning_rate,
            max_iter=self.inner_steps,
            tolerance_grad=1e-14,
            tolerance_change=1e-18,
            line_search_fn="strong_wolfe",
        )


def group_loss(
    objective: SampledLoss,
    group: JudgedGroup,
    logp_A: Tensor,
    behavior_logp_A: Tensor,
    magnet_logp_A: Tensor,
) -> Tensor:
    """The objective's loss on a group, averaged with the group's weights.

    Args:
        objective: The method's loss.
        group: Responses drawn from the behaviour policy, judged.
        logp_A: log π_θ of all actions, shape (A,), nats, normalised, differentiable.
        behavior_logp_A: log π_k, likewise, without gradient.
        magnet_logp_A: log ρ, likewise.

    Returns:
        Scalar, differentiable.
    """

    def of_group(logp: Tensor) -> Tensor:
        return logp[group.actions_G][None, :, None]

    def exact_kl(other_A: Tensor) -> Tensor:
        # One token, one state: the same KL at every response.
        return (logp_A.exp() * (logp_A - other_A)).sum().expand(1, len(group.actions_G), 1)

    batch = RolloutBatch(
        logp_BGT=of_group(logp_A),
        behavior_logp_BGT=of_group(behavior_logp_A),
        magnet_logp_BGT=of_group(magnet_logp_A) if objective.needs_magnet else None,
        mask_BGT=torch.ones((1, len(group.actions_G), 1), dtype=torch.bool),
        win_prob_BGH=group.win_prob_GH[None],
        opponent_weight_BGH=group.opponent_weight_GH[None],
        response_weight_BG=group.response_weight_G[None],
        magnet_kl_BGT=exact_kl(magnet_logp_A) if objective.needs_magnet_distribution else None,
        behavior_kl_BGT=exact_kl(behavior_logp_A) if objective.needs_behavior_distribution else None,
    )
    return (batch.response_weight_BG * objective(batch).loss_BG).sum()


def descend(
    settings: OptimizerSettings, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], update: int
) -> float:
    """Take all optimiser steps of one update.

    Args:
        settings: What made the optimiser.
        optimizer: Holds the weights.
        loss: The loss at the present weights, differentiable.
        update: Number of the update, for the error message.

    Returns:
        The loss before the first step.

    Raises:
        NonFiniteLossError: The loss became infinite or NaN.
    """
    seen: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        seen.append(value.item())
        if not value.isfinite():
            raise NonFiniteLossError(
                f"the loss is {value.item()} in update {update}, optimiser step {len(seen)}; expected a finite number. "
                "Choose a smaller learning rate, fewer inner steps or a larger group"
            )
        value.backward()
        return value

    for _ in range(1 if settings.name == "lbfgs" else settings.inner_steps):
        optimizer.step(closure)  # type: ignore[arg-type] - the closure returns the tensor that LBFGS converts itself
    return seen[0]
