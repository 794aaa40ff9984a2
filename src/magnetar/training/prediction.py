"""Predictions of the opponent: which opponents an update's responses meet, and the half step that looks ahead."""

from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from magnetar.methods import Method
from magnetar.modeling.roles import Roles
from magnetar.training.meeting import OpponentShare

__all__ = ["OpponentPrediction"]


class OpponentPrediction:
    """Says whom the responses of a step meet, and keeps the policies that this needs.

    Optimism extrapolates, ``2 q(π_k) − q(π_{k−1})``, and so keeps the policy of the update before. Extragradient takes
    the update's optimiser steps twice: a first half leads to the policy π½, whose weights become the role "lookahead";
    then weights and optimiser are set back to where the update began, and the second half learns from the payoffs
    against π½.

    Source: arXiv:2006.09517 (optimism, extragradient); arXiv:2503.08942, algorithm 1, on language models.
    """

    def __init__(self, method: Method, roles: Roles, inner_epochs: int) -> None:
        """Add the roles that the method's prediction needs.

        Args:
            method: Whose opponent and prediction it is.
            roles: Before the model is wrapped for distributed training.
            inner_epochs: Optimiser steps of a whole update, or of each half.
        """
        self._method = method
        self._roles = roles
        self._inner_epochs = inner_epochs
        self._optimizer_state: dict[str, Any] | None = None
        needed = {"optimistic": ("previous",), "extragradient": ("behavior", "lookahead")}
        for role in needed.get(method.prediction, ()):
            roles.add(role)  # type: ignore[arg-type]

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps of one update, both halves of an extragradient one included."""
        return self._inner_epochs * (2 if self._method.prediction == "extragradient" else 1)

    def second_half(self, step: int) -> bool:
        """Whether a step (from 0) of an update belongs to the second half of an extragradient one."""
        return self._method.prediction == "extragradient" and step >= self._inner_epochs

    def meets_anew(self, step: int) -> bool:
        """Whether a step (from 0) of an update is one in which its responses meet other opponents than before."""
        return self.second_half(step) and step % self._inner_epochs == 0

    def opponents(self, update: int, step: int) -> list[OpponentShare]:
        """Whom the responses meet.

        Args:
            update: Number of the update, from 1.
            step: Optimiser step of the update, from 0.

        Returns:
            Opponents whose weights sum to one.
        """
        if self.second_half(step):
            return [OpponentShare(1.0, "lookahead")]
        if self._method.prediction == "optimistic" and update > 1:
            return [OpponentShare(2.0, "current"), OpponentShare(-1.0, "previous")]
        return [OpponentShare(1.0, self._method.opponent.role)]

    def before_step(self, step: int, optimizer: Optimizer) -> None:
        """Keep what the rest of the update will need; called when the gradient of a step is complete."""
        if step == 0 and self._method.prediction == "optimistic":
            self._roles.move("previous", "current")
        if step == 0 and self._method.prediction == "extragradient":
            self._roles.move("behavior", "current")
            self._optimizer_state = deepcopy(optimizer.state_dict())

    def after_step(self, step: int, optimizer: Optimizer) -> None:
        """At the end of a first half, keep the policy that it led to, and go back to where the update began."""
        if self._method.prediction != "extragradient" or step != self._inner_epochs - 1:
            return
        assert self._optimizer_state is not None
        self._roles.move("lookahead", "current")
        self._roles.move("current", "behavior")
        optimizer.load_state_dict(self._optimizer_state)
        self._optimizer_state = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint inside a first half must hold beside the roles, whole; empty elsewhere."""
        if self._optimizer_state is None:
            return {}
        whole = self._roles.sharding.whole
        state = {
            index: {key: whole(value) if isinstance(value, Tensor) else value for key, value in values.items()}
            for index, values in self._optimizer_state["state"].items()
        }
        return {"optimizer": self._optimizer_state | {"state": state}}

    def load_state_dict(self, state: dict[str, Any], optimizer: Optimizer | None) -> None:
        """Inverse of `state_dict`.

        Args:
            state: What it returned; values are put into shards where the optimiser's weights are.
            optimizer: Of the policy; None where it is not made yet, and its weights are whole.
        """
        kept = state.get("optimizer")
        if kept is not None and optimizer is not None:
            weights = [p for group in optimizer.param_groups for p in group["params"]]
            beside = self._roles.sharding.beside
            in_shards = {
                index: {key: beside(weights[index], value) for key, value in values.items()}
                for index, values in kept["state"].items()
            }
            kept = kept | {"state": in_shards}
        self._optimizer_state = kept
