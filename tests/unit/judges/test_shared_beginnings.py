"""Inputs read together, as token trees or in padded rows, against a forward pass for each: every family, any batch."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_classifiers import DECODERS, ENCODERS, WORDS, logit_of, make_model, make_tokenizer

from magnetar.errors import JudgeError
from magnetar.judges import GeneralPreferenceJudge, PairwiseModelJudge, RewardModelJudge, Symmetrized
from magnetar.judges.models.classifier import SequenceClassifier
from magnetar.modeling.classifiers import even_length

LETTERS = WORDS[10:18]


def random_text(rng: np.random.Generator, longest: int) -> str:
    return " ".join(rng.choice(LETTERS, rng.integers(0, longest + 1)))


def random_groups(rng: np.random.Generator, groups: int, size: int) -> tuple[list[str], list[list[str]]]:
    """Prompts that begin alike, and responses that begin alike, some of them equal or empty."""
    common = random_text(rng, 6)
    prompts = [f"{common} {random_text(rng, 4)} " for _ in range(groups)]
    return prompts, [[random_text(rng, 8) for _ in range(size)] for _ in range(groups)]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text)["input_ids"] or [tokenizer.bos_token_id]


@pytest.mark.parametrize("kind", [*DECODERS, *ENCODERS])
@pytest.mark.parametrize("budget", [1, 30, 10_000])
def test_reading_together_changes_no_answer(kind: str, budget: int):
    tokenizer = make_tokenizer(chat=False, cls=kind in ENCODERS)
    model = make_model(kind, tokenizer, 2)
    classifier = SequenceClassifier(model, tokenizer, tokens_per_batch=budget)
    assert (classifier.obstacle is None) == (kind in DECODERS), classifier.obstacle
    judge = GeneralPreferenceJudge(classifier, normalize=False)
    rng = np.random.default_rng(budget)
    for groups, size in ((1, 1), (1, 6), (5, 2)):
        prompts, responses = random_groups(rng, groups, size)
        flat = [(prompt, text) for prompt, group in zip(prompts, responses, strict=True) for text in group]
        embeddings = judge.features([prompt for prompt, _ in flat], [text for _, text in flat])
        expected = [logit_of(model, ids_of(tokenizer, prompt + text)) for prompt, text in flat]
        np.testing.assert_allclose(embeddings, expected, atol=2e-5 * max(1.0, float(np.abs(expected).max())))
    assert np.ptp(expected, axis=0).min() > 0.05, "the outputs hardly differ, so the comparison would show nothing"
    stats = judge.stats()
    if kind in DECODERS and budget == 10_000:
        assert stats["shared_share"] > 0.3
    if kind in ENCODERS:
        assert stats["shared_share"] < 0.35  # equal inputs only


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2", "bert"])
def test_both_orders_of_a_pairwise_model_change_no_answer(kind: str):
    tokenizer = make_tokenizer(chat=False, cls=kind == "bert")
    model = make_model(kind, tokenizer)
    template = "{prompt} : {first} ? {second} !"
    inner = PairwiseModelJudge(SequenceClassifier(model, tokenizer), template=template)
    judge = Symmetrized(inner)
    rng = np.random.default_rng(3)
    prompts, responses = random_groups(rng, 3, 4)
    win_prob = judge.group_win_prob(prompts, responses)

    def logit(prompt: str, first: str, second: str) -> float:
        return float(logit_of(model, ids_of(tokenizer, template.format(prompt=prompt, first=first, second=second)))[0])

    def probability(value: float) -> float:
        return 1 / (1 + np.exp(-value))

    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i in range(4):
            for j in range(i + 1, 4):
                if group[i] == group[j]:
                    assert win_prob[b, i, j] == 0.5
                    continue
                there, back = logit(prompt, group[i], group[j]), logit(prompt, group[j], group[i])
                expected = (probability(there) + 1 - probability(back)) / 2
                assert win_prob[b, i, j] == pytest.approx(expected, abs=1e-4)
    # One tree holds both orders of all pairs of a prompt: prompt, first responses, second responses after them.
    stats = judge.stats()
    if kind != "bert":
        assert stats["inner_shared_share"] > 0.4


def test_a_group_costs_one_reading_for_each_response_beyond_the_prompt():
    tokenizer = make_tokenizer(chat=False)
    classifier = SequenceClassifier(make_model("llama", tokenizer, 4), tokenizer)
    judge = GeneralPreferenceJudge(classifier)
    prompt = "a b c d e f g h " * 3
    responses = [f"{word} one two" for word in LETTERS]
    judge.group_win_prob([prompt], [responses])
    stats = judge.stats()
    assert stats["tokens"] == 24 + 8 * 3
    assert stats["responses"] == 8
    assert stats["shared_share"] == pytest.approx(1 - 48 / (8 * 27))


def test_equal_inputs_are_read_once_and_answered_everywhere():
    tokenizer = make_tokenizer(chat=False)
    judge = RewardModelJudge(SequenceClassifier(make_model("gpt2", tokenizer), tokenizer))
    scores = judge.scores(["a ", "b ", "a ", "a "], ["c d", "c d", "c d", "e"])
    assert scores[0] == scores[2]
    assert len({*scores}) == 3
    assert judge.stats()["tokens"] == 4 + 3  # "a c d", "e" after the same "a"; "b c d"


@pytest.mark.parametrize("share", [True, False])
def test_the_score_is_read_before_padding_tokens_that_end_a_turn(share: bool):
    """Where the end of a turn pads too, decoders read the score before it; sharing must do as the model does."""
    tokenizer = make_tokenizer(chat=True, pad=False)
    tokenizer.pad_token = "<eos>"
    model = make_model("llama", tokenizer)
    assert model.config.pad_token_id == tokenizer.eos_token_id
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer, share_beginnings=share))
    for text in ("a b", "", "<eos> <eos>"):
        ids = tokenizer(judge.text("ask", text), add_special_tokens=False)["input_ids"]
        assert ids[-1] == tokenizer.eos_token_id
        assert judge.scores(["ask"], [text])[0] == pytest.approx(logit_of(model, ids)[0], abs=1e-5)


def test_answers_come_batch_by_batch():
    tokenizer = make_tokenizer(chat=False)
    judge = RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), tokenizer, tokens_per_batch=16))
    prompts, responses = ["a b c d "] * 6, ["e", "f g", "h a b", "c", "d e f g", "a a a"]
    whole = judge.scores(prompts, responses)
    parts = list(judge.iter_features(prompts, responses))
    assert len(parts) > 1
    for index, values in parts:
        np.testing.assert_allclose(values[:, 0], whole[index], atol=1e-6)


def test_the_judge_says_why_it_does_not_share():
    tokenizer = make_tokenizer(chat=False, cls=True)
    encoder = SequenceClassifier(make_model("bert", tokenizer), tokenizer)
    assert "reads the text as a whole" in str(encoder.obstacle)
    assert "padded rows, because BertForSequenceClassification" in repr(encoder)
    decoder = SequenceClassifier(make_model("llama", tokenizer), tokenizer)
    assert decoder.obstacle is None
    assert "shared beginnings read once" in repr(decoder)
    off = SequenceClassifier(make_model("llama", tokenizer), tokenizer, share_beginnings=False)
    assert off.obstacle == "share_beginnings is off"


def test_a_decoder_that_looks_ahead_is_found_out_and_read_in_padded_rows():
    tokenizer = make_tokenizer(chat=False)
    model = make_model("llama", tokenizer)
    attention = model.model.layers[0].self_attn
    forward = attention.forward
    # A model whose attention throws the mask away, as some with kernels of their own do.
    attention.forward = lambda *args, **kwargs: forward(
        *args,
        **{**kwargs, "attention_mask": torch.zeros_like(kwargs["attention_mask"], dtype=torch.float32)}
        if kwargs.get("attention_mask") is not None
        else kwargs,
    )
    assert "does not follow the mask" in str(SequenceClassifier(model, tokenizer).obstacle)


def test_rows_grow_as_long_as_attention_stays_cheap():
    tokenizer = make_tokenizer(chat=False)
    small, wide = make_model("llama", tokenizer), make_model("llama", tokenizer, initializer_range=0.02)
    assert even_length(small) == even_length(wide)
    weights = sum(p.numel() for p in small.parameters()) - small.get_input_embeddings().weight.numel()
    # Twice the weights a token against four operations for each of 16 channels in 2 layers, at 1.5 times the cost.
    assert even_length(small) == pytest.approx(2 * weights / (4 * 16 * 2 * 1.5))


def test_bfloat16_trees_agree_with_single_passes_within_its_precision():
    tokenizer = make_tokenizer(chat=False)
    model = make_model("llama", tokenizer, 2).to(torch.bfloat16)
    classifier = SequenceClassifier(model, tokenizer)
    assert classifier.obstacle is None
    prompts, responses = ["a b c "] * 4, ["d e", "d f", "g", "d e f g"]
    found = GeneralPreferenceJudge(classifier, normalize=False).features(prompts, responses)
    expected = [logit_of(model, ids_of(tokenizer, p + r)) for p, r in zip(prompts, responses, strict=True)]
    np.testing.assert_allclose(found, expected, atol=0.05 * float(np.abs(expected).max()))


def test_a_tokenizer_of_another_model_is_refused():
    tokenizer = make_tokenizer(chat=False)
    model = make_model("llama", tokenizer)
    model.resize_token_embeddings(8)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer))
    with pytest.raises(JudgeError, match=r"knows 8: they do not belong together"):
        judge.scores(["ask "], ["six"])
