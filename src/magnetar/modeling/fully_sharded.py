"""Weights sharded by FSDP2: every parameter is a DTensor, of which each process holds a slice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from magnetar.modeling.sharding import ShardedWeights, empty_pass, move_tensor, plain_name
from magnetar.modeling.spread import own_share, whole_value

__all__ = ["FullySharded"]


class FullySharded(ShardedWeights):
    """FSDP2. Between passes every weight is a slice; weights move slice by slice, without communication."""

    def __init__(self, device: torch.device, prepare: Callable[[nn.Module], nn.Module]) -> None:
        """Remember how models are sharded.

        Args:
            device: Of this process.
            prepare: Shards a model in place as the policy was sharded.
        """
        super().__init__(device)
        self._prepare = prepare

    def part(self, tensor: Tensor) -> Tensor:
        """This process's slice."""
        return own_share(tensor)

    def whole(self, tensor: Tensor) -> Tensor:
        """All slices, gathered."""
        return whole_value(tensor)

    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        """Keep this process's slice of a value."""
        if not isinstance(tensor, DTensor):
            tensor.copy_(whole)
            return
        mesh: Any = tensor.device_mesh
        value = whole.to(device=mesh.device_type, dtype=tensor.dtype)
        # Every process has read the same file: nothing has to be sent.
        self.part(tensor).copy_(self.part(distribute_tensor(value, mesh, tensor.placements, src_data_rank=None)))

    def beside(self, weight: Tensor, value: Any) -> Any:
        """This process's slice of a value that has one number for each of the weight's; others as they are."""
        if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
            return value
        kept = torch.empty_like(weight, dtype=value.dtype, requires_grad=False)
        self.fill(kept, value)
        return kept

    def copy(self, target: Tensor, source: Tensor, rate: float) -> None:
        """Move slice towards slice."""
        move_tensor(self.part(target), self.part(source).to(self.part(target).device), rate)

    def settle(self, model: nn.Module) -> None:
        """Register slices again where a pass has left whole weights: in the root, whose weights FSDP keeps."""
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def copy_of(self, model: nn.Module, skeleton: nn.Module) -> nn.Module:
        """Shard the skeleton as the model was, before it gets any memory for its weights."""
        copy = deepcopy(skeleton)
        self.settle(model)
        types = {plain_name(name): parameter.dtype for name, parameter in model.named_parameters()}
        for name, parameter in copy.named_parameters():
            parameter.data = parameter.data.to(types[name])
        buffers = {name: buffer.clone() for name, buffer in copy.named_buffers()}
        copy = self._prepare(copy)
        copy.to_empty(device=next(model.parameters()).device)  # the CPU where FSDP offloads weights
        for name, buffer in buffers.items():
            owner, _, last = name.rpartition(".")
            copy.get_submodule(owner)._buffers[last] = buffer.to(self._device)
        self.begin(copy)
        return copy

    def begin(self, model: nn.Module) -> None:
        """Make the first pass of a sharded model, with which FSDP learns its order."""
        empty_pass(model, self._device)
        self.settle(model)

    @contextmanager
    def _gathered(self, model: nn.Module) -> Iterator[None]:
        """Keep what is gathered until the end: a pass for each token would gather the whole model for each token."""
        modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
        # FSDP can be told what to do after a pass, but not asked what it does.
        groups: list[Any] = [group for module in modules for group in module._get_fsdp_state()._fsdp_param_groups]
        before = [group.post_forward_mesh_info for group in groups]
        for group in groups:
            group.post_forward_mesh_info = None
        try:
            for module in modules:
                module.unshard()
            yield
        finally:
            for group, value in zip(groups, before, strict=True):
                group.post_forward_mesh_info = value
            self.settle(model)
