"""What roles need to know of a PEFT model: which tensors make up one adapter, and whether it can be copied."""

from itertools import chain
from operator import attrgetter
from typing import get_args

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn

from magnetar.errors import ModelError
from magnetar.types import Role

__all__ = [
    "FROZEN_ROLES",
    "adapter_tensors",
    "cuda_devices",
    "is_switch",
    "original_tensors",
    "policy_adapter_name",
]

FROZEN_ROLES = tuple(role for role in get_args(Role) if role != "current")


def policy_adapter_name(model: PeftModel) -> str:
    """Check that the model's adapters can play roles and return the name of the trained one."""
    taken = sorted(set(model.peft_config) & set(FROZEN_ROLES))
    if taken:
        raise ModelError(f"the model already has an adapter named {taken[0]!r}, which is the name of a role; rename it")
    if len(model.active_adapters) != 1:
        raise ModelError(f"{len(model.active_adapters)} adapters are active, expected 1; call model.set_adapter(NAME)")
    name = model.active_adapters[0]
    config = model.peft_config[name]
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(f"{config.peft_type} adapters cannot play several roles side by side; use LoRA")
    if getattr(config, "bias", "none") != "none":
        raise ModelError(
            f"the adapter trains biases of the base model (bias={getattr(config, 'bias', None)!r}), "
            "which all roles share; use bias='none'"
        )
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in model.modules()):
        raise ModelError("the adapter is merged into the base model; call model.unmerge_adapter() first")
    own = {id(tensor) for tensor in adapter_tensors(model, name).values()}
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in own:
            raise ModelError(
                f"parameter {parameter_name} trains but is not part of adapter {name!r}, so every role would share it; "
                "freeze it, or name its module in the adapter's modules_to_save"
            )
    return name


def adapter_tensors(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The tensors of one adapter, under names without the adapter's name."""
    tensors: dict[str, Tensor] = {}
    for module_name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        for layer_name in module.adapter_layer_names:
            container = attrgetter(layer_name)(module)
            if adapter not in container:
                continue
            entry = container[adapter]
            prefix = f"{module_name}.{layer_name}"
            if isinstance(entry, Tensor):
                tensors[prefix] = entry
            else:
                inner = chain(entry.named_parameters(), entry.named_buffers())
                tensors.update({f"{prefix}.{name}": tensor for name, tensor in inner})
    return tensors


def original_tensors(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """The base model's tensors where the adapter trains a whole module, under the adapter's names for them."""
    tensors: dict[str, Tensor] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper) and adapter in module.modules_to_save:
            original = module.original_module
            inner = chain(original.named_parameters(), original.named_buffers())
            tensors.update({f"{module_name}.modules_to_save.{name}": tensor for name, tensor in inner})
    return tensors


def is_switch(name: str) -> bool:
    """Whether a LoRA tensor is the factor that starts at zero (A for embeddings, B elsewhere)."""
    return ".lora_B" in name or ".lora_embedding_A" in name


def cuda_devices(model: nn.Module) -> list[int]:
    """The CUDA devices that hold the model, whose random states are to be kept."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
