"""The weights of a policy as an inference engine wants them: one plain tensor for each weight of the architecture.

A policy is whatever the module's forward pass computes: adapters are merged, quantised weights are de-quantised first,
tied weights appear once. Nothing is merged in place, so that the trained model is never touched.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn

from magnetar.errors import ModelError
from magnetar.modeling.spread import is_spread, whole_value

__all__ = ["EngineWeight", "engine_weights", "fusion_group"]


@dataclass(frozen=True)
class EngineWeight:
    """One weight of the architecture and what it is made from.

    Attributes:
        name: As in a checkpoint of the architecture.
        sources: The tensors that decide its value.
        constant: Sources that nothing changes in a run: known by where they are, not by what is in them.
        make: Computes the value.
    """

    name: str
    sources: tuple[Tensor, ...]
    make: Callable[[], Tensor]
    constant: tuple[Tensor, ...] = field(default=())

    @property
    def is_spread(self) -> bool:
        """Whether its parts are with several processes, which all have to take part in making it."""
        return any(is_spread(tensor) for tensor in (*self.sources, *self.constant))


def engine_weights(model: nn.Module) -> list[EngineWeight]:
    """All weights of a policy, each once.

    Args:
        model: A causal language model, bare or with adapters, wrapped for distributed training or not. Adapters count
            as they are now: the active one is merged, none where they are switched off.

    Returns:
        In the order of the model's modules.

    Raises:
        ModelError: An adapter or a quantisation whose merged weight cannot be had, or a head that the configuration
            ties to the embeddings and that differs from them.
    """
    inner = extract_model_from_parallel(model)
    adapted = isinstance(inner, PeftModel)
    base: Any = inner.get_base_model() if adapted else inner
    found = _of_module(base, "", frozen_base=adapted)
    weights: list[EngineWeight] = []
    seen: dict[tuple[int, ...], str] = {}
    for weight in found:
        # Tied weights are one parameter under two names; an engine ties them by itself.
        identity = tuple(id(source) for source in (*weight.constant, *weight.sources))
        if identity not in seen:
            seen[identity] = weight.name
            weights.append(weight)
    return _without_tied_head(inner, base, weights)


def fusion_group(name: str) -> str:
    """Weights that an engine may keep in one fused tensor (query, key and value; experts) have one group.

    They are replaced together: half of a fused tensor cannot be loaded.
    """
    block = re.match(r"(.*?\.\d+\.[^.]+)\.", name)
    return block.group(1) if block else name.rpartition(".")[0]


def _of_module(module: nn.Module, prefix: str, *, frozen_base: bool) -> Iterator[EngineWeight]:
    if isinstance(module, ModulesToSaveWrapper):
        active = [a for a in module.active_adapters if a in module.modules_to_save]
        whole = module.modules_to_save[active[0]] if active and not module.disable_adapters else module.original_module
        yield from _of_module(whole, prefix, frozen_base=frozen_base and whole is module.original_module)
        return
    if isinstance(module, BaseTunerLayer):
        yield from _of_adapted(module, prefix)
        return
    if isinstance(module, AuxiliaryTrainingWrapper):
        raise ModelError(
            f"{prefix[:-1]} is trained through {type(module).__name__}, whose merged weight vLLM cannot be given; use "
            "plain LoRA or modules_to_save, or use_vllm=False"
        )
    for name, parameter in module.named_parameters(recurse=False):
        yield _plain(module, parameter, prefix + name, constant=frozen_base)
    for name, buffer in module.named_buffers(recurse=False):
        if name not in module._non_persistent_buffers_set and buffer.is_floating_point():
            yield EngineWeight(prefix + name, (buffer,), lambda buffer=buffer: buffer)
    for name, child in module.named_children():
        yield from _of_module(child, f"{prefix}{name}.", frozen_base=frozen_base)


def _plain(module: nn.Module, parameter: Tensor, name: str, *, constant: bool) -> EngineWeight:
    def make() -> Tensor:
        if parameter.is_floating_point():
            return _full(parameter)
        return _full(_dequantized(module, name))

    if constant and not parameter.requires_grad:
        return EngineWeight(name, (), make, constant=(parameter,))
    return EngineWeight(name, (parameter,), make)


def _of_adapted(layer: BaseTunerLayer, prefix: str) -> Iterator[EngineWeight]:
    base: Any = layer.get_base_layer()
    active = [] if layer.disable_adapters else [a for a in layer.active_adapters if _has(layer, a)]
    tensors = tuple(tensor for adapter in active for tensor in _adapter_tensors(layer, adapter))
    merged = _Merged(layer, active, prefix)
    for name, parameter in base.named_parameters(recurse=False):
        yield EngineWeight(prefix + name, tensors, lambda name=name: merged.value(name), constant=(parameter,))


def _has(layer: BaseTunerLayer, adapter: str) -> bool:
    return any(adapter in getattr(layer, name) for name in layer.adapter_layer_names)


def _adapter_tensors(layer: BaseTunerLayer, adapter: str) -> Iterator[Tensor]:
    for name in layer.adapter_layer_names:
        container = getattr(layer, name)
        if adapter in container:
            entry = container[adapter]
            yield from [entry] if isinstance(entry, Tensor) else [*entry.parameters(), *entry.buffers()]


@dataclass(frozen=True)
class _Merged:
    """The base layer's weight with its active adapters."""

    layer: Any
    active: Sequence[str]
    prefix: str

    @property
    def spread(self) -> bool:
        """Whether any part of the layer is with several processes."""
        return any(is_spread(parameter) for parameter in self.layer.parameters())

    def value(self, name: str) -> Tensor:
        base = self.layer.get_base_layer()
        if not self.active:
            return self._base(name)
        if self._is_plain_lora():
            if name != "weight":
                return self._base(name)
            # In float32, and rounded once, to the engine's precision: a small update is not lost in the adding.
            weight = self._base(name).float()
            layer = _gathered(self.layer) if self.spread else self.layer
            for adapter in self.active:
                weight = weight + layer.get_delta_weight(adapter).detach().float()
            return weight
        refusal = (
            f"the {type(self.layer).__name__} adapter at {self.prefix[:-1]} cannot be merged into "
            f"{type(base).__name__} without changing the policy; use plain LoRA, or use_vllm=False"
        )
        if isinstance(self.layer, ParamWrapper) or not base.weight.is_floating_point():
            raise ModelError(refusal)
        merged = deepcopy(_gathered(self.layer, with_base=True) if self.spread else self.layer)
        try:
            merged.merge(adapter_names=list(self.active))
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise ModelError(f"{refusal} ({error})") from error
        return getattr(merged.get_base_layer(), name).detach()

    def _base(self, name: str) -> Tensor:
        module = self.layer.get_base_layer()
        stored = getattr(module, name)
        return _full(stored if stored.is_floating_point() else _dequantized(module, self.prefix + name))

    def _is_plain_lora(self) -> bool:
        layer = self.layer
        return (
            isinstance(layer, LoraLayer)
            and not isinstance(layer, ParamWrapper)
            and not any(adapter in layer.lora_variant for adapter in self.active)
            and not any(getattr(layer, "lora_bias", {}).get(adapter) for adapter in self.active)
        )


