"""The parts a policy plays: one set of weights for each role, and how weights move between them.

With PEFT every role is an adapter on one shared base, so that policy, magnet and reference cost one base model. In full
fine-tuning the roles that do not train are frozen copies.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import chain
from typing import cast, get_args

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from magnetar.errors import CheckpointError, ModelError, unknown_name
from magnetar.modeling.adapters import (
    FROZEN_ROLES,
    adapter_tensors,
    cuda_devices,
    is_switch,
    original_tensors,
    policy_adapter_name,
)
from magnetar.types import Role

__all__ = ["AdapterRoles", "FrozenCopyRoles", "Roles", "make_roles"]

# In a checkpoint, the mark of a reference that is the bare base model and so has no tensors of its own.
BARE_BASE = "bare_base"


class Roles(ABC):
    """The current policy and its frozen relatives: `reference` from the start, `magnet` and `behavior` when added."""

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

    @abstractmethod
    @contextmanager
    def use(self, role: Role) -> Iterator[nn.Module]:
        """Give, for the length of a `with` block, a module whose forward pass is that role's policy.

        Any role but `current` runs in eval mode, without gradients. Whatever happens inside the block, afterwards the
        current policy is active again with the training modes and `requires_grad` flags that it had before.

        Args:
            role: One of the roles that exist.

        Raises:
            ModelError: The role was never added.
        """
        yield self.current

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
            value = sources[name].to(tensor.device)
            if rate == 1.0 or not tensor.is_floating_point():
                tensor.copy_(value)
            else:
                tensor.lerp_(value, rate)

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
        return all(torch.equal(tensor, others[name].to(tensor.device)) for name, tensor in self._tensors(a).items())

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Every frozen role's own tensors, copied to the CPU: `{role: {name: tensor}}`.

        A reference that is the bare base model has none, only a mark that says so.
        """
        return {
            role: {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._tensors(role).items()}
            for role in FROZEN_ROLES
            if self.has(role)
        }

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
            if tensor.shape != tensors[name].shape or tensor.dtype != tensors[name].dtype:
                raise CheckpointError(
                    f"role {role!r}, {name}: {tuple(tensor.shape)} {tensor.dtype} here, "
                    f"{tuple(tensors[name].shape)} {tensors[name].dtype} in the checkpoint; resume with the model, "
                    "adapter settings and precision that the run began with"
                )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])


@contextmanager
def _frozen_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every module's mode and every parameter's flag is as before."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


