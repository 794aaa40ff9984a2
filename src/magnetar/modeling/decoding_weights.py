"""Linear layers as decoding wants them: one matrix each, adapters merged into it, laid out for few rows on the CPU.

A decoding step multiplies a few rows by every weight of the model once. Then an adapter's two small products cost as
much in calls as the large one costs in arithmetic, and on the CPU the layout of the matrix decides the speed.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

__all__ = ["MergeChoice", "decoding_weights"]

MergeChoice = Literal["auto", "on", "off"]
# Of the device's memory, the share that "auto" may fill with merged copies for the length of a rollout.
AUTO_SHARE = 0.25


@dataclass(frozen=True)
class _Plan:
    """A layer and the matrix that it multiplies by while decoding."""

    module: nn.Module
    linear: nn.Linear
    adapters: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return self.linear.weight.numel() * self.linear.weight.element_size()

    def weight(self) -> Tensor:
        """The base weight plus each active adapter's scaled product, rounded once to the base's type."""
        weight = self.linear.weight.detach()
        if not self.adapters:
            return weight
        layer = cast(Any, self.module)
        first = layer.lora_A[self.adapters[0]].weight
        total = weight.to(torch.promote_types(weight.dtype, first.dtype))
        for name in self.adapters:
            a, b = (part[name].weight.detach().to(total.dtype) for part in (layer.lora_A, layer.lora_B))
            total = torch.addmm(total, b, a, alpha=layer.scaling[name])
        return total.to(weight.dtype)


@contextmanager
def decoding_weights(model: nn.Module, merge: MergeChoice = "auto", rows: int = 16) -> Iterator[int]:
    """For the length of the block, compute linear layers with one matrix each; the model's tensors are not touched.

    Merged in half precision, an adapter's weights are rounded together with the base's, so that log-probabilities
    differ from those of the unmerged model by about as much as those of two orders of summation do.

    Args:
        model: A transformers or PEFT model, unwrapped, in eval mode, under `torch.no_grad`.
        merge: "on", "off", or "auto": on where the copies fill at most a quarter of the device's memory.
        rows: How many rows a decoding step has; a hint to the layout.

    Yields:
        How many layers were replaced.
    """
    plans = [] if merge == "off" else list(_plans(model))
    device = next(model.parameters()).device
    if merge == "auto" and sum(plan.bytes for plan in plans) > AUTO_SHARE * _device_memory(device):
        plans = []
    # What mixed precision multiplies in; merging itself is done in the weights' own precision.
    mixed = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    try:
        with torch.autocast(device.type, enabled=False):
            for plan in plans:
                plan.module.forward = _forward(plan, rows, mixed)
        yield len(plans)
    finally:
        for plan in plans:
            # Only ours was there: `_plans` leaves layers alone whose forward pass somebody else replaced.
            plan.module.__dict__.pop("forward", None)


def _plans(model: nn.Module) -> Iterator[_Plan]:
    """The layers that can be computed with one plain matrix, without going below a layer twice."""
    inside: set[int] = set()
    for module in model.modules():
        if id(module) in inside:
            continue
        if isinstance(module, LoraLayer | AuxiliaryTrainingWrapper):
            inside.update(id(part) for part in cast(nn.Module, module).modules())
        if "forward" in module.__dict__:
            continue
        if type(module) is LoraLinear and _is_plain(module.base_layer):
            adapters = _merged_adapters(module)
            if adapters is not None and (adapters or _packs(cast(nn.Linear, module.base_layer).weight)):
                yield _Plan(module, cast(nn.Linear, module.base_layer), adapters)
        elif _is_plain(module) and _packs(cast(nn.Linear, module).weight):
            yield _Plan(module, cast(nn.Linear, module), ())


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer is a matrix in memory: not quantised, not sharded, not with a forward pass of somebody else."""
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    return type(module.weight) in (Tensor, nn.Parameter) and module.weight.is_floating_point()


def _merged_adapters(layer: LoraLinear) -> tuple[str, ...] | None:
    """The adapters to merge; None where an adapter is more than two matrices, or is merged already."""
    if layer.merged:
        return None
    active = () if layer.disable_adapters else tuple(name for name in layer.active_adapters if name in layer.lora_A)
    plain = all(not layer.lora_variant.get(name) and not layer.lora_bias.get(name) for name in active)
    return active if plain and not layer.fan_in_fan_out else None


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN has a layout of its own for this matrix."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def _forward(plan: _Plan, rows: int, mixed: torch.dtype | None) -> Callable[..., Tensor]:
    weight, bias = plan.weight(), plan.linear.bias
    if mixed is not None and weight.dtype == torch.float32:
        weight = weight.to(mixed)
        bias = None if bias is None else bias.detach().to(weight.dtype)
    dtype = weight.dtype
    if not _packs(weight):
        return lambda x, *_, **__: nn.functional.linear(x.to(dtype), weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x, *_, **__: multiply(x.to(dtype), packed, bias, "none", [], "")


def _device_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
