"""Weights sharded by DeepSpeed's ZeRO stage 3: every process holds a piece of each weight, flattened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from magnetar.modeling.adapters import cuda_devices
from magnetar.modeling.sharding import ShardedWeights, move_tensor
from magnetar.modeling.spread import gather_pieces, own_share, whole_value

__all__ = ["ZeroSharded"]


class ZeroSharded(ShardedWeights):
    """ZeRO-3. Weights move piece by piece, without communication; whole ones are gathered one at a time."""

    def __init__(
        self, device: torch.device, policy: nn.Module, engine: Any, prepare: Callable[[nn.Module], Any]
    ) -> None:
        """Remember how models are sharded.

        Args:
            device: Of this process.
            policy: The trained model, unwrapped.
            engine: DeepSpeed's around it.
            prepare: Gives a frozen model an engine of its own.
        """
        super().__init__(device)
        self._engines: dict[int, Any] = {id(policy): engine}
        self._prepare = prepare

    def part(self, tensor: Tensor) -> Tensor:
        """This process's piece, without what fills it up to the size of the others."""
        return own_share(tensor)

    def whole(self, tensor: Tensor) -> Tensor:
        """All pieces, gathered."""
        return whole_value(tensor)

    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        """Keep this process's piece of a value."""
        if not hasattr(tensor, "ds_tensor"):
            tensor.copy_(whole)
            return
        with gather_pieces([tensor], modifier_rank=0):
            if dist.get_rank() == 0:
                tensor.data.copy_(whole)

    def copy(self, target: Tensor, source: Tensor, rate: float) -> None:
        """Move piece towards piece."""
        if hasattr(target, "ds_tensor") != hasattr(source, "ds_tensor"):  # zeros, in place of a bare base
            value = target.detach().clone() if not hasattr(target, "ds_tensor") else self.whole(target)
            move_tensor(value, source.to(value.device), rate)
            self.fill(target, value)
            return
        weight: Any = target
        if hasattr(target, "ds_tensor") and weight.ds_status.name == "AVAILABLE":
            weight.partition()  # small weights stay gathered; they would keep the old value
        move_tensor(self.part(target), self.part(source).to(self.part(target).device), rate)

    def settle(self, model: nn.Module) -> None:
        """Pieces are always there."""

    def copy_of(self, model: nn.Module, skeleton: nn.Module) -> nn.Module:
        """Build the model anew; with zero3_init_flag, weight by weight in pieces."""
        kind, config = cast(Any, type(model)), deepcopy(cast(Any, model).config)
        # Its random start must not shift the random numbers of the run.
        with torch.random.fork_rng(devices=cuda_devices(model)):
            copy: nn.Module = kind._from_config(config, dtype=next(model.parameters()).dtype)
        for parameter in copy.parameters():
            parameter.requires_grad_(False)
        self._engines[id(copy)] = self._prepare(copy)
        return copy

    @contextmanager
    def _gathered(self, model: nn.Module) -> Iterator[None]:
        """Gather all weights, and take away the hooks that would free each after its layer."""
        from trl.models.utils import add_hooks, remove_hooks

        engine = self._engines[id(model)]
        with gather_pieces(list(model.parameters())):
            remove_hooks(engine)
            try:
                yield
            finally:
                add_hooks(engine)
