"""Packed, padded and one-by-one passes agree in values and gradients, for every promised architecture."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.distributions import Categorical, kl_divergence
from torch.nn.parallel import DistributedDataParallel
from transformers import MambaConfig, MambaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from magnetar.errors import ModelError
from magnetar.modeling import packing
from magnetar.modeling.logprobs import TokenLogProbs, exact_kl, packing_support, response_logprobs

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3"]
# Transformers gives Gemma 2 no sdpa attention, because of its soft-capped attention scores.
KINDS_AND_ATTENTION = [(kind, a) for kind in KINDS for a in ("sdpa", "eager") if (kind, a) != ("gemma2", "sdpa")]
TEMPERATURE = 0.7


def tokens(generator: torch.Generator, count: int) -> list[int]:
    return torch.randint(3, 97, (count,), generator=generator).tolist()


def make_batch() -> tuple[list[list[int]], list[list[list[int]]]]:
    """Groups of different prompt and response lengths, one-token responses, windows of 5 exceeded."""
    generator = torch.Generator().manual_seed(5)
    prompts = [tokens(generator, n) for n in (9, 1, 4)]
    responses = [[tokens(generator, n) for n in group] for group in ((7, 1, 12), (1, 2, 6), (3, 1, 1))]
    return prompts, responses


PROMPTS, RESPONSES = make_batch()


def one_by_one(model: PreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """log softmax at the response tokens from one plain forward pass for each response; (N,) and (N, V)."""
    logp, full = [], []
    for prompt, group in zip(PROMPTS, RESPONSES, strict=True):
        for response in group:
            ids = torch.tensor([[*prompt, *response]])
            rows = (model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float() / TEMPERATURE).log_softmax(-1)
            full.append(rows)
            logp.append(rows.gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1))
    return torch.cat(logp), torch.cat(full)


def measure(model, layout, full=False) -> TokenLogProbs:
    return response_logprobs(
        model, PROMPTS, RESPONSES, temperature=TEMPERATURE, layout=layout, full=full, pad_token_id=0
    )


def gradients(model, logp_n: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (logp_n * torch.linspace(-1, 1, len(logp_n))).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "attention"), KINDS_AND_ATTENTION)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_packed_and_padded_equal_one_by_one(tiny, kind, attention, layout):
    model = tiny(kind, attention)
    expected_logp, expected_full = one_by_one(model)
    expected_gradients = gradients(model, expected_logp)
    result = measure(model, layout)
    logp_n = result.logp_BGT[result.mask_BGT]
    torch.testing.assert_close(logp_n, expected_logp, atol=1e-4, rtol=0)
    assert (result.logp_BGT[~result.mask_BGT] == 0).all()
    actual_gradients = gradients(model, logp_n)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, expected in expected_gradients.items():
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(actual_gradients[name] / scale, expected / scale, atol=1e-4, rtol=0, msg=name)

    entropy = Categorical(logits=expected_full).entropy()
    torch.testing.assert_close(result.entropy_BGT[result.mask_BGT], entropy, atol=1e-4, rtol=0)
    assert not result.entropy_BGT.requires_grad
    assert result.full_NV is None
    full = measure(model, layout, full=True)
    assert full.full_NV is not None
    torch.testing.assert_close(full.full_NV, expected_full, atol=1e-4, rtol=0)
    torch.testing.assert_close(full.logp_BGT, result.logp_BGT, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_groups_in_several_stretches_equal_one_by_one(tiny, monkeypatch, kind):
    model = tiny(kind)
    monkeypatch.setattr(packing, "DEAR_WIDTH", 4)
    rows = packing.lay_out(PROMPTS, RESPONSES, "packed", pad_token_id=0)
    assert int(rows.group_RL.max()) + 1 > len(PROMPTS)
    expected, _ = one_by_one(model)
    result = measure(model, "packed")
    torch.testing.assert_close(result.logp_BGT[result.mask_BGT], expected, atol=1e-4, rtol=0)


def test_the_tiny_models_notice_a_wrong_window(tiny):
    """The tests above mean something: without its window a sliding model gives other values."""
    model = tiny("gemma3")
    right = measure(model, "packed").logp_BGT
    model.config.sliding_window = 50
    assert (measure(model, "packed").logp_BGT - right).abs().max() > 1e-2


def test_rows_of_full_follow_the_nonzero_order_of_the_mask(tiny):
    result = measure(tiny("llama"), "packed", full=True)
    for n, (b, g, t) in enumerate(result.mask_BGT.nonzero().tolist()):
        assert result.full_NV is not None
        assert torch.equal(result.full_NV[n, RESPONSES[b][g][t]], result.logp_BGT[b, g, t])


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_output_layer_never_sees_more_than_the_response_tokens(tiny, layout):
    model = tiny("llama")
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    measure(model, layout)
    assert seen == [(1, sum(len(response) for group in RESPONSES for response in group), 97)]


def test_hooks_are_removed_even_when_the_pass_fails(tiny):
    model = tiny("llama")
    head = model.get_output_embeddings()

    def fail(*_):
        raise KeyError("stop")

    handle = head.register_forward_hook(fail)
    with pytest.raises(KeyError):
        measure(model, "packed")
    handle.remove()
    assert not head._forward_pre_hooks
    model(input_ids=torch.tensor([[3, 4]]))


def test_the_pass_goes_through_distributed_and_peft_wrappers(tiny, tmp_path):
    plain = measure(tiny("llama"), "packed").logp_BGT
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = get_peft_model(tiny("llama"), config)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        calls = []
        wrapped.register_forward_hook(lambda *_: calls.append(1))
        logp = measure(wrapped, "packed").logp_BGT
        torch.testing.assert_close(logp, plain, atol=1e-5, rtol=0)
        logp.sum().backward()
        assert calls == [1]
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        assert packing_support(wrapped) is None
    finally:
        torch.distributed.destroy_process_group()


def test_double_precision_stays_double_and_half_is_computed_in_single(tiny):
    assert measure(tiny("llama", dtype=torch.float64), "packed").logp_BGT.dtype == torch.float64
    for layout in ("packed", "padded"):
        result = measure(tiny("llama", dtype=torch.bfloat16), layout, full=True)
        assert result.full_NV is not None
        assert result.logp_BGT.dtype == result.full_NV.dtype == torch.float32
        torch.testing.assert_close(result.full_NV.exp().sum(-1), torch.ones(len(result.full_NV)), atol=1e-4, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = measure(tiny("llama"), "packed").logp_BGT
    assert mixed.dtype == torch.float32


def test_exact_kl_equals_torch_distributions_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[[True, True, False], [True, False, False]]])
    logits = torch.randn(3, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    other = torch.randn(3, 11, generator=generator, dtype=torch.float64)
    kl = exact_kl(logits.log_softmax(-1), other.log_softmax(-1), mask)
    expected = kl_divergence(Categorical(logits=logits), Categorical(logits=other))
    assert kl.shape == mask.shape
    torch.testing.assert_close(kl[mask], expected)
    assert (kl[~mask] == 0).all()
    (actual,) = torch.autograd.grad(kl.sum(), logits, retain_graph=True)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(actual, wanted)


def test_exact_kl_takes_impossible_tokens():
    p = torch.tensor([[0.5, 0.5, 0.0]]).log().requires_grad_()
    q = torch.tensor([[0.25, 0.75, 0.0]]).log()
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    kl = exact_kl(p, q, mask)
    assert kl.item() == pytest.approx(0.5 * torch.tensor(2.0).log().item() + 0.5 * torch.tensor(2 / 3).log().item())
    kl.sum().backward()
    assert p.grad is not None and p.grad.isfinite().all()
    with pytest.raises(ValueError, match="for 2 response tokens"):
        exact_kl(p, q, torch.ones(1, 1, 2, dtype=torch.bool))


@pytest.mark.parametrize(("kind", "attention"), KINDS_AND_ATTENTION)
def test_promised_architectures_take_packed_groups(tiny, kind, attention):
    model = tiny(kind, attention)
    model.train()
    assert packing_support(model) is None
    assert all(module.training for module in model.modules())


def test_models_that_cannot_take_packed_groups_are_named_with_the_reason(tiny):
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2, which cannot take a block mask" in str(packing_support(model))

    mamba = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1))
    assert "MambaForCausalLM has layers that a block mask cannot separate" in str(packing_support(mamba))
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    assert "encoder-decoder" in str(packing_support(t5))

    gemma = tiny("gemma3")
    gemma.config.use_bidirectional_attention = True
    assert "both directions" in str(packing_support(gemma))


def test_a_model_that_ignores_the_mask_is_found_out_by_running_it(tiny):
    model = tiny("llama")
    forward = model.model.forward

    def deaf(*args, attention_mask=None, **kwargs):
        return forward(*args, **kwargs)

    model.model.forward = deaf
    assert "does not follow the block mask" in str(packing_support(model))


def test_misuse_is_refused(tiny):
    with pytest.raises(ValueError, match="temperature = 0"):
        response_logprobs(tiny("llama"), [[3]], [[[4]]], temperature=0.0, layout="padded", pad_token_id=0)
    with pytest.raises(ModelError, match="has no output layer"):
        response_logprobs(tiny("llama").model, [[3]], [[[4]]], temperature=1.0, layout="padded", pad_token_id=0)
