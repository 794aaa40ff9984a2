"""Tiny random models and a tokenizer that writes token numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Far from zero, so that attention is uneven and a wrong mask or position shows.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING: dict[str, Any] = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
GEMMA: dict[str, Any] = {"head_dim": 8, "query_pre_attn_scalar": 8}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES, **SLIDING, use_sliding_window=True),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=8),
    "gemma2": lambda: Gemma2Config(**SIZES, **SLIDING, **GEMMA, final_logit_softcapping=3.0),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, **SLIDING, **GEMMA),
}


def build(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of one architecture, the same on every call."""
    attention = "eager" if kind == "gemma2" else "sdpa"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation=attention, dtype=dtype)
    return model.eval()


class NumberTokenizer:
    """Decodes token 7 as "7"; token 2 ends a response and is special."""

    eos_token_id = 2

    def batch_decode(self, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool = False) -> list[str]:
        """Turn tokens into texts."""
        return [" ".join(str(t) for t in row if not (skip_special_tokens and t == 2)) for row in sequences]


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """`tiny(kind, dtype)` builds a tiny model."""
    return build


@pytest.fixture
def tokenizer() -> NumberTokenizer:
    """A tokenizer without files."""
    return NumberTokenizer()
