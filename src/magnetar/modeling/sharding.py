"""How weights are spread over processes, and what roles may do with them.

When no process holds a whole weight, a forward pass gathers it from all of them, layer by layer. So every process must
run as many passes as the others, whatever its share of the work: a process that has finished goes along with empty
passes until all have.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from magnetar.errors import MagnetarError

__all__ = ["AnotherProcessFailed", "Sharding", "WholeWeights", "plain_name", "whole_shape", "without_weights"]


class AnotherProcessFailed(MagnetarError, RuntimeError):
    """A process left its work with an error of its own, which it reports; the others stop where they meet it."""


class Sharding(ABC):
    """Where the weights of models are, and how processes keep in step with each other."""

    @abstractmethod
    def part(self, tensor: Tensor) -> Tensor:
        """This process's share of a weight, which may be written to."""

    @abstractmethod
    def whole(self, tensor: Tensor) -> Tensor:
        """A weight as a whole; every process calls it for the same weights in the same order."""

    @abstractmethod
    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        """Write a whole value, the same on all processes, into a weight."""

    def beside(self, weight: Tensor, value: Any) -> Any:
        """A whole value of the optimiser's state as it is kept beside a weight: in shards, where the weight is."""
        return value

    @abstractmethod
    def copy(self, target: Tensor, source: Tensor, rate: float) -> None:
        """Move a weight towards another of the same shape: ``target ← (1 − rate) target + rate source``."""

    @abstractmethod
    def settle(self, model: nn.Module) -> None:
        """Let go of what a pass has gathered, so that every weight of a model is this process's share of it."""

    @abstractmethod
    def copy_of(self, model: nn.Module, skeleton: nn.Module) -> nn.Module:
        """A model sharded as another is; its weights are undefined.

        Args:
            model: The sharded one.
            skeleton: A copy of it before it was sharded, with weights on the meta device.
        """

    @abstractmethod
    def passes(self, models: tuple[nn.Module, ...], *, gather: bool) -> Any:
        """A context for forward passes of some models, by any number of which processes may differ.

        Args:
            models: Those that may run inside.
            gather: Gather all weights once at the start, for passes as many and as short as those of a generation.
        """

    @abstractmethod
    def reading(self, models: tuple[nn.Module, ...]) -> Any:
        """A context in which the weights of some models are read, part by part, and no pass is made.

        Args:
            models: Those that are read.
        """

    @abstractmethod
    def differ(self, here: bool) -> bool:
        """Whether something is different on any process."""

    @abstractmethod
    def most(self, count: int) -> int:
        """The largest count of any process."""

    @abstractmethod
    def report_failure(self) -> None:
        """Let the others know, when they next meet, that this process has left with an error."""

    @abstractmethod
    def meet(self) -> None:
        """Wait for the others.

        Raises:
            AnotherProcessFailed: One of them has reported a failure.
        """


class WholeWeights(Sharding):
    """Every process has all weights, and works as it likes."""

    def part(self, tensor: Tensor) -> Tensor:
        """The weight itself."""
        return tensor

    def whole(self, tensor: Tensor) -> Tensor:
        """The weight itself."""
        return tensor

    def fill(self, tensor: Tensor, whole: Tensor) -> None:
        """Copy the value."""
        tensor.copy_(whole)

    def copy(self, target: Tensor, source: Tensor, rate: float) -> None:
        """Move a weight towards another, wherever it is kept."""
        move_tensor(target, source.to(target.device), rate)

    def settle(self, model: nn.Module) -> None:
        """Nothing is gathered."""

    def copy_of(self, model: nn.Module, skeleton: nn.Module) -> nn.Module:
        """Not needed: whole models are copied as they are."""
        raise NotImplementedError

    @contextmanager
    def passes(self, models: tuple[nn.Module, ...], *, gather: bool) -> Iterator[None]:
        """Nobody waits for anybody."""
        yield

    @contextmanager
    def reading(self, models: tuple[nn.Module, ...]) -> Iterator[None]:
        """Nobody waits for anybody."""
        yield

    def differ(self, here: bool) -> bool:
        """Processes have equal weights, so this one knows."""
        return here

    def most(self, count: int) -> int:
        """This process's own."""
        return count

    def report_failure(self) -> None:
        """Nobody waits."""

    def meet(self) -> None:
        """Nobody waits."""


