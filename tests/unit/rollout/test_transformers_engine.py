"""The engine draws what the policy says, whatever else is in the batch, and leaves the model as it was."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from magnetar.errors import ConfigError, ModelError
from magnetar.rollout.base import Rollouts, SamplingParams
from magnetar.rollout.transformers_engine import TransformersEngine

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS = ["llama", "qwen2", "gemma2", "gemma3"]
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12], [3], [40, 21, 22], [17, 18, 19, 20]]
SEEDS = [11, 12, 13, 14]


def direct_logp(model, prompt: list[int], response: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].float()
    return (logits / temperature).log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_at_a_low_temperature_responses_are_those_of_greedy_generate(tiny, tokenizer, kind):
    model = tiny(kind)
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=16, temperature=1e-4))
    rollouts = engine.generate(model, PROMPTS, 2, SEEDS)
    for prompt, group in zip(PROMPTS, rollouts.response_ids, strict=True):
        plain = model.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)
        assert group == [plain[0, len(prompt) :].tolist()] * 2


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_a_direct_pass(tiny, tokenizer, kind):
    model = tiny(kind)
    sampling = SamplingParams(max_new_tokens=12, temperature=4.0, top_k=30)
    engine = TransformersEngine(tokenizer, sampling, eos_token_ids=range(6))
    rollouts = engine.generate(model, PROMPTS, 5, SEEDS)
    lengths = {len(response) for group in rollouts.response_ids for response in group}
    assert len(lengths) > 1, "some response must end early, so that rows leave the batch"
    for b, prompt in enumerate(PROMPTS):
        for response, logp in zip(rollouts.response_ids[b], rollouts.sampling_logp[b], strict=True):
            expected = direct_logp(model, prompt, response, 4.0)
            torch.testing.assert_close(torch.tensor(logp), expected, atol=1e-4, rtol=0)


def test_first_and_second_tokens_follow_the_softmax(tiny, tokenizer):
    model, draws = tiny("llama"), 4000
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=2, temperature=2.0), eos_token_ids=[])
    group = engine.generate(model, [PROMPTS[2]], draws, [3]).response_ids[0]
    first = torch.bincount(torch.tensor(group)[:, 0], minlength=41) / draws
    second = torch.bincount(torch.tensor(group)[:, 1], minlength=41) / draws
    with torch.no_grad():
        probability = (model(torch.tensor([PROMPTS[2]])).logits[0, -1] / 2.0).softmax(-1)
        continued = torch.tensor([[*PROMPTS[2], token] for token in range(41)])
        second_probability = probability @ (model(continued).logits[:, -1] / 2.0).softmax(-1)
    for observed, expected in ((first, probability), (second, second_probability)):
        standard_error = (expected * (1 - expected) / draws).sqrt()
        assert ((observed - expected).abs() <= 4 * standard_error + 1e-6).all()
        assert (expected > 0.01).sum() > 5


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_tokens_do_not_depend_on_what_else_is_in_the_batch(tiny, tokenizer, kind):
    model = tiny(kind)
    sampling = SamplingParams(max_new_tokens=10)
    engine = TransformersEngine(tokenizer, sampling)
    together = engine.generate(model, PROMPTS, 4, SEEDS)
    torch.manual_seed(99)
    for b, prompt in enumerate(PROMPTS):
        alone = engine.generate(model, [prompt], 4, [SEEDS[b]])
        assert alone.response_ids == [together.response_ids[b]]
        smaller = engine.generate(model, [prompt], 2, [SEEDS[b]])
        assert smaller.response_ids == [together.response_ids[b][:2]]
    backwards = engine.generate(model, PROMPTS[::-1], 4, SEEDS[::-1])
    assert backwards.response_ids == together.response_ids[::-1]
    for limit in (1, 8, 9):
        parts = TransformersEngine(tokenizer, sampling, max_batch_responses=limit).generate(model, PROMPTS, 4, SEEDS)
        assert parts.response_ids == together.response_ids
        assert (parts.truncated_BG == together.truncated_BG).all()
    other = engine.generate(model, PROMPTS, 4, [seed + 100 for seed in SEEDS])
    assert other.response_ids != together.response_ids
    assert len({tuple(response) for response in together.response_ids[0]}) > 1


def test_the_global_random_state_is_left_alone(tiny, tokenizer):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    TransformersEngine(tokenizer, SamplingParams(max_new_tokens=3)).generate(tiny("llama"), PROMPTS, 2, SEEDS)
    assert torch.equal(torch.rand(3), expected)


def check_ends(rollouts: Rollouts, ends: set[int], limit: int) -> None:
    for b, group in enumerate(rollouts.response_ids):
        for g, response in enumerate(group):
            assert not ends & set(response[:-1])
            assert rollouts.truncated_BG[b, g] == (response[-1] not in ends)
            assert len(response) == limit or response[-1] in ends
            assert len(rollouts.sampling_logp[b][g]) == len(response)


def test_every_end_token_of_the_generation_config_ends_a_response(tiny, tokenizer):
    model, ends = tiny("llama"), set(range(2, 10))
    model.generation_config.eos_token_id = sorted(ends)
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=6))
    rollouts = engine.generate(model, PROMPTS, 8, SEEDS)
    check_ends(rollouts, ends, 6)
    assert 0 < rollouts.truncated_BG.sum() < rollouts.truncated_BG.size
    assert rollouts.weight_BG is None
    produced = {response[-1] for group in rollouts.response_ids for response in group} & ends
    assert len(produced) > 2

    model.generation_config.eos_token_id = None
    check_ends(engine.generate(model, PROMPTS, 8, SEEDS), {2}, 6)
    chosen = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=6), eos_token_ids=[5, 30])
    check_ends(chosen.generate(model, PROMPTS, 8, SEEDS), {5, 30}, 6)


def test_a_response_that_ends_on_its_last_allowed_token_is_not_truncated(tiny, tokenizer):
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=1), eos_token_ids=range(41))
    assert not engine.generate(tiny("llama"), PROMPTS, 3, SEEDS).truncated_BG.any()
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=1), eos_token_ids=[])
    assert engine.generate(tiny("llama"), PROMPTS, 3, SEEDS).truncated_BG.all()


def test_texts_leave_special_tokens_out(tiny, tokenizer):
    model = tiny("llama")
    model.generation_config.eos_token_id = 2
    rollouts = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=40)).generate(model, PROMPTS, 8, SEEDS)
    assert not rollouts.truncated_BG.all()
    for group, texts in zip(rollouts.response_ids, rollouts.texts, strict=True):
        assert texts == [" ".join(str(token) for token in response if token != 2) for response in group]


def count_tokens(model) -> list[tuple[int, int]]:
    shapes = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    return shapes


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_encoded_once_for_its_group(tiny, tokenizer, kind):
    model = tiny(kind)
    shapes = count_tokens(model)
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=5), eos_token_ids=[])
    engine.generate(model, PROMPTS, 6, SEEDS)
    assert shapes == [(4, 8)] + [(24, 1)] * 4


def test_ended_responses_are_no_longer_fed(tiny, tokenizer):
    model = tiny("llama")
    shapes = count_tokens(model)
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=30), eos_token_ids=range(10))
    rollouts = engine.generate(model, PROMPTS, 8, SEEDS)
    rows = [shape[0] for shape in shapes[1:]]
    longest = max(len(response) for group in rollouts.response_ids for response in group)
    assert len(rows) == longest - 1 < 29
    assert rows == sorted(rows, reverse=True) and rows[-1] < rows[0] / 2


def test_a_cache_that_cannot_be_repeated_is_announced_once_and_gives_the_same(tiny, tokenizer, caplog, monkeypatch):
    model = tiny("llama")
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=8))
    expected = engine.generate(model, PROMPTS, 3, SEEDS)

    def absent(_):
        raise AttributeError

    class PlainLayer(DynamicLayer):
        """A layer without the methods that repeat and drop rows."""

        batch_repeat_interleave = property(absent)  # pyright: ignore[reportAssignmentType]
        batch_select_indices = property(absent)  # pyright: ignore[reportAssignmentType]

    class PlainCache(DynamicCache):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.layers = [PlainLayer() for _ in self.layers]

    monkeypatch.setattr("transformers.models.llama.modeling_llama.DynamicCache", PlainCache)
    shapes = count_tokens(model)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert engine.generate(model, PROMPTS, 3, SEEDS).response_ids == expected.response_ids
    assert (12, 8) in shapes
    assert [record.message for record in caplog.records if "PlainCache" in record.message] == [
        "LlamaForCausalLM keeps a cache (PlainCache) whose rows cannot be repeated: every prompt is encoded once for "
        "each of its responses, which takes longer"
    ]


def test_the_model_is_left_as_it_was(tiny, tokenizer):
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.5))
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=6))
    model.eval()
    expected = engine.generate(model, PROMPTS, 2, SEEDS)
    model.train()
    model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    model.config.use_cache = False
    list(model.modules())[-1].eval()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    assert engine.generate(model, PROMPTS, 2, SEEDS).response_ids == expected.response_ids
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert model.config.use_cache is False and model.is_activation_checkpointing
    with pytest.raises(KeyError):
        model.register_forward_pre_hook(lambda *_: {}["stop"])
        engine.generate(model, PROMPTS, 2, SEEDS)
    assert [module.training for module in model.modules()] == modes


def test_an_adapter_changes_what_is_drawn(tiny, tokenizer):
    model = get_peft_model(tiny("llama"), LoraConfig(r=4, target_modules="all-linear"))
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=6))
    before = engine.generate(model, PROMPTS, 2, SEEDS)
    assert before.response_ids == engine.generate(tiny("llama"), PROMPTS, 2, SEEDS).response_ids
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    after = engine.generate(model, PROMPTS, 2, SEEDS)
    assert after.response_ids != before.response_ids
    expected = direct_logp(model, PROMPTS[0], after.response_ids[0][0], 1.0)
    torch.testing.assert_close(torch.tensor(after.sampling_logp[0][0]), expected, atol=1e-4, rtol=0)


def test_half_precision_works(tiny, tokenizer):
    model = tiny("llama", torch.bfloat16)
    rollouts = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=6)).generate(model, PROMPTS, 2, SEEDS)
    for b, prompt in enumerate(PROMPTS):
        expected = direct_logp(model, prompt, rollouts.response_ids[b][0], 1.0)
        torch.testing.assert_close(torch.tensor(rollouts.sampling_logp[b][0]), expected, atol=0.15, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_what_the_cpu_draws(tiny, tokenizer):
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=8))
    expected = engine.generate(tiny("llama"), PROMPTS, 3, SEEDS)
    assert engine.generate(tiny("llama").to("cuda"), PROMPTS, 3, SEEDS).response_ids == expected.response_ids


def test_misuse_is_refused(tiny, tokenizer):
    engine, model = TransformersEngine(tokenizer, SamplingParams()), tiny("llama")
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        engine.generate(model, [[3], [4]], 2, [1])
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        engine.generate(model, [[3], []], 2, [1, 2])
    with pytest.raises(ValueError, match="group_size = 0"):
        engine.generate(model, [[3]], 0, [1])
    with pytest.raises(ConfigError, match="max_batch_responses = 0"):
        TransformersEngine(tokenizer, SamplingParams(), max_batch_responses=0)
    with pytest.raises(ModelError, match="takes no past_key_values"):
        engine.generate(torch.nn.Linear(2, 2), [[3]], 2, [1])
