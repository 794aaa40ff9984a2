"""Roles as frozen copies of a fully fine-tuned model."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn

from magnetar.errors import ModelError
from magnetar.modeling.roles_base import Roles
from magnetar.modeling.sharding import Sharding, WholeWeights, plain_name, without_weights
from magnetar.types import Role

__all__ = ["FrozenCopyRoles"]


class FrozenCopyRoles(Roles):
    """Roles as frozen copies of a fully fine-tuned model."""

    def __init__(self, model: nn.Module, *, keep_on_cpu: bool = False, will_be_sharded: bool = False) -> None:
        """Copy the model as the reference.

        Args:
            model: The model to train, unwrapped.
            keep_on_cpu: Keep the frozen copies in main memory and bring one to the model's device only for its pass.
            will_be_sharded: Make no copy before `shard` is called; then each process copies its share.
        """
        self._model = model
        self.sharding = WholeWeights()
        self._keep_on_cpu = keep_on_cpu
        self._copies: dict[str, nn.Module] = {}
        self._planned: list[Role] = []
        self._skeleton = without_weights(model) if will_be_sharded else None
        self.add("reference")

    @property
    def current(self) -> nn.Module:
        """The trained model, unwrapped."""
        return self._model

    def has(self, role: Role) -> bool:
        """Whether the role exists; `current` and `reference` always do."""
        return role == "current" or role in self._copies or role in self._planned

    def add(self, role: Role) -> None:
        """Create a role as a copy of the current policy; nothing happens when it exists already."""
        if self.has(role):
            return
        if self._skeleton is not None:
            self._planned.append(role)
            if not isinstance(self.sharding, WholeWeights):
                self.shard(self.sharding)
            return
        memo = {}
        if self._keep_on_cpu:
            # Copied straight to main memory: the device need not hold the copy even for a moment.
            for parameter in self._model.parameters():
                memo[id(parameter)] = nn.Parameter(parameter.detach().to("cpu", copy=True), requires_grad=False)
            for buffer in self._model.buffers():
                memo[id(buffer)] = buffer.detach().to("cpu", copy=True)
        else:
            for parameter in self._model.parameters():
                memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
        self._copies[role] = deepcopy(self._model, memo).eval()

    @torch.no_grad()
    def shard(self, sharding: Sharding) -> None:
        """Go on with weights that are sharded, and make the copies that were asked for before."""
        self.sharding = sharding
        planned, self._planned = self._planned, []
        for role in planned:
            assert self._skeleton is not None
            self._copies[role] = sharding.copy_of(self._model, self._skeleton).eval()
            self._start(role)

    def _start(self, role: Role) -> None:
        """Give a new copy the current policy's values."""
        sources = self._tensors("current")
        for name, tensor in self._tensors(role).items():
            self.sharding.copy(tensor, sources[name], 1.0)

    @contextmanager
    def _role(self, role: Role) -> Iterator[nn.Module]:
        """Give a role's own model."""
        if role == "current":
            yield self._model
            return
        copy = self._copy(role)
        if self._skeleton is not None:
            with torch.no_grad():
                yield copy
            return
        device = next(self._model.parameters()).device
        home = [(tensor, tensor.data) for tensor in chain(copy.parameters(), copy.buffers())]
        try:
            for tensor, data in home:
                tensor.data = data.to(device)
            with torch.no_grad():
                yield copy
        finally:
            copy.eval()
            if self._keep_on_cpu:
                for tensor, data in home:
                    tensor.data = data

    def _modules(self, roles: tuple[Role, ...]) -> tuple[nn.Module, ...]:
        return tuple(self._model if role == "current" else self._copy(role) for role in roles)

    def _copy(self, role: Role) -> nn.Module:
        if role not in self._copies:
            raise ModelError(
                f"role {role!r} has no weights yet: they are sharded over processes, which happens when training "
                "begins; evaluate the start with eval_on_start=True, or in one process"
            )
        return self._copies[role]

    def _tensors(self, role: Role) -> dict[str, Tensor]:
        model = self._model if role == "current" else self._copy(role)
        self.sharding.settle(model)
        return {plain_name(name): t for name, t in chain(model.named_parameters(), model.named_buffers())}
