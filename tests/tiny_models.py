"""Tiny random models of the architectures that the library promises to handle."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

SIZES: dict[str, Any] = {
    "vocab_size": 97,
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
SLIDING = ["sliding_attention", "full_attention"]
GEMMA: dict[str, Any] = {"head_dim": 8, "sliding_window": 5, "layer_types": SLIDING, "query_pre_attn_scalar": 8}
CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": LlamaConfig,
    # One window for all layers, without a list of layer types.
    "mistral": lambda **sizes: MistralConfig(**sizes, sliding_window=5),
    "qwen2": lambda **sizes: Qwen2Config(**sizes, use_sliding_window=True, sliding_window=5, layer_types=SLIDING),
    "qwen3": lambda **sizes: Qwen3Config(**sizes, head_dim=8),
    "gemma2": lambda **sizes: Gemma2Config(**sizes, **GEMMA, final_logit_softcapping=3.0),
    "gemma3": lambda **sizes: Gemma3TextConfig(**sizes, **GEMMA),
}


def build(
    kind: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32, vocabulary: int = SIZES["vocab_size"]
) -> PreTrainedModel:
    """A random model of one architecture, the same on every call."""
    config = CONFIGS[kind](**SIZES | {"vocab_size": vocabulary})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.eval()
