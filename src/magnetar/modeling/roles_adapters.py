"""Roles as adapters: policy, magnet and reference cost one base model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from magnetar.errors import ModelError
from magnetar.modeling.adapters import (
    adapter_tensors,
    cuda_devices,
    is_switch,
    original_tensors,
    policy_adapter_name,
)
from magnetar.modeling.roles_base import Roles
from magnetar.modeling.sharding import WholeWeights, plain_name
from magnetar.types import Role

__all__ = ["AdapterRoles"]

# In a checkpoint, the mark of a reference that is the bare base model and so has no tensors of its own.
BARE_BASE = "bare_base"


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
        self.sharding = WholeWeights()
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

    def _modules(self, roles: tuple[Role, ...]) -> tuple[nn.Module, ...]:
        return (self._model,)

    @contextmanager
    def _role(self, role: Role) -> Iterator[nn.Module]:
        """Activate a role's adapter for the length of the block."""
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
        self.sharding.settle(self._model)
        tensors = adapter_tensors(self._model, self.policy_adapter if role == "current" else role)
        return {plain_name(name): tensor for name, tensor in tensors.items()}

    def _source_tensors(self, source: Role, target: Role) -> dict[str, Tensor]:
        """Towards the bare base, keep the target's A and let B vanish: the adapter's effect then scales by 1 − rate."""
        if source != "reference" or not self._bare_reference:
            return self._tensors(source)
        originals = self._originals()
        return {
            name: originals[name] if name in originals else torch.zeros_like(tensor) if is_switch(name) else tensor
            for name, tensor in self._tensors(target).items()
        }

    def _originals(self) -> dict[str, Tensor]:
        tensors = original_tensors(self._model, self.policy_adapter)
        return {plain_name(name): tensor for name, tensor in tensors.items()}

    def _no_op(self, tensors: dict[str, Tensor]) -> bool:
        """Whether an adapter with these tensors leaves the base model's outputs as they are, exactly."""
        layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        if any(not isinstance(layer, LoraLayer) or layer.lora_variant for layer in layers):
            return False
        originals = self._originals()
        part = self.sharding.part
        for name, tensor in tensors.items():
            if name in originals:
                if tensor.dtype != originals[name].dtype or not torch.equal(part(tensor), part(originals[name])):
                    return False
            elif is_switch(name):
                if part(tensor).count_nonzero():
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
            return not self.sharding.differ(not self._no_op(self._tensors(other)))
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
