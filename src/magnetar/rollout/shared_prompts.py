"""Decoding in which the responses of a group read their prompt's keys and values from one place.

An ordinary cache holds the prompt once for each response, and every step reads, and often copies, all of it. Here a
layer keeps the prompt's part once for each group and the responses' part in memory set aside beforehand; attention
looks at both and normalises over the two together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from magnetar.modeling.logprobs import declared_obstacle

__all__ = ["GroupCache", "group_attention", "sharing_obstacle"]

NAME = "magnetar_group"
# Tokens that memory is set aside for at first; it doubles where responses are longer.
FIRST_ROOM = 128
# What an attention function may be asked to do beyond the softmax of scaled products.
BEYOND = ("softcap", "s_aux", "position_bias", "sliding_window")
_ACTIVE: ContextVar["GroupCache"] = ContextVar("magnetar_group_cache")


class GroupLayer(CacheLayerMixin):
    """Keys and values of one layer: B prompts, and the responses of R rows so far.

    Shapes are (B, K, L, D) for the prompts and (R, K, T, D) for the responses, with K key-value heads.
    """

    is_sliding = False
    is_croppable = False

    def __init__(self, prompt: DynamicLayer, group_size: int, length: int) -> None:
        """Take a prompt's cache over and set memory for ``group_size`` responses of up to ``length`` tokens aside."""
        super().__init__()
        keys, values = cast(Tensor, prompt.keys), cast(Tensor, prompt.values)
        self.prompt_keys, self.prompt_values = keys, values
        self.length, self.used = length, 0
        room = min(length, FIRST_ROOM)
        rows = keys.shape[0] * group_size
        self.keys = keys.new_empty(rows, keys.shape[1], room, keys.shape[-1])
        self.values = values.new_empty(rows, values.shape[1], room, values.shape[-1])
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is left to be done."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the next tokens and return the responses' part."""
        end = self.used + key_states.shape[-2]
        keys, values = cast(Tensor, self.keys), cast(Tensor, self.values)
        if end > keys.shape[-2]:
            room = min(self.length, 2 * keys.shape[-2]) - self.used
            keys, values = (
                torch.cat([old[:, :, : self.used], old.new_empty(*old.shape[:2], room, old.shape[-1])], dim=-2)
                for old in (keys, values)
            )
            self.keys, self.values = keys, values
        keys[:, :, self.used : end], values[:, :, self.used : end] = key_states, value_states
        self.used = end
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, rows: Tensor, prompts: Tensor | None) -> None:
        """Go on with some rows, and with some prompts (None: all)."""
        self.keys, self.values = cast(Tensor, self.keys)[rows], cast(Tensor, self.values)[rows]
        if prompts is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]

    def get_seq_length(self) -> int:
        """Tokens of a row, those of its prompt included."""
        return self.prompt_keys.shape[-2] + self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of a mask, which is not used."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Tokens that a row may have."""
        return self.prompt_keys.shape[-2] + self.length


