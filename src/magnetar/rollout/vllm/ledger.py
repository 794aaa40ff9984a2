"""What an engine holds, so that only what changed since is sent."""

from collections.abc import Iterable

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from magnetar.modeling.spread import own_share
from magnetar.rollout.vllm.weights import EngineWeight, engine_weights, fusion_group

__all__ = ["WeightLedger"]

Mark = tuple[object, ...]


class WeightLedger:
    """Compares a policy with what an engine was last given, by the content of its weights.

    Whoever changed a weight, and by whatever means, is found out: an optimiser, a magnet's move, another role's turn, a
    loaded checkpoint.
    """

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._held: dict[str, Mark] = {}

    def forget(self) -> None:
        """The engine lost its weights, or holds somebody else's."""
        self._held = {}

    def outdated(self, model: nn.Module) -> tuple[list[EngineWeight], dict[str, Mark]]:
        """What has to be sent for the engine to play a policy.

        Args:
            model: The policy, as its forward pass is now.

        Returns:
            The weights of every group of which the engine holds another version, and marks for `remember`. Where
            weights are spread over processes, what one of them finds outdated is so for all.
        """
        weights = engine_weights(model)
        marks = dict(zip([w.name for w in weights], _marks(weights), strict=True))
        groups = {fusion_group(name) for name, mark in marks.items() if self._held.get(name) != mark}
        if any(weight.is_spread for weight in weights):
            groups = set().union(*gather_object([groups]))
        return [weight for weight in weights if fusion_group(weight.name) in groups], marks

    def remember(self, marks: dict[str, Mark]) -> None:
        """The engine was given what `outdated` said."""
        self._held = marks


def _marks(weights: list[EngineWeight]) -> list[Mark]:
    """A mark for each weight; it changes when the value of this process's share does."""
    sums = iter(_content([source for weight in weights for source in weight.sources]))
    return [
        (
            tuple((id(tensor), own_share(tensor).data_ptr(), own_share(tensor)._version) for tensor in weight.constant),
            tuple((tuple(source.shape), source.dtype, next(sums)) for source in weight.sources),
        )
        for weight in weights
    ]


@torch.no_grad()
def _content(tensors: Iterable[Tensor]) -> list[object]:
    """For each tensor a number that depends on all its bits; those of one device cross to the CPU together."""
    content: list[object] = []
    by_device: dict[torch.device, list[tuple[int, Tensor, Tensor]]] = {}
    for tensor in tensors:
        share = own_share(tensor).detach()
        if not share.numel():  # a small weight's slices are with other processes
            content.append((0, 0.0))
            continue
        # The exclusive-or of all values' bits and, since equal values cancel out in it, their sum.
        bits, total = torch.hash_tensor(share), share.sum()
        by_device.setdefault(share.device, []).append((len(content), bits.view(torch.int64), total.double()))
        content.append(None)
    for entries in by_device.values():
        places, bits, totals = zip(*entries, strict=True)
        for place, pair in zip(
            places, zip(torch.stack(bits).tolist(), torch.stack(totals).tolist(), strict=True), strict=True
        ):
            content[place] = pair
    return content
