"""Small random models that vLLM runs on the CPU, and what the trainer itself says of an engine's responses."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config

from magnetar.modeling.logprobs import response_logprobs
from magnetar.rollout import Rollouts, SamplingParams
from magnetar.rollout.vllm import ColocatedSettings, VllmEngine, vllm_engine
from vllm_reference import PlainDecoder

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
KINDS = {"llama": LlamaConfig, "qwen2": Qwen2Config}
# The first is longer than a block of vLLM's prefix cache, which must not outlive the weights.
PROMPTS = [[5 + i % 300 for i in range(200)], [7, 8, 9]]
SEEDS = [5, 2**62 + 6]


def build(kind: str = "llama", *, tied: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = KINDS[kind](**SIZES, tie_word_embeddings=tied)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def move(model: nn.Module, seed: int, size: float = 0.1) -> None:
    """Change every trained weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter) * size)


def colocated(sampling: SamplingParams, **settings: Any) -> VllmEngine:
    """vLLM in this process, in float32 unless told otherwise."""
    given = {"max_model_len": 512, "dtype": "float32", "enforce_eager": True, "gpu_memory_utilization": 0.1} | settings
    return vllm_engine(PlainDecoder(2), sampling, ColocatedSettings(**given))


@torch.no_grad()
def trainer_logp(model: nn.Module, rollouts: Rollouts, temperature: float) -> torch.Tensor:
    """Log-probabilities of an engine's responses by the trainer's own pass, shape (B, G, T)."""
    out = response_logprobs(
        model, rollouts.prompt_ids, rollouts.response_ids, temperature=temperature, layout="padded", pad_token_id=0
    )
    return out.logp_BGT * out.mask_BGT


def engine_logp(rollouts: Rollouts) -> torch.Tensor:
    """Those that the engine returned, shape (B, G, T)."""
    longest = max(len(values) for group in rollouts.sampling_logp for values in group)
    rows = [[values + [0.0] * (longest - len(values)) for values in group] for group in rollouts.sampling_logp]
    return torch.tensor(rows)


def gap(model: nn.Module, rollouts: Rollouts, temperature: float = 1.0) -> float:
    """Largest difference of a token's log-probability between engine and trainer, nats."""
    return float((trainer_logp(model, rollouts, temperature) - engine_logp(rollouts)).abs().max())


def greedy(model: nn.Module, length: int) -> list[list[list[int]]]:
    """The policy's most likely continuations, by transformers' own generation."""
    inner: Any = model
    return [
        [inner.generate(torch.tensor([prompt]), max_new_tokens=length, do_sample=False)[0, len(prompt) :].tolist()]
        for prompt in PROMPTS
    ]
