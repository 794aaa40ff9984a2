"""Two judges on the same pairs, against scikit-learn, SciPy and plain counting."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.judging import JudgedPairs, Pairs, ask_pairs, measure_agreement
from magnetar.judges import FunctionJudge

N = 80


def correlation(function: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(function(x, y).statistic)


def answered(win_prob: np.ndarray, name: str, label: np.ndarray | None = None, backward: Any = None) -> JudgedPairs:
    count = len(win_prob)
    pairs = Pairs([f"p{i}" for i in range(count)], ["a"] * count, ["b"] * count, label)
    return JudgedPairs(pairs, name, win_prob, backward, True)


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    p = rng.integers(0, 11, N) / 10
    return p, np.clip(p + rng.integers(-4, 5, N) / 10, 0, 1)


def test_figures_are_those_of_scikit_learn_and_scipy_on_both_orders(answers: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, q = answers
    found = measure_agreement(answered(p, "one"), answered(q, "two"))
    both_p, both_q = (np.concatenate([x, 1 - x]).round(12) for x in (p, q))
    a, b = (np.sign(x - 0.5).round(9) for x in (both_p, both_q))
    assert found.strict_agreement.value == pytest.approx(metrics.accuracy_score(a, b))
    assert found.agreement.value == pytest.approx(1 - np.abs(a - b).mean() / 2)
    assert found.strict_kappa.value == pytest.approx(metrics.cohen_kappa_score(a, b))
    assert found.kappa.value == pytest.approx(metrics.cohen_kappa_score(a, b, weights="linear"))
    assert found.spearman.value == pytest.approx(correlation(stats.spearmanr, both_p, both_q))
    assert found.pearson.value == pytest.approx(correlation(stats.pearsonr, both_p, both_q))
    assert found.difference.value == pytest.approx(np.abs(p - q).mean())
    assert found.ties.value == pytest.approx((p == 0.5).mean())
    for name in ("agreement", "kappa", "spearman", "pearson", "difference"):
        one = getattr(found, name)
        assert one.low < one.value < one.high
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["agreement"]["value"] == found.agreement.value


def test_agreement_is_symmetric_and_with_oneself_complete(answers: tuple[np.ndarray, np.ndarray]) -> None:
    one, two = answered(answers[0], "one"), answered(answers[1], "two")
    there, back = measure_agreement(one, two), measure_agreement(two, one)
    for name in ("agreement", "strict_agreement", "kappa", "strict_kappa", "spearman", "pearson", "difference"):
        assert getattr(there, name).value == pytest.approx(getattr(back, name).value)
    alone = measure_agreement(one, one)
    assert alone.agreement.value == alone.kappa.value == 1.0 and alone.difference.value == 0.0
    assert alone.spearman.value == pytest.approx(1.0) and alone.pearson.value == pytest.approx(1.0)


def test_kappa_does_not_collapse_when_chosen_always_stands_first() -> None:
    # The file's order would make the labels a constant, and any kappa with a constant zero.
    p = np.where(np.arange(N) % 10 < 8, 0.9, 0.2)
    found = measure_agreement(answered(p, "judge", label=np.ones(N)))
    assert found.against == "labels" and found.agreement.value == pytest.approx(0.8)
    assert found.kappa.value == pytest.approx(0.6)
    low, high = found.kappa.low, found.kappa.high
    assert low is not None and high is not None and 0.2 < low < 0.6 < high < 0.85


def test_soft_labels_count_by_their_side_and_their_value() -> None:
    p, label = np.array([0.9, 0.4, 0.6, 0.5]), np.array([0.8, 0.3, 0.1, 0.9])
    found = measure_agreement(answered(p, "judge", label=label))
    assert found.agreement.value == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found.strict_agreement.value == pytest.approx(2 / 4)
    assert found.difference.value == pytest.approx(np.mean([0.1, 0.1, 0.5, 0.4]))


def test_masked_pairs_are_left_out_and_counted_for_each_judge() -> None:
    p, q = np.array([0.9, np.nan, 0.8, 0.1]), np.array([0.7, 0.2, np.nan, 0.9])
    found = measure_agreement(answered(p, "one"), answered(q, "two"))
    assert (found.pairs, found.masked, found.masked_against) == (2, 1, 1)
    assert found.agreement.value == 0.5
    with pytest.raises(JudgeError, match="no answered pair in common, of 2"):
        measure_agreement(answered(p[:2] * np.nan, "one"), answered(q[:2], "two"))


def test_flips_of_each_judge_are_shown() -> None:
    def place(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
        return [0.8] * len(prompts)

    pairs = Pairs(["p", "q"], ["a", "b"], ["c", "d"])
    flipping = ask_pairs(FunctionJudge(place), pairs)
    steady = JudgedPairs(pairs, "steady", np.array([0.8, 0.2]), None, True)
    found = measure_agreement(flipping, steady)
    assert found.flips is not None and found.flips.value == 1.0 and found.flips_against is None
    assert found.ties.value == 1.0  # the mean of both orders is one half


def test_other_pairs_and_missing_labels_are_refused() -> None:
    one = answered(np.array([0.9, 0.8]), "one")
    other = JudgedPairs(Pairs(["x", "y"], ["a", "a"], ["b", "b"]), "two", np.array([0.9, 0.8]), None, True)
    with pytest.raises(DataError, match="different pairs"):
        measure_agreement(one, other)
    with pytest.raises(DataError, match="no labels"):
        measure_agreement(one)
