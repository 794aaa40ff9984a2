"""Win rates at equal length: the fit against scikit-learn's, and the properties that the definition promises."""

from typing import Any

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit, logit

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.resampling import Resampling
from magnetar.evaluation.length_control import (
    LENGTH_RIDGE,
    fit_length,
    influence_values,
    length_controlled_rate,
)

RESAMPLING = Resampling(bootstrap=400, confidence=0.9, seed=0)


def soft_answers(
    rng: np.random.Generator, prompts: int, quality: float, favour: float, responses: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of a judge who likes length: log-odds of a quality, noise, and a saturating share of the difference."""
    cluster = np.repeat(np.arange(prompts), responses)
    length = np.round(rng.normal(60.0, 100.0, len(cluster)))
    log_odds = quality + favour * np.tanh(length / length.std()) + rng.normal(0.0, 0.5, len(cluster))
    return expit(log_odds), length, cluster


@pytest.mark.parametrize("hard", [False, True])
def test_the_fit_is_scikit_learns(hard: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    win_prob, length, _ = soft_answers(rng, 300, 0.3, 1.2)
    if hard:
        win_prob = (rng.random(len(win_prob)) < win_prob).astype(np.float64)
    fit = fit_length(win_prob, length, np.ones((1, 300)))
    # A probability is a win and a loss with weights; scikit-learn penalises all coefficients but the intercept.
    feature = np.tanh(length / length.std())[:, None]
    model = linear_model.LogisticRegression(C=1.0 / LENGTH_RIDGE, tol=1e-12, max_iter=10_000)
    model.fit(
        np.concatenate([feature, feature]),
        np.repeat([1, 0], 300),
        sample_weight=np.concatenate([win_prob, 1.0 - win_prob]),
    )
    assert float(fit.quality_R[0]) == pytest.approx(model.intercept_[0], abs=1e-5)
    assert float(fit.length_R[0]) == pytest.approx(model.coef_[0, 0], abs=1e-5)


def test_the_fit_is_a_general_minimisers_for_every_set_of_weights() -> None:
    rng = np.random.default_rng(1)
    win_prob, length, _ = soft_answers(rng, 40, -0.5, 0.8)
    weights = rng.integers(0, 3, (3, 40)).astype(np.float64)
    fit = fit_length(win_prob, length, weights)
    for at, weight in enumerate(weights):
        centre = np.average(length, weights=weight)
        feature = np.tanh(length / np.sqrt(np.average((length - centre) ** 2, weights=weight)))

        def loss(x: np.ndarray, w: np.ndarray = weight, t: np.ndarray = feature) -> float:
            z = x[0] + x[1] * t
            return float(w @ (np.logaddexp(0.0, z) - win_prob * z)) + 0.5 * LENGTH_RIDGE * x[1] ** 2

        found = optimize.minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
        assert [float(fit.quality_R[at]), float(fit.length_R[at])] == pytest.approx(found.tolist(), abs=1e-5)


def test_a_judge_that_only_likes_length_finds_equal_policies_equal() -> None:
    win_prob, length, cluster = soft_answers(np.random.default_rng(2), 2000, 0.0, 1.5)
    assert win_prob.mean() > 0.6, "the plain win rate is fooled by the longer responses"
    found = length_controlled_rate(win_prob, length, cluster, RESAMPLING)
    assert isinstance(found, Estimate) and found.value == pytest.approx(0.5, abs=0.015)
    assert not found.excludes(0.5)


def test_a_judge_without_a_taste_for_length_gives_the_plain_win_rate() -> None:
    win_prob = np.tile([0.9, 0.7, 0.4, 0.2], 50)
    length = np.repeat([100.0, -100.0], 100)  # balanced: the answers do not depend on it
    found = length_controlled_rate(win_prob, length, np.arange(200), RESAMPLING)
    assert isinstance(found, Estimate) and found.value == pytest.approx(win_prob.mean(), abs=1e-9)


def test_equal_lengths_give_the_plain_win_rate() -> None:
    win_prob = np.array([1.0, 0.0, 1.0, 0.3])
    found = length_controlled_rate(win_prob, np.zeros(4), np.arange(4), RESAMPLING)
    assert isinstance(found, Estimate) and found.value == pytest.approx(win_prob.mean(), abs=1e-9)


def test_exchanging_the_sides_gives_the_complement() -> None:
    win_prob, length, _ = soft_answers(np.random.default_rng(3), 80, 0.7, 0.9)
    one = fit_length(win_prob, length, np.ones((1, 80)))
    other = fit_length(1.0 - win_prob, -length, np.ones((1, 80)))
    assert float(one.rate_R[0] + other.rate_R[0]) == pytest.approx(1.0, abs=1e-9)
    assert float(one.length_R[0]) == pytest.approx(float(other.length_R[0]), abs=1e-9)


def test_a_prompt_counts_once_however_many_responses_it_has() -> None:
    win_prob, length, _ = soft_answers(np.random.default_rng(4), 30, 0.2, 0.6)
    single = length_controlled_rate(win_prob, length, np.arange(30), RESAMPLING)
    tripled = length_controlled_rate(np.repeat(win_prob, 3), np.repeat(length, 3), np.arange(90) // 3, RESAMPLING)
    assert isinstance(single, Estimate) and isinstance(tripled, Estimate)
    assert tripled.value == pytest.approx(single.value, abs=1e-9)
    assert (tripled.low, tripled.high) == pytest.approx((single.low, single.high), abs=1e-6)


@pytest.mark.parametrize("favour", [40.0, -40.0])
def test_length_that_decides_everything_leaves_a_finite_rate(favour: float) -> None:
    length = np.linspace(-90.0, 110.0, 60)
    win_prob = (favour * length > 0).astype(np.float64)
    fit = fit_length(win_prob, length, np.ones((1, 60)))
    assert 0.2 < float(fit.rate_R[0]) < 0.8 and np.sign(fit.length_R[0]) == np.sign(favour)


def test_what_cannot_be_told_apart_is_said() -> None:
    reason = length_controlled_rate(np.array([1.0, 0.0, 0.5]), np.full(3, 20.0), np.arange(3), RESAMPLING)
    assert isinstance(reason, str) and "always longer by the same amount" in reason
    assert isinstance(influence_values(np.array([1.0, 0.5]), np.full(2, -3.0), np.arange(2)), str)


def test_an_extrapolation_is_called_one() -> None:
    win_prob, length, cluster = soft_answers(np.random.default_rng(7), 60, 0.0, 1.0)
    seen = length_controlled_rate(win_prob, length, cluster, RESAMPLING)
    assert isinstance(seen, Estimate) and seen.note is None
    unseen = length_controlled_rate(win_prob, -np.abs(length) - 1.0, cluster, RESAMPLING)
    assert isinstance(unseen, Estimate) and unseen.note is not None
    assert "100% of the policy's responses are shorter" in unseen.note


def test_who_wins_everything_wins_everything_at_equal_length() -> None:
    fit = fit_length(np.ones(20), np.arange(20.0), np.ones((1, 20)))
    assert float(fit.rate_R[0]) == 1.0
    assert influence_values(np.zeros(20), np.arange(20.0), np.arange(20)) == pytest.approx(np.zeros(20))


def test_influence_values_are_the_jackknifes() -> None:
    win_prob, length, cluster = soft_answers(np.random.default_rng(5), 150, 0.4, 1.0, responses=2)
    values: Any = influence_values(win_prob, length, cluster)
    whole = length_controlled_rate(win_prob, length, cluster, RESAMPLING)
    assert isinstance(whole, Estimate)
    assert values.mean() == pytest.approx(whole.value, abs=1e-12)
    left_out = np.array(
        [float(fit_length(win_prob, length, (cluster != b)[None].astype(float) / 2.0).rate_R[0]) for b in range(150)]
    )
    pseudo = 150 * whole.value - 149 * left_out
    # The jackknife also rescales the lengths for each prompt that is left out, hence the tolerance.
    assert np.corrcoef(values, pseudo)[0, 1] > 0.98
    assert values.std() == pytest.approx(pseudo.std(), rel=0.05)


def test_the_interval_covers_the_true_rate_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    large, length, _ = soft_answers(rng, 400_000, 0.5, 1.0)
    truth = float(fit_length(large, length, np.ones((1, len(large)))).rate_R[0])
    hits = 0
    for trial in range(150):
        found = length_controlled_rate(*soft_answers(rng, 60, 0.5, 1.0), Resampling(300, 0.9, trial))
        assert isinstance(found, Estimate) and found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    # 150 trials at 90%: standard error 2.4 percentage points.
    assert 0.83 <= hits / 150 <= 0.97
    assert logit(truth) == pytest.approx(0.5, abs=0.1), "noise in the log-odds shrinks them a little"


def test_over_few_prompts_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    trials, hits = 200, 0
    for trial in range(trials):
        length = rng.normal(0.0, 100.0, 6)
        win_prob = expit(0.6 + np.tanh(length / 100.0) + rng.normal(0.0, 0.5, 6))
        found = length_controlled_rate(win_prob, length, np.arange(6), Resampling(100, 0.9, trial))
        assert isinstance(found, Estimate) and found.low is not None and found.high is not None
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
        hits += found.low <= expit(0.6) <= found.high
    assert hits / trials >= 0.84, "200 trials at 90%: standard error 2.1 points; the bootstrap alone covers 81%"
    two = length_controlled_rate(np.array([0.4, 0.7]), np.zeros(2), np.arange(2), RESAMPLING)
    assert (
        isinstance(two, Estimate)
        and two.low is None
        and two.note == ("2 prompts are too few to fit what quality and length do")
    )