class ShardedWeights(Sharding):
    """What all ways to shard weights share: keeping processes in step."""

    def __init__(self, device: torch.device) -> None:
        """Remember where flags are exchanged.

        Args:
            device: Of this process.
        """
        self._device = device
        self._inside = False

    @abstractmethod
    def _gathered(self, model: nn.Module) -> Any:
        """A context in which this process holds all weights of a model."""

    def _sum(self, value: int, op: Any = dist.ReduceOp.SUM) -> Tensor:
        flag = torch.tensor(value, device=self._device)
        dist.all_reduce(flag, op=op)
        return flag

    def differ(self, here: bool) -> bool:
        """Whether something is different on any process; a process that has failed is met here too."""
        self.meet()
        return int(self._sum(int(here))) > 0

    def most(self, count: int) -> int:
        """The largest count of any process."""
        return int(self._sum(count, dist.ReduceOp.MAX))

    def report_failure(self) -> None:
        """Take part in the others' next meeting."""
        self._sum(1)

    def meet(self) -> None:
        """Wait for the others, unless they are inside of passes together."""
        if int(self._sum(0)) > 0:
            raise AnotherProcessFailed("another process stopped with an error of its own, which it reports")

    @contextmanager
    def passes(self, models: tuple[nn.Module, ...], *, gather: bool) -> Iterator[None]:
        """Gather all weights at the start, or keep step pass by pass; inside of either, nothing more is needed."""
        if self._inside:
            yield
            return
        self.meet()
        self._inside = True
        try:
            with ExitStack() as stack:
                for model in models:
                    stack.enter_context(self._gathered(model) if gather else self._in_step(model))
                yield
        finally:
            self._inside = False
            for model in models:
                self.settle(model)

    @contextmanager
    def reading(self, models: tuple[nn.Module, ...]) -> Iterator[None]:
        """Meet at the start; every weight is this process's share of it, which who reads it may gather."""
        if self._inside:
            yield
            return
        self.meet()
        self._inside = True
        try:
            for model in models:
                self.settle(model)
            yield
        finally:
            self._inside = False

    @contextmanager
    def _in_step(self, model: nn.Module) -> Iterator[None]:
        """Every pass is announced; who has no more of its own makes empty ones until nobody announces any."""
        handle = model.register_forward_pre_hook(lambda *_: self._announce(), prepend=True)
        try:
            yield
        finally:
            handle.remove()
        while int(self._sum(0)) > 0:
            empty_pass(model, self._device)

    def _announce(self) -> None:
        self._sum(1)


def empty_pass(model: nn.Module, device: torch.device) -> None:
    """A forward pass over one token, whose result nobody reads."""
    token = torch.zeros((1, 1), dtype=torch.long, device=device)
    with torch.no_grad():
        model(input_ids=token, attention_mask=torch.ones_like(token))


def plain_name(name: str) -> str:
    """A weight's name without what activation checkpointing and compilation put into it."""
    return name.replace("._checkpoint_wrapped_module", "").replace("._orig_mod", "").removeprefix("_orig_mod.")


def without_weights(model: nn.Module) -> nn.Module:
    """A copy whose weights, whole ones, are on the meta device; buffers are copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty(whole_shape(parameter), dtype=parameter.dtype, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    return deepcopy(model, memo)


def whole_shape(tensor: Tensor) -> torch.Size:
    """A weight's shape as a whole; DeepSpeed keeps it apart from the piece."""
    return getattr(tensor, "ds_shape", tensor.shape)


def move_tensor(target: Tensor, value: Tensor, rate: float) -> None:
    if rate == 1.0 or not target.is_floating_point():
        target.copy_(value)
    else:
        target.lerp_(value.to(target.dtype), rate)
