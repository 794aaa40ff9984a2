"""Batches of sequences that are being continued token by token."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from magnetar.errors import ModelError
from magnetar.modeling.forward import base_model
from magnetar.modeling.modes import eval_mode
from magnetar.rollout.base import MixtureMember
from magnetar.rollout.shared_prompts import GroupCache, group_attention, sharing_obstacle

__all__ = ["Continuation", "Decoding", "MixedDecoding", "active_member"]

logger = logging.getLogger(__name__)


@dataclass
class Decoding:
    """A batch of sequences being continued: their cache, their masks and the logits of the next token."""

    model: nn.Module
    cache: Any
    mask: Tensor
    position: Tensor
    logits: Tensor
    takes: frozenset[str]

    @classmethod
    def start(cls, model: nn.Module, ids: Tensor, mask: Tensor) -> "Decoding":
        """Encode left-padded prompts."""
        base = base_model(model)
        takes = frozenset(inspect.signature(base.forward).parameters)
        if "past_key_values" not in takes:
            raise ModelError(
                f"{type(base).__name__} takes no past_key_values, so it cannot continue a sequence token by token; "
                "use a transformer decoder, or another rollout engine"
            )
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        state = cls(model, None, mask, positions, torch.empty(0), takes)
        state._forward(ids)
        state.position = positions[:, -1:]
        return state

    @property
    def _layers(self) -> list[Any]:
        return list(getattr(self.cache, "layers", []))

    @property
    def can_repeat(self) -> bool:
        """Whether every layer of the cache can copy its rows."""
        return bool(self._layers) and all(hasattr(layer, "batch_repeat_interleave") for layer in self._layers)

    @property
    def can_drop(self) -> bool:
        """Whether every layer of the cache can let rows go."""
        if isinstance(self.cache, GroupCache):
            return True
        return bool(self._layers) and all(hasattr(layer, "batch_select_indices") for layer in self._layers)

    def repeat(self, times: int) -> None:
        """Turn every row into `times` rows next to each other."""
        self.cache.batch_repeat_interleave(times)
        self._repeat_rows(times)

    def _repeat_rows(self, times: int) -> None:
        self.mask = self.mask.repeat_interleave(times, 0)
        self.position = self.position.repeat_interleave(times, 0)
        self.logits = self.logits.repeat_interleave(times, 0)

    def share(self, times: int, length: int) -> bool:
        """Turn every row into `times` rows that share their prompt's cache; False, and no change, where they cannot.

        Args:
            times: Rows for each prompt.
            length: Tokens that a row may be continued by.
        """
        reason = sharing_obstacle(self.model, self.cache)
        if reason is not None:
            self._tell(reason)
            return False
        self.cache = GroupCache(self.cache, self.mask, times, length)
        self._repeat_rows(times)
        return True

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        if isinstance(self.cache, GroupCache):
            self.cache.keep(rows)
        else:
            self.cache.batch_select_indices(rows)
        self.mask, self.position = self.mask[rows], self.position[rows]

    def step(self, tokens: Tensor) -> None:
        """Feed one token to each row."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=-1)
        self.position = self.position + 1
        self._forward(tokens.unsqueeze(-1))

    @property
    def _base(self) -> Any:
        """The transformers model beneath a PEFT model."""
        return base_model(self.model)

    def _tell(self, reason: str) -> None:
        logger.info("%s %s: each response keeps its prompt's cache for itself", type(self._base).__name__, reason)

    def _forward(self, ids: Tensor) -> None:
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True}
        shared = self.cache if isinstance(self.cache, GroupCache) else None
        if shared is None:
            inputs["attention_mask"] = self.mask
        if self.cache is not None:
            inputs["past_key_values"] = self.cache
        if "position_ids" in self.takes:
            inputs["position_ids"] = self.position
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        with nullcontext() if shared is None else group_attention(self._base, shared):
            outputs = self.model(**inputs)
        if shared is not None and shared.refusal is not None:
            # Found out at the first token, when nothing but the prompts is in the cache.
            self._tell(shared.refusal)
            self.cache = shared.apart()
            return self._forward(ids)
        self.cache = outputs.past_key_values
        if self.cache is None:
            raise ModelError(f"{type(self.model).__name__} returned no key-value cache; enable config.use_cache")
        self.logits = outputs.logits[:, -1]


class Continuation(Protocol):
    """A batch of sequences being continued."""

    @property
    def logits(self) -> Tensor:
        """Of the next token of each row, shape (rows, V)."""
        ...

    @property
    def can_drop(self) -> bool:
        """Whether rows can be let go."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        ...

    def step(self, tokens: Tensor) -> None:
        """Feed one token to each row."""
        ...


@dataclass
class MixedDecoding:
    """The same sequences continued by several policies, whose logits are mixed: a geometric mixture of the policies.

    A common temperature divides mixed logits as it would divide each policy's own.
    """

    members: list[MixtureMember]
    states: list[Decoding]

    @property
    def logits(self) -> Tensor:
        """Of the mixture, up to a constant of each row."""
        terms = [m.weight * state.logits.float() for m, state in zip(self.members, self.states, strict=True)]
        return torch.stack(terms).sum(0)

    @property
    def can_drop(self) -> bool:
        """Whether rows can be let go."""
        return all(state.can_drop for state in self.states)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        for state in self.states:
            state.keep(rows)

    def step(self, tokens: Tensor) -> None:
        """Feed one token to each row."""
        for member, state in zip(self.members, self.states, strict=True):
            with active_member(member):
                state.step(tokens)


@contextmanager
def active_member(member: MixtureMember) -> Iterator[nn.Module]:
    """The member's model, unwrapped and in eval mode."""
    with member.activate() as model:
        inner = extract_model_from_parallel(model)
        with eval_mode(inner):
            yield inner
