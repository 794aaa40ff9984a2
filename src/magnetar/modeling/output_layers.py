"""Output layers of frozen roles, as layers of their own: what gives their distributions while another role runs."""

from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

__all__ = ["frozen_output_layer", "gathered_output_layer", "is_sharded", "one_for_all_roles"]


def one_for_all_roles(inner: nn.Module) -> bool:
    """Whether every role has the same output layer: that of a PEFT model whose adapters leave it alone."""
    return isinstance(inner, PeftModel) and not any(
        isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in _head(inner).modules()
    )


def frozen_output_layer(inner: nn.Module) -> nn.Module | None:
    """The output layer of a role that is active now, as something that stays when another role becomes active.

    Args:
        inner: The model whose forward pass is the role's policy.

    Returns:
        A module on the same weights; None if every role has the same layer.
    """
    if one_for_all_roles(inner):
        return None
    head = _head(inner)
    # Parameters of its own on the same storage: which adapter is active is an attribute of the layers, and is copied.
    tensors = chain(head.parameters(), head.buffers())
    memo = {id(t): nn.Parameter(t.data, False) if isinstance(t, nn.Parameter) else t.data for t in tensors}
    return deepcopy(head, memo).eval()


def gathered_output_layer(inner: nn.Module, whole: Callable[[Tensor], Tensor], dtype: torch.dtype) -> nn.Linear | None:
    """The output layer of a model whose weights are in shards, gathered: it stays whole until it is let go.

    All processes call it together.

    Args:
        inner: The model whose forward pass is the role's policy.
        whole: Gathers a weight.
        dtype: Of what the layer read in its model's pass, in which it is kept.

    Returns:
        A layer that can be applied outside of its model's pass; None if it is more than a linear map, as one with an
        adapter is.
    """
    head = _head(inner)
    if not isinstance(head, nn.Linear):
        return None
    outputs, inputs = getattr(head.weight, "ds_shape", head.weight.shape)
    layer = nn.Linear(inputs, outputs, bias=head.bias is not None, device="meta")
    for name, parameter in head.named_parameters():
        setattr(layer, name, nn.Parameter(whole(parameter).detach().to(dtype), requires_grad=False))
    return layer.eval()


def is_sharded(layer: nn.Module) -> bool:
    """Whether a layer's weights are spread over processes, so that it can only be applied within its model's pass."""
    return any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in layer.parameters())


def _head(inner: nn.Module) -> nn.Module:
    return cast(nn.Module, cast(Any, inner).get_output_embeddings())