class GroupCache(Cache):
    """A cache of groups: see `GroupLayer`.

    Attributes:
        padding: True where a prompt's row holds a token, shape (B, 1, 1, L); None without padding.
        slots: Where each row's response stands among B·G, shape (R,).
        group_size: G.
        refusal: Why the model does not attend as `attend` does; known after the first token.
    """

    def __init__(self, prompts: Cache, mask: Tensor, group_size: int, length: int) -> None:
        """Take the cache of B encoded prompts over.

        Args:
            prompts: A cache of ordinary layers.
            mask: 1 at the prompts' tokens, shape (B, L).
            group_size: Responses to each prompt.
            length: Tokens that a response may have.
        """
        super().__init__(layers=[GroupLayer(cast(Any, layer), group_size, length) for layer in prompts.layers])
        self.padding = None if bool(mask.all()) else mask.bool()[:, None, None, :]
        self.group_size = group_size
        self.prompts = mask.shape[0]
        self.slots = torch.arange(mask.shape[0] * group_size, device=mask.device)
        self.refusal: str | None = None
        self.asked = 0  # layers of this token that have come to `attend`

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows; prompts without any row left leave with them."""
        self.slots = self.slots[rows]
        present, position = torch.unique(self.slots // self.group_size, return_inverse=True)
        prompts = present if len(present) < self.prompts else None
        if prompts is not None:
            self.prompts = len(present)
            self.slots = position * self.group_size + self.slots % self.group_size
            self.padding = None if self.padding is None else self.padding[prompts]
        for layer in self.layers:
            cast(GroupLayer, layer).keep(rows, prompts)

    def apart(self) -> DynamicCache:
        """An ordinary cache, with each prompt once for each of its responses; for before the first token."""
        cache = DynamicCache()
        for layer in self.layers:
            kept = DynamicLayer()
            kept.lazy_initialization(cast(GroupLayer, layer).prompt_keys, cast(GroupLayer, layer).prompt_values)
            kept.keys, kept.values = cast(GroupLayer, layer).prompt_keys, cast(GroupLayer, layer).prompt_values
            cache.layers.append(kept)
        cache.batch_repeat_interleave(self.group_size)
        return cache

    def gathered(self, rows: Tensor) -> Tensor:
        """Rows (R, K, h, X) side by side with those of their group: (B, K, G·h, X), zero for responses that left."""
        _, heads, queries, width = rows.shape
        whole = self.prompts * self.group_size
        if len(self.slots) < whole:
            rows = rows.new_zeros(whole, heads, queries, width).index_copy_(0, self.slots, rows)
        rows = rows.unflatten(0, (self.prompts, self.group_size)).transpose(1, 2)
        return rows.reshape(self.prompts, heads, self.group_size * queries, width)

    def scattered(self, groups: Tensor) -> Tensor:
        """Inverse of `gathered`."""
        rows = groups.unflatten(2, (self.group_size, -1)).transpose(1, 2).flatten(0, 1)
        return rows if len(self.slots) == len(rows) else rows[self.slots]


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **others: Any
) -> tuple[Tensor, None]:
    """Attention of one new token a row to its prompt and its response, in the form that transformers asks for."""
    cache = _ACTIVE.get()
    cache.asked += 1
    beyond = [name for name in BEYOND if others.get(name) is not None]
    if beyond:
        cache.refusal = f"asks its attention for {beyond[0]}"
    layer = cast(GroupLayer, cache.layers[cast(int, module.layer_idx)])
    rows, heads, _one, width = query.shape
    # The query heads that share a key-value head are rows of one product.
    query = (query * scaling).view(rows, key.shape[1], heads // key.shape[1], width)
    own = query @ key.transpose(-1, -2)
    shared = cache.gathered(query) @ layer.prompt_keys.transpose(-1, -2)
    if cache.padding is not None:
        shared = shared.masked_fill(~cache.padding, float("-inf"))
    weight = (
        torch.cat([cache.scattered(shared), own], -1)
        .softmax(-1, dtype=torch.promote_types(value.dtype, torch.float32))
        .to(value.dtype)
    )
    shared, own = weight.split([shared.shape[-1], own.shape[-1]], -1)
    mixed = own @ value + cache.scattered(cache.gathered(shared) @ layer.prompt_values)
    return mixed.reshape(rows, 1, heads, -1), None


@contextmanager
def group_attention(model: PreTrainedModel, cache: GroupCache) -> Iterator[None]:
    """For the length of the block, the model attends to a `GroupCache`."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    token = _ACTIVE.set(cache)
    config._attn_implementation_internal = NAME
    cache.asked = 0
    try:
        yield
        if cache.asked != len(cache.layers):
            cache.refusal = f"asked for attention {cache.asked} times with {len(cache.layers)} layers"
    finally:
        config._attn_implementation_internal = before
        _ACTIVE.reset(token)


def sharing_obstacle(model: nn.Module, cache: Any) -> str | None:
    """Say why groups cannot share their prompts' cache: the end of a sentence that begins with the model's name.

    Args:
        model: A transformers or PEFT model.
        cache: What it made of the prompts.
    """
    reason = declared_obstacle(model)
    if reason is not None:
        return reason
    if not isinstance(cache, Cache):
        return f"keeps a cache of its own kind ({type(cache).__name__})"
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        kinds = ", ".join(sorted({type(layer).__name__ for layer in cache.layers} - {"DynamicLayer"}))
        return f"keeps its keys and values in another way ({kinds})"
    return None


AttentionInterface.register(NAME, attend)