def _dequantized(module: Any, name: str) -> Tensor:
    if getattr(getattr(module.weight, "quant_state", None), "packing_format_for_cpu", False):
        weight = _of_packed(module)
    else:
        weight = dequantize_module_weight(module)
    if not weight.is_floating_point():
        raise ModelError(
            f"{name} is stored as {weight.dtype} by {type(module).__name__}, which cannot be de-quantised for vLLM; "
            "quantise with bitsandbytes, or set use_vllm=False"
        )
    return weight.detach()


def _of_packed(module: Any) -> Tensor:
    """The weight of a bitsandbytes layer that repacked it for the CPU, which its own de-quantisation cannot read.

    What such a layer makes of unit vectors are the rows of its weight, exactly.
    """
    import bitsandbytes  # type: ignore[import-not-found]  # the layer is one of its own

    units = torch.eye(module.in_features, dtype=torch.bfloat16, device=module.weight.device)
    return bitsandbytes.matmul_4bit(units, module.weight, quant_state=module.weight.quant_state).T.contiguous()


def _full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be spread over processes."""
    return whole_value(tensor).detach()


def _gathered(module: nn.Module, *, with_base: bool = False) -> Any:
    """A module of the same kind with whole weights; an adapter's base layer is left as it is unless asked for."""
    whole = copy(module)
    parts = whole.__dict__
    parts["_parameters"] = {
        name: None if tensor is None else nn.Parameter(_full(tensor), requires_grad=False)
        for name, tensor in module._parameters.items()
    }
    parts["_modules"] = {
        name: child if child is None or (name == "base_layer" and not with_base) else _gathered(child)
        for name, child in module._modules.items()
    }
    return whole


def _without_tied_head(inner: Any, base: Any, weights: list[EngineWeight]) -> list[EngineWeight]:
    """Leave out a head that the engine ties to the embeddings by itself; refuse one that is tied no longer."""
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    if not getattr(base.config.get_text_config(), "tie_word_embeddings", False) or embedding is None or head is None:
        return weights
    names = {id(module): name for name, module in base.named_modules()}
    first, last = names.get(id(embedding)), names.get(id(head))
    if {f"{first}.weight", f"{last}.weight"} - {weight.name for weight in weights}:
        return weights
    configs = getattr(inner, "peft_config", {}).values()
    if not all(getattr(config, "ensure_weight_tying", False) for config in configs):
        raise ModelError(
            f"the configuration ties {last} to {first}, but an adapter changes them apart, which vLLM would not do; "
            "leave both out of the adapter, set its ensure_weight_tying, or load the model with "
            "tie_word_embeddings=False"
        )
    return [weight for weight in weights if weight.name != f"{last}.weight"]
