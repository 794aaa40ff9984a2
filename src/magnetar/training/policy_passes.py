"""One pass of the policy, with its exact KL divergences to frozen roles."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from magnetar.modeling.forward import output_layer
from magnetar.modeling.logprobs import TokenLogProbs, exact_kl
from magnetar.modeling.output_layers import (
    frozen_output_layer,
    gathered_output_layer,
    is_sharded,
    one_for_all_roles,
)
from magnetar.modeling.roles import Roles
from magnetar.modeling.vocabulary import FrozenStates, Layer
from magnetar.training.experience import Experience
from magnetar.training.passes import PassSettings
from magnetar.types import Role

__all__ = ["PolicyPasses"]


class PolicyPasses:
    """Passes of the policy over an experience.

    A frozen role's distributions come from the states that were kept of its one pass when the experience was collected;
    where there are none (a model whose output layer cannot be applied in chunks), from another pass of the role. For
    the former the role's output layer is needed; where weights are in shards it is gathered once a step.
    """

    def __init__(self, roles: Roles, passes: PassSettings, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
        """Remember how passes run.

        Args:
            roles: The policy's parts.
            passes: How passes run.
            autocast: Context of mixed precision.
        """
        self._roles = roles
        self._passes = passes
        self._autocast = autocast
        self._layers: dict[Role, Layer | None] = {}

    def forget_layers(self) -> None:
        """Let go of the frozen output layers, which may have been brought from main memory: a step is over."""
        self._layers = {}

    def keeps_states(self, experience: Experience) -> bool:
        """Whether what the policy's output layer reads will be needed again, and can be used."""
        own = experience.magnet_states if experience.magnet_is_behavior else None
        return self._passes.chunked and (experience.behavior_states is not None or own is not None)

    def run(
        self,
        model: nn.Module,
        experience: Experience,
        part: Sequence[int],
        against: Sequence[Role],
        *,
        states: bool = False,
    ) -> tuple[TokenLogProbs, Mapping[str, Tensor]]:
        """Run the policy on some prompts of an experience.

        Args:
            model: The (wrapped) policy.
            experience: With the states of the roles in `against`, if chunked passes are possible.
            part: Indices of prompts.
            against: Roles to which the exact KL divergence is wanted.
            states: Whether to return what the output layer read, where chunked passes are possible.

        Returns:
            The policy's log-probabilities, and the divergences by role, shape (B, G, T), nats, differentiable.
        """
        prompt_ids = [experience.prompt_ids[b] for b in part]
        response_ids = [experience.response_ids[b] for b in part]
        kept: dict[Role, Tensor] = {
            role: torch.cat([rows[b] for b in part])
            for role in against
            if (rows := experience.states(role)) is not None
        }
        if len(kept) == len(against) and self._layers_at_hand(kept):
            frozen_states = {str(role): FrozenStates(rows, self._layers[role]) for role, rows in kept.items()}
            out = self._passes.run(model, prompt_ids, response_ids, against=frozen_states, states=states)
            return out, out.kl_BGT
        out = self._passes.run(model, prompt_ids, response_ids, full=bool(against))
        divergences = {}
        for role in against:
            with torch.no_grad(), self._roles.use(role) as frozen, self._autocast():
                other = self._passes.run(frozen, prompt_ids, response_ids, full=True, entropy=False).full_NV
            assert out.full_NV is not None and other is not None
            divergences[role] = exact_kl(out.full_NV, other, out.mask_BGT)
        return out, divergences

    def _layers_at_hand(self, read: Mapping[Role, Tensor]) -> bool:
        """Find the output layers of roles once a step; False if one is in shards and is no linear map."""
        for role, states in read.items():
            if role in self._layers:
                continue
            layer = None
            if not one_for_all_roles(self._roles.current):
                with self._roles.use(role) as frozen:
                    layer = self._layer_of(frozen, states.dtype)
                if layer is None:
                    return False
            self._layers[role] = layer
        return True

    def _layer_of(self, frozen: nn.Module, dtype: torch.dtype) -> Layer | None:
        if is_sharded(output_layer(frozen)):
            return gathered_output_layer(frozen, self._roles.sharding.whole, dtype)
        return frozen_output_layer(frozen)
