"""The arithmetic of sizes against models that transformers and PEFT build."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from magnetar.modeling import vocabulary
from magnetar.modeling.sizing import Device, Job, ModelShape, measured_constants, memory, seconds

ROOT = Path(__file__).parents[3]
PUBLISHED = {
    # Billions of weights, from the models' own cards.
    "SmolLM2 135M": 0.135,
    "Qwen2.5 0.5B": 0.49,
    "Llama 3.2 1B": 1.23,
    "Llama 3.2 3B": 3.21,
    "Llama 3.1 8B": 8.0,
    "Qwen2.5 14B": 14.7,
    "Qwen2.5 32B": 32.5,
    "Llama 3.1 70B": 70.6,
}
CONFIGS = [
    LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, vocab_size=50),
    Qwen2Config(
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=70,
        tie_word_embeddings=True,
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["llama", "qwen2"])
def test_parameters_are_those_of_the_model_that_transformers_builds(config: Any) -> None:
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.from_config(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(model, LoraConfig(r=5, target_modules="all-linear"))
    assert shape.adapter_parameters(5) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)


def test_shapes_of_the_page_have_the_published_numbers_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from sizing_page import SHAPES  # pyright: ignore[reportMissingImports]

    assert SHAPES.keys() == PUBLISHED.keys()
    for name, shape in SHAPES.items():
        assert shape.parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.02), name


def test_the_page_is_what_its_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from sizing_page import PAGE, render  # pyright: ignore[reportMissingImports]

    checks = json.loads((ROOT / "benchmarks" / "results" / "sizing.json").read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == render(checks), "python benchmarks/sizing.py --page"
    from sizing import job_of  # pyright: ignore[reportMissingImports]

    for row in checks:
        predicted = memory(job_of(row["run"], ModelShape(**row["shape"]))).peak
        assert predicted == pytest.approx(row["measured"], rel=0.2), row["run"]


def test_memory_is_the_sum_of_what_each_weight_costs() -> None:
    shape = ModelShape.from_config(CONFIGS[0])
    p = shape.parameters
    full = memory(Job(shape, frozen_roles=2, trained_bytes=4)).lasting
    # A trained weight: itself and two averages; two copies beside it.
    assert sum(full.values()) - full["process"] == 4 * p * (1 + 2 + 2)
    several = memory(Job(shape, frozen_roles=2, trained_bytes=4, tokens_per_pass=1)).update
    assert several["gradients"] == 4 * p
    one = memory(Job(shape, frozen_roles=2, trained_bytes=4, tokens_per_pass=10**6)).update
    assert one["weights in passes' precision"] == 2 * p
    others = sum(value for name, value in one.items() if name != "gradients")
    assert sum(one.values()) == pytest.approx(max(4 * p, others))
    sharded = memory(Job(shape, frozen_roles=2, trained_bytes=4, devices=8, sharded=True))
    lasting = sum(sharded.lasting.values()) - sharded.lasting["process"]
    assert lasting == pytest.approx(4 * p * 5 / 8)
    assert sharded.rollout["gathered weights"] == 2 * p
    adapters = memory(Job(shape, lora_rank=4, frozen_roles=1, weight_bytes=2)).lasting
    a = shape.adapter_parameters(4)
    assert sum(adapters.values()) - adapters["process"] == 2 * p + 4 * a * (1 + 2 + 1)


def test_more_of_anything_never_takes_less() -> None:
    shape = ModelShape.from_config(CONFIGS[1])
    device = Device("any", 1e9, 1e12, 1e11, 1e10, 1e9)
    least = Job(shape, prompts=2, group_size=2, prompt_tokens=8, response_tokens=8)
    more = (
        {"prompts": 4},
        {"group_size": 4},
        {"prompt_tokens": 32},
        {"response_tokens": 32},
        {"frozen_roles": 3},
    )
    for change in more:
        job = Job(**{**vars(least), **change})
        assert memory(job).peak >= memory(least).peak, change
        assert seconds(job, device, frozen_passes=2).total >= seconds(least, device, frozen_passes=2).total, change
    again = Job(**{**vars(least), "checkpointing": True})
    assert memory(again).update["activations"] < memory(least).update["activations"]
    assert seconds(again, device, frozen_passes=0).update > seconds(least, device, frozen_passes=0).update


def test_a_pass_holds_no_more_logits_than_a_chunk_however_long_the_responses() -> None:
    shape = ModelShape.from_config(CONFIGS[0])
    constants = measured_constants()
    short = Job(shape, prompts=1, group_size=4, response_tokens=500, chunk_logits=1000, tokens_per_pass=1, lora_rank=4)
    long = replace(short, response_tokens=1500)
    states = 2 * 4 * shape.hidden  # one slope a token, two bytes each
    assert memory(long).update["vocabulary"] - memory(short).update["vocabulary"] == pytest.approx(1000 * states)
    chunk = 4 * constants.chunk_copies * 1000
    assert memory(short).update["vocabulary"] == pytest.approx(chunk + 500 * states)
    whole = replace(short, chunk_logits=None)
    assert memory(whole).update["vocabulary"] == 4 * constants.vocabulary_copies * 4 * 500 * shape.vocabulary
    few = replace(short, group_size=1, response_tokens=1)  # fewer logits than a chunk
    assert memory(few).update["vocabulary"] == pytest.approx(4 * constants.chunk_copies * 50 + 2 * shape.hidden)
    learns = replace(short, lora_rank=None)
    head = 4 * constants.head_gradient_copies * shape.vocabulary * shape.hidden
    assert memory(learns).update["vocabulary"] == pytest.approx(chunk + 2 * 500 * states + head)


def test_chunks_are_those_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from sizing import CPU_CHUNK  # pyright: ignore[reportMissingImports]

    assert Job.chunk_logits == vocabulary.CHUNK_LOGITS_ELSEWHERE
    assert vocabulary.CHUNK_LOGITS["cpu"] == CPU_CHUNK


def test_a_critic_costs_what_it_trains_and_in_shards_a_base_of_its_own() -> None:
    shape = ModelShape.from_config(CONFIGS[0])
    p, a = shape.parameters, shape.adapter_parameters(4)
    full = Job(shape, critic=True, devices=8)
    assert memory(full).lasting["critic"] == 16 * p
    assert memory(replace(full, sharded=True)).lasting["critic"] == 16 * p / 8
    adapters = replace(full, lora_rank=4)
    assert memory(adapters).lasting["critic"] == 16 * a, "the frozen base is the policy's"
    assert memory(replace(adapters, sharded=True)).lasting["critic"] == (16 * a + 2 * p) / 8
    without = replace(full, critic=False)
    assert memory(full).update["activations"] == 2 * memory(without).update["activations"]


def test_exact_divergences_gather_the_output_layers_of_frozen_copies() -> None:
    shape = ModelShape.from_config(CONFIGS[1])
    sampled = Job(shape, devices=8, sharded=True)
    head = 2 * shape.vocabulary * shape.hidden

    def gathered(job: Job) -> float:
        return memory(job).update["gathered weights"]

    assert gathered(replace(sampled, exact_kl=2)) == gathered(sampled) + 2 * head
    assert gathered(replace(sampled, exact_kl=2, lora_rank=4)) == gathered(sampled), "adapters share that of the base"
