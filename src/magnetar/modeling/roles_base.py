"""What a role is, whatever keeps it: one set of weights for each, and how weights move between them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast, get_args

import torch
from torch import Tensor, nn

from magnetar.errors import CheckpointError, ModelError, unknown_name
from magnetar.modeling.adapters import FROZEN_ROLES
from magnetar.modeling.sharding import Sharding, whole_shape
from magnetar.types import Role

__all__ = ["Roles"]


class Roles(ABC):
    """The current policy and its frozen relatives: `reference` from the start, `magnet` and `behavior` when added.

    When weights are sharded over processes, all of them call the methods together, in the same order.
    """

    sharding: Sharding
    """Where weights are; whole weights on every process until `shard` says otherwise."""

    @property
    @abstractmethod
    def current(self) -> nn.Module:
        """The trained model, unwrapped."""

    @abstractmethod
    def has(self, role: Role) -> bool:
        """Whether the role exists; `current` and `reference` always do."""

    @abstractmethod
    def add(self, role: Role) -> None:
        """Create a role as a copy of the current policy; nothing happens when it exists already.

        Call it before the model is wrapped for distributed training.
        """

    @contextmanager
    def use(self, role: Role, *, gather: bool = False) -> Iterator[nn.Module]:
        """Give, for the length of a `with` block, a module whose forward pass is that role's policy.

        Any role but `current` runs in eval mode, without gradients. Whatever happens inside the block, afterwards the
        current policy is active again with the training modes and `requires_grad` flags that it had before. Where
        weights are sharded, processes may differ in the number of their passes.

        Args:
            role: One of the roles that exist.
            gather: Hold all weights for the length of the block, if they are sharded: for generation, whose passes are
                many and short.

        Raises:
            ModelError: The role was never added.
        """
        self._require(role)
        with self._role(role) as model, self.sharding.passes((model,), gather=gather):
            yield model

    @contextmanager
    def lend(self, role: Role) -> Iterator[nn.Module]:
        """Give a role's module to who reads its weights, such as an engine that has a copy of its own.

        No pass may be made inside: where weights are sharded, they stay so.

        Args:
            role: One of the roles that exist.

        Raises:
            ModelError: The role was never added.
        """
        self._require(role)
        with self._role(role) as model, self.sharding.reading((model,)):
            yield model

    @contextmanager
    def together(self, roles: tuple[Role, ...]) -> Iterator[None]:
        """Hold the weights of several roles, if they are sharded, so that inside `use` may go from one to another."""
        for role in roles:
            self._require(role)
        with self.sharding.passes(self._modules(roles), gather=True):
            yield

    @abstractmethod
    def _role(self, role: Role) -> AbstractContextManager[nn.Module]:
        """A role's module, active for the length of a block."""

    @abstractmethod
    def _modules(self, roles: tuple[Role, ...]) -> tuple[nn.Module, ...]:
        """The modules that hold these roles, each once."""

    def shard(self, sharding: Sharding) -> None:
        """Go on with weights that are sharded, now that the policy's are.

        Args:
            sharding: Where they are.
        """
        self.sharding = sharding

    @abstractmethod
    def _tensors(self, role: Role) -> dict[str, Tensor]:
        """A role's own tensors by a name that is the same for every role."""

    def _source_tensors(self, source: Role, target: Role) -> dict[str, Tensor]:
        """What `target` moves towards: one tensor for each of its own."""
        return self._tensors(source)

    def _require(self, role: Role) -> None:
        if role not in get_args(Role):
            raise ModelError(unknown_name("role", role, get_args(Role)))
        if not self.has(role):
            raise ModelError(f"role {role!r} does not exist yet; call roles.add({role!r}) before it is used")

    @torch.no_grad()
    def move(self, target: Role, source: Role = "current", rate: float = 1.0) -> None:
        """Move a role's weights towards another's: `target ← (1 − rate) target + rate source`.

        Args:
            target: The role to move; any but the reference.
            source: The role to move towards.
            rate: In (0, 1]; 1 copies bit for bit.

        Raises:
            ModelError: A role is missing, the target is the reference, or the rate is outside its range.
        """
        self._require(target)
        self._require(source)
        if target == "reference":
            raise ModelError("the reference is where training started and never moves; move 'magnet' instead")
        if not 0.0 < rate <= 1.0:
            raise ModelError(f"rate = {rate}, expected 0 < rate <= 1 (1 copies the source)")
        sources = self._source_tensors(source, target)
        for name, tensor in self._tensors(target).items():
            self.sharding.copy(tensor, sources[name], rate)

    @torch.no_grad()
    def same(self, a: Role, b: Role) -> bool:
        """Whether two roles have equal weights, so that a forward pass may be skipped.

        The weights themselves are compared, because version counters miss what some optimisers write; roles that
        differ are told apart at the first tensor.
        """
        self._require(a)
        self._require(b)
        if a == b:
            return True
        others = self._tensors(b)
        part = self.sharding.part
        same = all(
            torch.equal(part(tensor), part(others[name]).to(part(tensor).device))
            for name, tensor in self._tensors(a).items()
        )
        return not self.sharding.differ(not same)

    def state_dict(self, *, keep: bool = True) -> dict[str, dict[str, Tensor]]:
        """Every frozen role's own tensors, whole, copied to the CPU: `{role: {name: tensor}}`.

        A reference that is the bare base model has none, only a mark that says so.

        Args:
            keep: False on a process that only takes part because weights are sharded; it gets nothing.
        """
        state: dict[str, dict[str, Tensor]] = {}
        for role in (role for role in FROZEN_ROLES if self.has(role)):
            for name, tensor in self._tensors(role).items():
                whole = self.sharding.whole(tensor)
                if keep:
                    state.setdefault(role, {})[name] = whole.detach().to("cpu", copy=True)
        return state

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore every frozen role bit for bit; roles that the state has and this object lacks are added.

        Raises:
            CheckpointError: The state lacks a role or a tensor, or holds one of another shape or type.
        """
        missing = [role for role in FROZEN_ROLES if self.has(role) and role not in state]
        if missing:
            raise CheckpointError(
                f"the checkpoint lacks the role {missing[0]!r} (it has: {', '.join(sorted(state)) or 'none'}); "
                "it was written by another method or is damaged: continue from another checkpoint"
            )
        for role, tensors in state.items():
            if role not in FROZEN_ROLES:
                raise CheckpointError(unknown_name("role in the checkpoint", role, FROZEN_ROLES))
            self._load(cast(Role, role), tensors)

    def _load(self, role: Role, tensors: dict[str, Tensor]) -> None:
        self.add(role)
        own = self._tensors(role)
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())[0]
            raise CheckpointError(
                f"role {role!r} has {len(own)} tensors, the checkpoint {len(tensors)}; first that is not in both: "
                f"{odd}. Resume with the model and adapter settings that the run began with"
            )
        for name, tensor in own.items():
            shape = whole_shape(tensor)
            if shape != tensors[name].shape or tensor.dtype != tensors[name].dtype:
                raise CheckpointError(
                    f"role {role!r}, {name}: {tuple(shape)} {tensor.dtype} here, "
                    f"{tuple(tensors[name].shape)} {tensors[name].dtype} in the checkpoint; resume with the model, "
                    "adapter settings and precision that the run began with"
                )
        with torch.no_grad():
            for name, tensor in own.items():
                self.sharding.fill(tensor, tensors[name])
