"""vLLM in the trainer's process draws from the policy that the trainer computes, whatever is trained."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from conftest import NEEDED

pytest.importorskip("vllm", reason=NEEDED)

from peft import LoraConfig, get_peft_model
from real_models import PROMPTS, SEEDS, build, colocated, engine_logp, gap, greedy, move, trainer_logp
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from magnetar.errors import RolloutError
from magnetar.modeling.roles import make_roles
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import VllmEngine

EXACT = 3e-4
"""Float32 on both sides, nats a token: kernels add in another order."""
NEARLY_GREEDY = SamplingParams(max_new_tokens=16, temperature=1e-4)
LORA = {
    "attention": LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    "all linear": LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    "head": LoraConfig(r=4, target_modules=["down_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"),
}


@pytest.fixture
def engines() -> Iterator[list[VllmEngine]]:
    started: list[VllmEngine] = []
    yield started
    for engine in started:
        engine.close()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("tied", [True, False])
def test_full_fine_tuning_is_followed(engines, kind, tied):
    model = build(kind, tied=tied)
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    for step in range(3):
        rollouts = engine.generate(model, PROMPTS, 3, SEEDS)
        assert gap(model, rollouts) < EXACT
        move(model, step)
        assert gap(model, rollouts) > 0.1, "the next policy is another one"
    assert engine.loads == 3


@pytest.mark.parametrize("tied", [True, False])
def test_greedy_responses_are_those_of_transformers_after_each_update(engines, tied):
    model = build(tied=tied)
    engine = colocated(NEARLY_GREEDY)
    engines.append(engine)
    seen = []
    for step in range(2):
        seen.append(engine.generate(model, PROMPTS, 1, SEEDS).response_ids)
        assert seen[-1] == greedy(model, 16)
        move(model, step)
    assert seen[0] != seen[1]


def test_without_a_sync_the_responses_are_those_of_other_weights(engines, monkeypatch):
    model = build(tied=True)
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    engine.generate(model, PROMPTS, 3, SEEDS)
    move(model, 1)
    ledger = type(vars(engine)["_ledger"])
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "outdated", lambda self, policy: ([], {}))
        assert gap(model, engine.generate(model, PROMPTS, 3, SEEDS)) > 0.1
    assert gap(model, engine.generate(model, PROMPTS, 3, SEEDS)) < EXACT


@pytest.mark.parametrize("name", LORA)
def test_an_adapter_and_its_roles_are_followed(engines, name):
    model = get_peft_model(build(), LORA[name]).eval()
    roles = make_roles(model)
    roles.add("magnet")
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    for step in range(2):
        move(model, step)
        drawn = {}
        for role in ("current", "magnet", "reference"):
            with roles.use(role) as policy:
                drawn[role] = engine.generate(policy, PROMPTS, 3, SEEDS)
                assert gap(policy, drawn[role]) < EXACT, (step, role)
        assert gap(model, drawn["current"]) < EXACT < 0.1 < gap(model, drawn["reference"])
        roles.move("magnet", "current")
        with roles.use("magnet") as magnet:
            assert gap(magnet, engine.generate(magnet, PROMPTS, 3, SEEDS)) < EXACT


def quantised(folder: Path) -> LlamaForCausalLM:
    """The tiny model in four bits, as QLoRA trains it."""
    build().save_pretrained(folder)
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    return LlamaForCausalLM.from_pretrained(folder, quantization_config=bits, dtype=torch.float32)


def test_qlora_draws_from_the_dequantised_base_with_its_adapter(engines, tmp_path):
    pytest.importorskip("bitsandbytes")
    base = quantised(tmp_path)
    model = get_peft_model(base, LORA["attention"]).eval()
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            cast(Any, module).support_avx512bf16_for_cpu = False  # compute in float32, so that the comparison is tight
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    for step in range(2):
        move(model, step, 0.2)
        rollouts = engine.generate(model, PROMPTS, 3, SEEDS)
        assert gap(model, rollouts) < EXACT
        unquantised = get_peft_model(build(), LORA["attention"]).eval()
        unquantised.load_state_dict({k: v for k, v in model.state_dict().items() if "lora_" in k}, strict=False)
        assert gap(unquantised, rollouts) > 0.1, "the base before quantisation is another policy"


def test_qlora_on_layers_that_bitsandbytes_repacked_for_the_cpu(engines, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    if not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so nothing is repacked")
    model = get_peft_model(quantised(tmp_path), LORA["attention"]).eval()
    move(model, 0, 0.2)
    with torch.no_grad():
        model(torch.tensor([PROMPTS[1]]))  # the first pass without gradients repacks
    base: Any = model.get_base_model()
    state = base.model.layers[0].mlp.up_proj.weight.quant_state
    assert state.packing_format_for_cpu
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    rollouts = engine.generate(model, PROMPTS, 3, SEEDS)
    # The layers round their inputs to bfloat16.
    assert float((trainer_logp(model, rollouts, 1.0) - engine_logp(rollouts)).abs().mean()) < 0.1


def test_half_precision_is_as_near_as_its_rounding(engines):
    model = build(dtype=torch.bfloat16)
    engine = colocated(SamplingParams(max_new_tokens=16), dtype="bfloat16")
    engines.append(engine)
    for step in range(2):
        rollouts = engine.generate(model, PROMPTS, 3, SEEDS)
        difference = (trainer_logp(model, rollouts, 1.0) - engine_logp(rollouts)).abs()
        assert float(difference.mean()) < 0.1
        move(model, step)
        assert float((trainer_logp(model, rollouts, 1.0) - engine_logp(rollouts)).abs().mean()) > 0.5


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(max_new_tokens=16, temperature=0.7),
        SamplingParams(max_new_tokens=16, temperature=2.0),
        SamplingParams(max_new_tokens=16, top_p=0.5),
        SamplingParams(max_new_tokens=16, top_k=3),
        SamplingParams(max_new_tokens=16, min_p=0.2),
    ],
)
def test_log_probabilities_are_at_the_temperature_and_before_truncation(engines, sampling):
    model = build()
    engine = colocated(sampling)
    engines.append(engine)
    rollouts = engine.generate(model, PROMPTS, 4, SEEDS)
    assert gap(model, rollouts, sampling.temperature) < EXACT
    # Were they after truncation, the tokens of a set of three would be far more probable.
    assert gap(model, rollouts, 0.5 * sampling.temperature) > 0.1


def test_responses_depend_on_their_prompt_and_seed_alone(engines):
    model = build()
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    together = engine.generate(model, PROMPTS, 4, SEEDS).response_ids
    assert engine.generate(model, PROMPTS[::-1], 4, SEEDS[::-1]).response_ids == together[::-1]
    assert engine.generate(model, PROMPTS[1:], 2, SEEDS[1:]).response_ids == [together[1][:2]]
    torch.manual_seed(99)
    assert engine.generate(model, PROMPTS, 4, SEEDS).response_ids == together
    other = engine.generate(model, PROMPTS, 4, [1, 2]).response_ids
    assert other != together and len({tuple(response) for response in together[0]}) == 4


def test_first_tokens_follow_the_softmax(engines):
    model, draws = build(), 4000
    engine = colocated(SamplingParams(max_new_tokens=1, temperature=2.0), max_num_seqs=256)
    engines.append(engine)
    groups = [engine.generate(model, [PROMPTS[1]], 500, [seed * 1000]).response_ids[0] for seed in range(draws // 500)]
    tokens = torch.tensor([response[0] for group in groups for response in group])
    with torch.no_grad():
        probability = (model(torch.tensor([PROMPTS[1]])).logits[0, -1] / 2.0).softmax(-1)
    share = torch.bincount(tokens, minlength=len(probability)) / draws
    deviation = (probability * (1 - probability) / draws).sqrt()
    assert ((share - probability).abs() < 5 * deviation + 2 / draws).all()
    assert 0.5 * (share - probability).abs().sum() < 0.2


def test_responses_end_where_the_policys_do(engines):
    model = build()
    ends = list(range(2, 40))
    model.generation_config.eos_token_id = ends
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    rollouts = engine.generate(model, PROMPTS, 16, SEEDS)
    responses = [response for group in rollouts.response_ids for response in group]
    assert rollouts.truncated_BG.flatten().tolist() == [response[-1] not in ends for response in responses]
    assert all(not set(ends) & set(response[:-1]) for response in responses)
    assert 0 < rollouts.truncated_BG.sum() < len(responses)
    assert gap(model, rollouts) < EXACT


def test_starting_leaves_the_trainers_random_numbers_and_threads_alone(engines):
    model = build()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    threads, setter = torch.get_num_threads(), torch.set_num_threads
    engine = colocated(SamplingParams(max_new_tokens=4))
    engines.append(engine)
    engine.generate(model, PROMPTS, 2, SEEDS)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads and torch.set_num_threads is setter


def test_after_weights_that_do_not_fit_vllm_starts_again(engines):
    model, other = build(), build()
    other.model.layers[1].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros(100, 128))
    engine = colocated(SamplingParams(max_new_tokens=16))
    engines.append(engine)
    engine.generate(model, PROMPTS, 3, SEEDS)
    with pytest.raises(RolloutError, match="vLLM cannot take the trainer's weights: "):
        engine.generate(other, PROMPTS, 3, SEEDS)
    assert gap(model, engine.generate(model, PROMPTS, 3, SEEDS)) < EXACT


def test_workers_in_processes_of_their_own_are_given_the_weights_through_files(tmp_path):
    script = tmp_path / "two_workers.py"
    script.write_text(TWO_WORKERS)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{here.parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, env=environment)
    assert "AGREES" in done.stdout, done.stderr[-3000:]


TWO_WORKERS = """
from magnetar.rollout import SamplingParams
from real_models import PROMPTS, SEEDS, build, colocated, gap, move

if __name__ == "__main__":
    model = build()
    engine = colocated(SamplingParams(max_new_tokens=16), tensor_parallel_size=2)
    for step in range(2):
        assert gap(model, engine.generate(model, PROMPTS, 3, SEEDS)) < 2e-4, step
        move(model, step)
    engine.close()
    print("AGREES", flush=True)
"""
