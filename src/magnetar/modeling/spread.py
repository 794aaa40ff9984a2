"""Weights of which every process holds a part: FSDP2's slices and the pieces of DeepSpeed's ZeRO stage 3."""

from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

__all__ = ["gather_pieces", "is_spread", "own_share", "whole_value"]


def is_spread(tensor: Tensor) -> bool:
    """Whether processes hold a weight in parts, which all have to give for the whole of it."""
    return isinstance(tensor, DTensor) or hasattr(tensor, "ds_tensor")


def own_share(tensor: Tensor) -> Tensor:
    """This process's part of a weight, in memory that is the weight's; the weight itself where it is whole."""
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    if not hasattr(tensor, "ds_tensor"):
        return tensor
    weight = cast(Any, tensor)
    piece = weight.ds_tensor
    # The last piece is filled up to the size of the others.
    rest = weight.ds_numel - dist.get_rank() * piece.numel()
    return piece.data[: max(0, min(rest, piece.numel()))]


def whole_value(tensor: Tensor) -> Tensor:
    """A weight as a whole; where it is spread, every process calls this for the same weights in the same order."""
    if isinstance(tensor, DTensor):
        sharded = cast(DTensor, tensor.detach())
        if sharded.to_local().device.type != sharded.device_mesh.device_type:  # in main memory between passes
            sharded = cast(DTensor, sharded.to(sharded.device_mesh.device_type))
        return sharded.full_tensor()
    if not hasattr(tensor, "ds_tensor"):
        return tensor
    with gather_pieces([tensor]):
        return tensor.detach().clone()


def gather_pieces(weights: list[Tensor], modifier_rank: int | None = None) -> Any:
    """A context in which DeepSpeed's weights are whole on every process; see its ``GatheredParameters``."""
    import deepspeed  # pyright: ignore[reportMissingImports] - only where it is used

    return deepspeed.zero.GatheredParameters(weights, modifier_rank=modifier_rank)
