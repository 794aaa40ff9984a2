"""The general preference judge against its formula, on embeddings that make a circle."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag
from tiny_classifiers import logit_of, make_model, make_tokenizer

from magnetar.errors import JudgeError
from magnetar.judges import GeneralPreferenceJudge, cyclic_triple_share
from magnetar.judges.comparisons import compare_by
from magnetar.judges.models.classifier import SequenceClassifier


@pytest.mark.parametrize("kind", ["llama", "bert"])
@pytest.mark.parametrize("normalize", [True, False])
def test_win_probabilities_are_the_logistic_of_the_skew_form(kind: str, normalize: bool):
    tokenizer = make_tokenizer(chat=False, cls=kind == "bert")
    model = make_model(kind, tokenizer, 4)
    judge = GeneralPreferenceJudge(SequenceClassifier(model, tokenizer), temperature=0.7, normalize=normalize)
    prompt, group = "ask what ", ["a b", "c d e", "best", "six one"]
    rotation = np.asarray(block_diag(*[np.array([[0.0, -1.0], [1.0, 0.0]])] * 2))
    embeddings = [logit_of(model, tokenizer(prompt + text)["input_ids"]) for text in group]
    if normalize:
        embeddings = [v / np.linalg.norm(v) for v in embeddings]
    expected = [[1 / (1 + np.exp(-(rotation @ v) @ w / 0.7)) for w in embeddings] for v in embeddings]
    win_prob = judge.group_win_prob([prompt], [group])[0]
    np.testing.assert_allclose(win_prob, expected, atol=1e-4)
    assert np.ptp(win_prob) > 0.1
    pairs = judge.pair_win_prob([prompt] * 3, group[:3], group[1:])
    np.testing.assert_allclose(pairs, [expected[0][1], expected[1][2], expected[2][3]], atol=1e-4)
    cross = judge.cross_win_prob([prompt], [group[:1]], [group[1:]])
    np.testing.assert_allclose(cross[0, 0], expected[0][1:], atol=1e-4)


def test_preferences_may_go_round_in_a_circle():
    tokenizer = make_tokenizer(chat=False)
    model = make_model("llama", tokenizer, 2)
    judge = GeneralPreferenceJudge(SequenceClassifier(model, tokenizer), temperature=0.1)
    # The head is solved for, so that three responses get three directions at 120° of each other.
    texts, hidden = ["a", "b", "c"], []
    handle = model.score.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0][0, -1].double()))
    for text in texts:
        logit_of(model, tokenizer("ask " + text)["input_ids"])
    handle.remove()
    angles = torch.arange(3, dtype=torch.float64) * 2 * torch.pi / 3
    wanted = torch.stack([angles.cos(), angles.sin()], dim=1)
    with torch.no_grad():
        model.score.weight.copy_(torch.linalg.lstsq(torch.stack(hidden), wanted).solution.T)
    win_prob = judge.group_win_prob(["ask "], [texts])
    assert win_prob[0, 0, 1] > 0.99 and win_prob[0, 1, 2] > 0.99 and win_prob[0, 2, 0] > 0.99
    assert cyclic_triple_share(win_prob) == 1.0


def test_recorded_embeddings_compare_as_the_judge_does():
    tokenizer = make_tokenizer(chat=False)
    judge = GeneralPreferenceJudge(SequenceClassifier(make_model("llama", tokenizer, 4), tokenizer), temperature=0.3)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 4))
    np.testing.assert_array_equal(compare_by(judge.comparison(), first, second), judge.compare(first, second))


@pytest.mark.parametrize("labels", [1, 3])
def test_an_embedding_has_an_even_number_of_dimensions(labels: int):
    tokenizer = make_tokenizer(chat=False)
    with pytest.raises(JudgeError, match=f"has {labels} outputs, expected an even number"):
        GeneralPreferenceJudge(SequenceClassifier(make_model("llama", tokenizer, labels), tokenizer))