class AdapterRoles(Roles):
    """Roles as PEFT adapters on one shared base model.

    The reference is the adapter as it was when this object was made. A fresh LoRA adapter changes nothing (B = 0), and
    then the reference is the bare base model, at no cost; otherwise it is a frozen copy of the adapter.
    """

    def __init__(self, model: PeftModel) -> None:
        """Take the model's one active adapter as the policy.

        Args:
            model: A PEFT model, unwrapped, with its adapter active and not merged.

        Raises:
            ModelError: The model cannot have several adapters side by side, or one bears a role's name.
        """
        self._model = model
        self.policy_adapter = policy_adapter_name(model)
        self._roles: set[str] = {"current", "reference"}
        self._bare_reference = self._no_op(self._tensors("current"))
        self._active: Role = "current"
        if not self._bare_reference:
            self._new_adapter("reference")

    @property
    def current(self) -> PeftModel:
        """The trained model, unwrapped."""
        return self._model

    def has(self, role: Role) -> bool:
        """Whether the role exists; `current` and `reference` always do."""
        return role in self._roles

    def add(self, role: Role) -> None:
        """Create a role as a copy of the current policy; nothing happens when it exists already."""
        if not self.has(role):
            self._new_adapter(role)
            self._roles.add(role)

    @contextmanager
    def use(self, role: Role) -> Iterator[nn.Module]:
        """Activate a role's adapter for the length of the block; see `Roles.use`."""
        self._require(role)
        if role == self._active == "current":
            yield self._model
            return
        previous = self._active
        with ExitStack() as stack:
            if role == "current":
                raise ModelError(f"use('current') inside use({previous!r}); leave that block first")
            stack.enter_context(_frozen_eval(self._model))
            stack.callback(self._activate, previous)
            self._activate(role)
            yield self._model

    def _activate(self, role: Role) -> None:
        """Make a role's adapter the active one; the caller restores the gradient flags that this changes."""
        self._active = role
        tuner = cast(BaseTuner, self._model.base_model)
        if role == "reference" and self._bare_reference:
            tuner.disable_adapter_layers()
            return
        tuner.enable_adapter_layers()
        self._model.set_adapter(self.policy_adapter if role == "current" else role, inference_mode=True)

    def _new_adapter(self, role: Role) -> None:
        """Add a frozen adapter whose tensors equal the policy's in value, type and device."""
        config = deepcopy(self._model.peft_config[self.policy_adapter])
        config.inference_mode = True
        if hasattr(config, "init_lora_weights"):
            # Some initialisations (PiSSA, OLoRA) change the base weights when an adapter is added. Ours is overwritten.
            config.init_lora_weights = True  # pyright: ignore[reportAttributeAccessIssue]
        flags = [(parameter, parameter.requires_grad) for parameter in self._model.parameters()]
        modes = [(module, module.training) for module in self._model.modules()]
        try:
            # The new adapter's random start must not shift the random numbers of the run.
            with torch.random.fork_rng(devices=cuda_devices(self._model)):
                self._model.add_adapter(role, config)
        except (ValueError, NotImplementedError) as error:
            raise ModelError(
                f"PEFT cannot put a second adapter on this model ({error}); use plain LoRA, or full fine-tuning"
            ) from error
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
        policy = self._tensors("current")
        tensors = adapter_tensors(self._model, role)
        if tensors.keys() != policy.keys():
            raise ModelError(
                f"the copy of adapter {self.policy_adapter!r} for the role {role!r} has other tensors than the "
                "original; use plain LoRA, or full fine-tuning"
            )
        for name, tensor in tensors.items():
            tensor.requires_grad_(False)
            tensor.data = policy[name].detach().clone()

    def _tensors(self, role: Role) -> dict[str, Tensor]:
        if role == "reference" and self._bare_reference:
            return {BARE_BASE: torch.ones(1, dtype=torch.uint8)}
        return adapter_tensors(self._model, self.policy_adapter if role == "current" else role)

    def _source_tensors(self, source: Role, target: Role) -> dict[str, Tensor]:
        """Towards the bare base, keep the target's A and let B vanish: the adapter's effect then scales by 1 − rate."""
        if source != "reference" or not self._bare_reference:
            return self._tensors(source)
        originals = original_tensors(self._model, self.policy_adapter)
        return {
            name: originals[name] if name in originals else torch.zeros_like(tensor) if is_switch(name) else tensor
            for name, tensor in self._tensors(target).items()
        }

    def _no_op(self, tensors: dict[str, Tensor]) -> bool:
        """Whether an adapter with these tensors leaves the base model's outputs as they are, exactly."""
        layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        if any(not isinstance(layer, LoraLayer) or layer.lora_variant for layer in layers):
            return False
        originals = original_tensors(self._model, self.policy_adapter)
        for name, tensor in tensors.items():
            if name in originals:
                if tensor.dtype != originals[name].dtype or not torch.equal(tensor, originals[name]):
                    return False
            elif is_switch(name):
                if tensor.count_nonzero():
                    return False
            elif ".lora_" not in name:
                return False
        return True

    @torch.no_grad()
    def same(self, a: Role, b: Role) -> bool:
        """Whether two roles have equal weights; an adapter that changes nothing equals the bare base."""
        if self._bare_reference and "reference" in (a, b) and a != b:
            other = a if b == "reference" else b
            self._require(other)
            return self._no_op(self._tensors(other))
        return super().same(a, b)

    def _load(self, role: Role, tensors: dict[str, Tensor]) -> None:
        if role == "reference":
            bare = BARE_BASE in tensors
            if bare and not self._bare_reference:
                self._model.delete_adapter("reference")
            elif self._bare_reference and not bare:
                self._new_adapter("reference")
            self._bare_reference = bare
            if bare:
                return
        super()._load(role, tensors)


class FrozenCopyRoles(Roles):
    """Roles as frozen copies of a fully fine-tuned model."""

    def __init__(self, model: nn.Module, *, keep_on_cpu: bool = False) -> None:
        """Copy the model as the reference.

        Args:
            model: The model to train, unwrapped.
            keep_on_cpu: Keep the frozen copies in main memory and bring one to the model's device only for its pass.
        """
        self._model = model
        self._keep_on_cpu = keep_on_cpu
        self._copies: dict[str, nn.Module] = {}
        self.add("reference")

    @property
    def current(self) -> nn.Module:
        """The trained model, unwrapped."""
        return self._model

    def has(self, role: Role) -> bool:
        """Whether the role exists; `current` and `reference` always do."""
        return role == "current" or role in self._copies

    def add(self, role: Role) -> None:
        """Create a role as a copy of the current policy; nothing happens when it exists already."""
        if self.has(role):
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

    @contextmanager
    def use(self, role: Role) -> Iterator[nn.Module]:
        """Give a role's own model; see `Roles.use`."""
        self._require(role)
        if role == "current":
            yield self._model
            return
        copy = self._copies[role]
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

    def _tensors(self, role: Role) -> dict[str, Tensor]:
        model = self._model if role == "current" else self._copies[role]
        return dict(chain(model.named_parameters(), model.named_buffers()))


def make_roles(model: nn.Module, *, keep_on_cpu: bool = False) -> Roles:
    """Choose how the roles are kept: adapters for a PEFT model, frozen copies for any other.

    Args:
        model: The model to train, not yet wrapped for distributed training.
        keep_on_cpu: Keep frozen copies in main memory; without effect on adapters, which share the base.

    Raises:
        ModelError: The PEFT model cannot have several adapters side by side, or one bears a role's name.
    """
    return AdapterRoles(model) if isinstance(model, PeftModel) else FrozenCopyRoles(model, keep_on_cpu=keep_on_cpu)
