"""Responses that share their prompt's cache are those of responses with a cache each."""

import pytest
import torch
from transformers import DynamicCache

from magnetar.rollout import decoding, shared_prompts
from magnetar.rollout.base import SamplingParams
from magnetar.rollout.decoding import Decoding
from magnetar.rollout.shared_prompts import GroupCache, group_attention
from magnetar.rollout.transformers_engine import TransformersEngine

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12], [3], [40, 21, 22], [17, 18, 19, 20]]
SEEDS = [11, 12, 13, 14]
IDS = torch.tensor([[0, 0, 5, 9], [3, 8, 2, 7]])
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
TOKENS = torch.tensor([[4, 9, 1, 6, 2, 8], [7, 3, 5, 2, 6, 1], [1, 2, 3, 4, 5, 6]])


@pytest.fixture
def shared_caches(monkeypatch):
    """The caches that were shared."""
    made = []

    class Recorded(GroupCache):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(decoding, "GroupCache", Recorded)
    return made


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_responses_are_those_of_separate_caches_while_rows_and_groups_leave(kind, tiny, tokenizer, shared_caches):
    model = tiny(kind)
    sampling = SamplingParams(max_new_tokens=24, temperature=3.0)
    drawn = [
        TransformersEngine(tokenizer, sampling, eos_token_ids=range(12), share_prompts=shared).generate(
            model, PROMPTS, 3, SEEDS
        )
        for shared in (False, True)
    ]
    assert drawn[0].response_ids == drawn[1].response_ids
    for apart, together in zip(drawn[0].sampling_logp, drawn[1].sampling_logp, strict=True):
        for one, other in zip(apart, together, strict=True):
            torch.testing.assert_close(torch.tensor(one), torch.tensor(other), atol=1e-5, rtol=0)
    (cache,) = shared_caches
    assert cache.refusal is None
    assert len(cache.slots) < 12, "some rows must leave"
    assert cache.prompts < 4, "some prompt must lose all its rows"


@torch.no_grad()
def test_logits_are_those_of_separate_caches_at_every_token(tiny, monkeypatch):
    monkeypatch.setattr(shared_prompts, "FIRST_ROOM", 2)  # so that memory must grow twice
    model = tiny("llama").double()
    apart, together = Decoding.start(model, IDS, MASK), Decoding.start(model, IDS, MASK)
    apart.repeat(3)
    assert together.share(3, 5)
    for tokens in TOKENS:
        torch.testing.assert_close(together.logits, apart.logits, atol=1e-10, rtol=0)
        apart.step(tokens)
        together.step(tokens)
    torch.testing.assert_close(together.logits, apart.logits, atol=1e-10, rtol=0)
    rows = torch.tensor([0, 2, 4])
    for state in (apart, together):
        state.keep(rows)
        state.step(torch.tensor([5, 6, 7]))
    torch.testing.assert_close(together.logits, apart.logits, atol=1e-10, rtol=0)
    alone = torch.tensor([2])  # the first prompt goes, the padded one
    for state in (apart, together):
        state.keep(alone)
        state.step(torch.tensor([9]))
    torch.testing.assert_close(together.logits, apart.logits, atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_prompt_is_kept_once_for_its_group(tiny):
    model = tiny("llama")
    state = Decoding.start(model, IDS, MASK)
    storage = [layer.keys.data_ptr() for layer in state.cache.layers]
    assert state.share(7, 5)
    assert [layer.prompt_keys.data_ptr() for layer in state.cache.layers] == storage
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError), group_attention(model, state.cache):
        raise RuntimeError("a step that fails")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", ["qwen2", "gemma2", "gemma3"])
def test_sliding_layers_keep_caches_of_their_own(kind, tiny, tokenizer, shared_caches):
    engine = TransformersEngine(tokenizer, SamplingParams(max_new_tokens=4))
    engine.generate(tiny(kind), PROMPTS, 2, SEEDS)
    assert not shared_caches


@torch.no_grad()
@pytest.mark.parametrize("trouble", ["softcap", "own attention"])
def test_a_model_that_attends_otherwise_is_found_out_at_the_first_token(trouble, tiny, monkeypatch):
    model = tiny("llama")
    attention = type(model.model.layers[0].self_attn)
    plain = attention.forward

    def asks_for_more(self, *args, **kwargs):
        return plain(self, *args, **kwargs, softcap=30.0 if self.config._attn_implementation != "sdpa" else None)

    def goes_its_own_way(self, *args, **kwargs):
        kept, self.config._attn_implementation_internal = self.config._attn_implementation, "sdpa"
        try:
            return plain(self, *args, **kwargs)
        finally:
            self.config._attn_implementation_internal = kept

    expected = Decoding.start(model, IDS, MASK)
    expected.repeat(3)
    expected.step(TOKENS[0])
    monkeypatch.setattr(attention, "forward", asks_for_more if trouble == "softcap" else goes_its_own_way)
    state = Decoding.start(model, IDS, MASK)
    assert state.share(3, 5)
    state.step(TOKENS[0])
    assert isinstance(state.cache, DynamicCache)
    torch.testing.assert_close(state.logits, expected.logits, atol=1e-6, rtol=0)
