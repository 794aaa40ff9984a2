"""Reward, cost and pairwise models against direct forward passes, one text at a time."""

import math

import numpy as np
import pytest
from tiny_classifiers import logit_of, make_model, make_tokenizer
from transformers import LlamaForCausalLM

from magnetar.errors import JudgeError
from magnetar.judges import PairwiseModelJudge, RewardModelJudge, Symmetrized, build_judge
from magnetar.judges.models.classifier import SequenceClassifier

PROMPTS = ["ask what is the best ?", "one two three", [{"role": "user", "content": "four five ?"}]]
RESPONSES = [
    ["a b c .", "d", "e f g h a b c d e f"],
    ["best answer !", "one one one one", "six"],
    ["a", "b c", "d e f g"],
]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "bert"])
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_reward_model_equals_single_forward_passes(kind: str, chat: bool, budget: int):
    tokenizer = make_tokenizer(chat=chat, cls=kind == "bert")
    model = make_model(kind, tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer, tokens_per_batch=budget), temperature=0.7)
    win_prob = judge.group_win_prob(PROMPTS, RESPONSES)

    for b, (prompt, group) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        content = prompt if isinstance(prompt, str) else prompt[0]["content"]
        if chat:
            texts = [f"<bos>user : {content} <eos><bos>assistant : {text} <eos>" for text in group]
        else:
            texts = [content + ("" if isinstance(prompt, str) else "\n\n") + text for text in group]
        scores = [logit_of(model, tokenizer(text, add_special_tokens=not chat)["input_ids"])[0] for text in texts]
        for i in range(3):
            for j in range(3):
                expected = 1 / (1 + math.exp(-(scores[i] - scores[j]) / 0.7))
                assert win_prob[b, i, j] == pytest.approx(expected, abs=1e-5)
    assert np.ptp(win_prob) > 0.2, "the scores hardly differ, so the comparison would show nothing"
    stats = judge.stats()
    assert stats["responses"] == 9
    assert stats["truncated_share"] == 0.0


def test_cost_model_is_the_negated_reward_model(tmp_path):
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = build_judge(f"reward:{tmp_path}", device="cpu")
    cost = build_judge({"kind": "cost", "model": str(tmp_path), "device": "cpu"})
    assert (reward.name, cost.name) == (f"reward:{tmp_path}", f"cost:{tmp_path}")
    np.testing.assert_allclose(
        reward.group_win_prob(PROMPTS, RESPONSES), 1 - cost.group_win_prob(PROMPTS, RESPONSES), atol=1e-12
    )


def test_without_a_padding_token_the_end_of_sequence_token_pads():
    tokenizer = make_tokenizer(chat=False, pad=False)
    model = make_model("llama", tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer))
    scores = judge.scores(["a ", "a "], ["b c d e f", "g"])
    assert scores[1] == pytest.approx(logit_of(model, tokenizer("a g")["input_ids"])[0], abs=1e-5)
    tokenizer.eos_token = None
    model.config.pad_token_id = None
    with pytest.raises(JudgeError, match="neither a padding nor an end-of-sequence token"):
        SequenceClassifier(model, tokenizer)


@pytest.mark.parametrize(("labels", "first_label"), [(1, 0), (2, 0), (2, 1)])
def test_pairwise_model_equals_single_forward_passes(labels: int, first_label: int):
    tokenizer = make_tokenizer(chat=True, cls=True)
    model = make_model("bert", tokenizer, labels)
    template = "{prompt} : {first} ? {second} !"
    inner = PairwiseModelJudge(SequenceClassifier(model, tokenizer), template=template, first_label=first_label)

    def directly(prompt: str, first: str, second: str) -> float:
        logits = logit_of(model, tokenizer(f"{prompt} : {first} ? {second} !")["input_ids"])
        if labels == 1:
            return 1 / (1 + math.exp(-logits[0]))
        odds = np.exp(logits)
        return odds[first_label] / odds.sum()

    prompts = ["ask what", "one two"]
    first, second = ["a b", "c"], ["d e f", "g h"]
    expected = [directly(*pair) for pair in zip(prompts, first, second, strict=True)]
    np.testing.assert_allclose(inner.pair_win_prob(prompts, first, second), expected, atol=1e-5)

    judge = Symmetrized(inner)
    inner.stats()
    groups = [["a b", "c", "d e f"], ["g", "h h", "a"]]
    win_prob = judge.group_win_prob(prompts, groups)
    flips = 0
    for b, group in enumerate(groups):
        for i in range(3):
            for j in range(i + 1, 3):
                forward, backward = directly(prompts[b], group[i], group[j]), directly(prompts[b], group[j], group[i])
                flips += (forward > 0.5) == (backward > 0.5)
                assert win_prob[b, i, j] == pytest.approx((forward + 1 - backward) / 2, abs=1e-5)
    np.testing.assert_array_equal(win_prob + win_prob.swapaxes(1, 2), 1.0)
    stats = judge.stats()
    assert stats["flip_rate"] == pytest.approx(flips / 6)
    assert stats["inner_truncated_share"] == 0.0


def test_a_pairwise_spec_is_symmetrized_unless_told_otherwise(tmp_path):
    tokenizer = make_tokenizer(chat=False, cls=True)
    make_model("bert", tokenizer, 2).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = build_judge(f"pairwise:{tmp_path}", device="cpu")
    assert isinstance(judge, Symmetrized)
    assert judge.name == f"pairwise:{tmp_path}"
    plain = build_judge(f"pairwise:{tmp_path}", device="cpu", symmetrize=False)
    assert isinstance(plain, PairwiseModelJudge)
    pair = (["ask"], ["a b"], ["c"])
    forward, backward = plain.pair_win_prob(*pair), plain.pair_win_prob(["ask"], ["c"], ["a b"])
    assert abs(forward + backward - 1) > 1e-3
    np.testing.assert_allclose(judge.pair_win_prob(*pair), (forward + 1 - backward) / 2, atol=1e-6)


def test_models_that_cannot_judge_are_refused(tmp_path):
    tokenizer = make_tokenizer(chat=False)
    three = SequenceClassifier(make_model("llama", tokenizer, 3), tokenizer)
    with pytest.raises(JudgeError, match="has 3 outputs, expected 1;"):
        RewardModelJudge(three)
    with pytest.raises(JudgeError, match="has 3 outputs, expected 1 or 2"):
        PairwiseModelJudge(three)
    one = SequenceClassifier(make_model("llama", tokenizer, 1), tokenizer)
    with pytest.raises(JudgeError, match="first_label = 1, but judge 'pairwise' has 1 outputs"):
        PairwiseModelJudge(one, first_label=1)
    for option in ("max_length", "tokens_per_batch"):
        with pytest.raises(JudgeError, match=f"{option} = 0"):
            SequenceClassifier(one.model, tokenizer, **{option: 0})  # type: ignore[arg-type]


def test_a_language_model_without_a_trained_head_is_refused(tmp_path):
    tokenizer = make_tokenizer(chat=False)
    LlamaForCausalLM(make_model("llama", tokenizer).config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(JudgeError, match=r"lacks trained weights for score\.weight"):
        build_judge(f"reward:{tmp_path}", device="cpu")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(JudgeError, match="holds no config"):
        build_judge(f"reward:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(JudgeError, match="cannot be loaded"):
        build_judge(f"reward:{tmp_path}")
