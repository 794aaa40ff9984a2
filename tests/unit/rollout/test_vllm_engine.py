"""The vLLM engine plays the policy it is asked for, and says clearly what it cannot do."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from magnetar.errors import ConfigError, MissingDependencyError, RolloutError
from magnetar.modeling.roles import make_roles
from magnetar.rollout import SamplingParams, TransformersEngine
from magnetar.rollout.vllm import ColocatedSettings, VllmEngine, logprobs_mode, server_command, vllm_engine
from magnetar.rollout.vllm.colocated import _options
from vllm_reference import PlainDecoder, ReferenceBackend

PROMPTS = [[5, 6, 7, 8], [3, 4, 9]]
SEEDS = [11, 2**62 + 12]
SAMPLING = SamplingParams(max_new_tokens=8)


def make(model: Any, sampling: SamplingParams = SAMPLING, **facts: Any) -> tuple[VllmEngine, ReferenceBackend]:
    backend = ReferenceBackend(model.config, **facts)
    return VllmEngine(PlainDecoder(2), sampling, lambda base: backend), backend


def direct(model: Any, sampling: SamplingParams = SAMPLING) -> list[list[list[int]]]:
    """What the policy itself draws with these seeds."""
    engine = TransformersEngine(PlainDecoder(2), sampling)
    return engine.generate(model, PROMPTS, 3, [11, 12]).response_ids


def test_it_plays_the_policy_as_it_is_now(tiny):
    model = tiny("llama")
    engine, backend = make(model)
    for step in range(3):
        rollouts = engine.generate(model, PROMPTS, 3, SEEDS)
        assert rollouts.response_ids == direct(model), step
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        assert rollouts.response_ids != direct(model)
    assert engine.loads == len(backend.sent) == 3 and backend.whole == [True] * 3


def test_weights_are_sent_once_while_the_policy_stays(tiny):
    model = tiny("llama")
    engine, backend = make(model)
    first, second = (engine.generate(model, PROMPTS, 3, SEEDS) for _ in range(2))
    assert first.response_ids == second.response_ids and len(backend.sent) == 1


def test_every_role_plays_its_own_weights(tiny):
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    roles = make_roles(model)
    roles.add("magnet")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.default" in name:
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    engine, backend = make(model.get_base_model())
    drawn = {}
    for role in ("current", "reference", "current", "magnet"):
        with roles.use(role) as played:
            drawn[role] = engine.generate(played, PROMPTS, 3, SEEDS).response_ids
            assert drawn[role] == direct(played)
    assert drawn["current"] != drawn["reference"] == drawn["magnet"]
    assert backend.whole == [True, False, False, False]
    assert all(all(".self_attn." in name for name in names) for names in backend.sent[1:])


def test_after_a_failed_load_everything_is_sent_again(tiny):
    model = tiny("llama")
    engine, backend = make(model)
    engine.generate(model, PROMPTS, 3, SEEDS)
    with torch.no_grad():
        model.lm_head.weight.neg_()
    backend.fail = "load"
    with pytest.raises(RolloutError, match="load failed"):
        engine.generate(model, PROMPTS, 3, SEEDS)
    assert engine.generate(model, PROMPTS, 3, SEEDS).response_ids == direct(model)
    assert backend.whole == [True, True]


@pytest.mark.parametrize("event", ["restarted", "used by another run", "slept"])
def test_an_engine_that_no_longer_holds_the_weights_is_given_all_again(tiny, event):
    model = tiny("llama")
    engine, backend = make(model)
    engine.generate(model, PROMPTS, 3, SEEDS)
    if event == "slept":
        backend.loses_weights = True
    else:
        backend.stamp = None if event == "restarted" else "another:7"
        with torch.no_grad():
            backend.model.lm_head.weight.neg_()
    assert engine.generate(model, PROMPTS, 3, SEEDS).response_ids == direct(model)
    assert backend.whole == [True, True]


def test_responses_end_at_the_policys_end_tokens_and_truncation_is_told(tiny):
    model = tiny("llama")
    sampling = SamplingParams(max_new_tokens=20)
    model.generation_config.eos_token_id = [2, 9, 10, 11, 12]
    engine, _ = make(model, sampling)
    rollouts = engine.generate(model, PROMPTS, 8, SEEDS)
    ends = set(model.generation_config.eos_token_id)
    responses = [response for group in rollouts.response_ids for response in group]
    assert rollouts.truncated_BG.flatten().tolist() == [response[-1] not in ends for response in responses]
    assert 0 < rollouts.truncated_BG.sum() < len(responses)
    assert all(not ends & set(response[:-1]) for response in responses)


def test_mixed_precision_of_the_trainer_does_not_reach_it(tiny):
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    base: Any = model.get_base_model()
    engine, backend = make(base)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        engine.generate(model, PROMPTS, 3, SEEDS)
    layer = base.model.layers[0].self_attn.q_proj
    held = backend.model.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(held, layer.base_layer.weight + layer.get_delta_weight("default"))


def test_an_engine_that_was_closed_starts_again(tiny):
    model = tiny("llama")
    started: list[ReferenceBackend] = []

    def start(base: Any) -> ReferenceBackend:
        started.append(ReferenceBackend(base.config))
        return started[-1]

    engine = VllmEngine(PlainDecoder(2), SAMPLING, start)
    first = engine.generate(model, PROMPTS, 3, SEEDS)
    engine.close()
    assert engine.generate(model, PROMPTS, 3, SEEDS).response_ids == first.response_ids
    assert len(started) == 2


@pytest.mark.parametrize(
    ("sampling", "mode"),
    [
        (SamplingParams(temperature=0.7), "processed_logprobs"),
        (SamplingParams(), "processed_logprobs"),
        (SamplingParams(top_p=0.9), "raw_logprobs"),
        (SamplingParams(top_k=5), "raw_logprobs"),
        (SamplingParams(min_p=0.1), "raw_logprobs"),
    ],
)
def test_log_probabilities_are_asked_for_at_the_temperature_before_truncation(sampling, mode):
    assert logprobs_mode(sampling) == mode


def test_a_temperature_with_a_truncation_is_refused():
    with pytest.raises(ConfigError, match=r"temperature is 0.7 and top_p is 0.9.*set temperature=1, or top_p=1"):
        logprobs_mode(SamplingParams(temperature=0.7, top_p=0.9))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"vocab_size": 99}, r"vocab_size 99, but the trained model has 41; start it with the model"),
        ({"model_type": "qwen2"}, r"model_type 'qwen2', but the trained model has 'llama'"),
        ({"intermediate_size": 100}, r"intermediate_size 100, but the trained model has 48"),
        ({"num_hidden_layers": 7}, r"num_hidden_layers 7, but the trained model has 2"),
        ({"logprobs_mode": "raw_logits"}, r"returns raw_logits, but this sampling needs processed_logprobs; start it"),
        ({"max_model_len": 8}, r"takes 8 tokens, which leaves no room for a prompt before 8 response tokens"),
    ],
)
def test_an_engine_of_another_model_or_kind_is_refused_at_once(tiny, facts, message):
    model = tiny("llama")
    engine, backend = make(model, **facts)
    with pytest.raises(ConfigError, match=message):
        engine.start(model)
    assert backend.sent == []


def test_a_prompt_without_room_for_a_response_is_told_at_the_start(tiny):
    model = tiny("llama")
    engine, backend = make(model, max_model_len=20)
    with pytest.raises(ConfigError, match=r"takes 20 tokens, but the longest prompt has 13 and a response up to 8"):
        engine.start(model, 13)
    engine, backend = make(model, max_model_len=20)
    engine.start(model, 12)
    assert backend.sent == []


def test_without_temperature_and_truncation_either_kind_of_log_probabilities_will_do(tiny):
    model = tiny("llama")
    make(model, logprobs_mode="raw_logprobs")[0].start(model)
    with pytest.raises(ConfigError, match="needs processed_logprobs"):
        make(model, SamplingParams(8, temperature=0.5), logprobs_mode="raw_logprobs")[0].start(model)


def test_prompts_that_leave_no_room_are_told(tiny):
    model = tiny("llama")
    engine, _ = make(model)
    with pytest.raises(RolloutError, match=r"prompt 1 has 57 tokens, and vLLM has room for 56 before the response"):
        engine.generate(model, [[3], [3] * 57], 2, SEEDS)
    with pytest.raises(ValueError, match="prompt 0 has no tokens"):
        engine.generate(model, [[], [3]], 2, SEEDS)
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        engine.generate(model, PROMPTS, 2, [1])


def test_a_missing_vllm_is_told_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'needs the package vllm.*pip install "magnetar\[vllm\]"'):
        vllm_engine(PlainDecoder(), SAMPLING, ColocatedSettings(64, "float32"))


def test_the_servers_command_names_all_that_it_must_be_started_with():
    command = server_command("some/model", logprobs_mode="raw_logprobs")
    for part in ("VLLM_SERVER_DEV_MODE=1", "--model some/model", "--logprobs-mode raw_logprobs", "worker.WeightSync"):
        assert part in command


def test_a_colocated_engines_configuration_has_no_quantisation(tiny):
    from magnetar.rollout.vllm.colocated import plain_config

    model = tiny("llama")
    model.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    model.config.architectures = None
    plain = plain_config(model).to_dict()
    assert "quantization_config" not in plain and plain["architectures"] == ["LlamaForCausalLM"]
    assert model.config.quantization_config["load_in_4bit"]


def test_blocks_of_the_cache_are_small_on_the_cpu_unless_told_otherwise(monkeypatch):
    settings = ColocatedSettings(128, "float32")
    for has_gpu, expected in ((False, {"block_size": 32}), (True, {})):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        given = _options(settings, "processed_logprobs")
        assert {name: value for name, value in given.items() if name == "block_size"} == expected
        assert _options(replace(settings, block_size=64), "processed_logprobs")["block_size"] == 64


def test_a_process_without_prompts_takes_part_and_gets_nothing(tiny):
    model = tiny("llama")
    engine, backend = make(model)
    drawn = engine.generate(model, [], 3, [])
    assert drawn.truncated_BG.shape == (0, 3) and drawn.texts == [] and len(backend.sent) == 1
