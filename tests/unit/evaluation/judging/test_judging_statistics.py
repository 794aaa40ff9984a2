"""Figures of judged pairs against scikit-learn, SciPy and brute force on the mirrored data."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from magnetar.evaluation.judging import Resampling, count_cycles
from magnetar.evaluation.judging.resampling import Statistic, estimate_all
from magnetar.evaluation.judging.statistics import (
    bin_edges,
    calibration_error,
    mean,
    mirrored_kappa,
    mirrored_pearson,
    mirrored_spearman,
    ratio,
    reliability,
    sides,
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def correlation(function: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(function(x, y).statistic)


def value(statistic: Statistic, weights: np.ndarray) -> float:
    return float(statistic.compute(weights[None, :])[0])


def mirrored(values: np.ndarray, weights: np.ndarray, centre: float) -> np.ndarray:
    """The values and their mirror images, each as often as its weight says."""
    repeated = np.repeat(values, weights.astype(int))
    return np.concatenate([repeated, 2 * centre - repeated])


@pytest.fixture(params=["distinct", "many-ties"])
def data(request: pytest.FixtureRequest) -> Arrays:
    rng = np.random.default_rng(3)
    weights = rng.integers(0, 4, 40).astype(float)
    if request.param == "distinct":
        return rng.random(40), rng.random(40), weights
    return rng.integers(0, 6, 40) / 5, rng.choice([0.0, 0.5, 1.0], 40), weights


def test_correlations_are_scipys_on_both_orders_of_every_pair(data: Arrays) -> None:
    p, q, weights = data
    x, y = mirrored(p, weights, 0.5).round(12), mirrored(q, weights, 0.5)
    assert value(mirrored_pearson(p - 0.5, q - 0.5), weights) == pytest.approx(correlation(stats.pearsonr, x, y))
    assert value(mirrored_spearman(p - 0.5, q - 0.5), weights) == pytest.approx(correlation(stats.spearmanr, x, y))


def test_length_correlation_is_scipys_with_ties_at_zero() -> None:
    rng = np.random.default_rng(0)
    lengths, p = rng.integers(-3, 4, 60).astype(float), rng.integers(0, 3, 60) / 2
    x, y = np.concatenate([lengths, -lengths]), np.concatenate([p, 1 - p])
    assert value(mirrored_spearman(lengths, p - 0.5), np.ones(60)) == pytest.approx(correlation(stats.spearmanr, x, y))


@pytest.mark.parametrize("linear", [True, False])
def test_kappa_is_scikit_learns_on_both_orders(data: Arrays, linear: bool) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, q, weights = data
    a, b = sides(p), sides(q)
    labels_a, labels_b = ((2 * mirrored(side, weights, 0.5)).astype(int) for side in (a, b))
    expected = metrics.cohen_kappa_score(labels_a, labels_b, labels=[0, 1, 2], weights="linear" if linear else None)
    assert value(mirrored_kappa(a, b, linear=linear), weights) == pytest.approx(expected)


def test_kappa_without_ties_is_twice_the_agreement_less_one() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, 50).astype(float), np.ones(50)  # "chosen" always stands first
    assert value(mirrored_kappa(a, b), np.ones(50)) == pytest.approx(2 * (a == b).mean() - 1)


def test_reliability_is_scikit_learns_on_both_orders() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(5)
    p = rng.random(300)
    label = (rng.random(300) < p**2).astype(float)
    both_p, both_y = np.concatenate([p, 1 - p]), np.concatenate([label, 1 - label])
    observed, predicted = calibration.calibration_curve(both_y, both_p, n_bins=10, strategy="uniform")
    edges = bin_edges(p, 10, "equal-width")
    curve = reliability(p, label, edges, "equal-width")
    assert curve.observed == pytest.approx(observed.tolist()) and curve.predicted == pytest.approx(predicted.tolist())
    counts = np.histogram(both_p, edges)[0] / 2
    assert curve.count == pytest.approx(counts)
    expected = float((counts / 300 * np.abs(observed - predicted)).sum())
    assert value(calibration_error(p, label, edges), np.ones(300)) == pytest.approx(expected)


def test_a_bin_contains_its_upper_end_and_mirrored_answers_meet_in_spite_of_rounding() -> None:
    p = np.array([0.2, 1 - 0.8, 0.7, 1 - 0.3, 0.0])
    counts = reliability(p, p, bin_edges(p, 10, "equal-width"), "equal-width").count
    assert counts == [0.5, 1, 1, 0, 0, 0, 1, 1, 0, 0.5]


def test_bins_of_equal_mass_hold_equally_many_answers() -> None:
    p = np.random.default_rng(2).beta(0.4, 0.4, 500)
    edges = bin_edges(p, 10, "equal-mass")
    assert reliability(p, p, edges, "equal-mass").count == pytest.approx([50] * 10, abs=1)
    # Five distinct answers cannot fill ten bins: equal edges are merged, and every bin holds something.
    coarse = np.random.default_rng(2).integers(0, 6, 500) / 5
    assert all(reliability(coarse, coarse, bin_edges(coarse, 10, "equal-mass"), "equal-mass").count)


@pytest.mark.parametrize("kind", ["equal-width", "equal-mass"])
def test_no_figure_depends_on_which_response_stands_first(data: Arrays, kind: str) -> None:
    p, q, weights = data
    flip = np.random.default_rng(9).integers(0, 2, len(p)).astype(bool)
    p2, q2 = np.where(flip, 1 - p, p), np.where(flip, 1 - q, q)
    for make in (mirrored_spearman, mirrored_pearson):
        assert value(make(p2 - 0.5, q2 - 0.5), weights) == pytest.approx(value(make(p - 0.5, q - 0.5), weights))
    kappa, kappa_2 = (mirrored_kappa(sides(a), sides(b)) for a, b in ((p, q), (p2, q2)))
    assert value(kappa, weights) == pytest.approx(value(kappa_2, weights))
    edges, edges_2 = bin_edges(p, 10, kind), bin_edges(p2, 10, kind)
    assert edges == pytest.approx(edges_2)
    error, error_2 = calibration_error(p, q, edges), calibration_error(p2, q2, edges)
    assert value(error, weights) == pytest.approx(value(error_2, weights))


def test_calibration_that_is_perfect_has_no_error_and_one_that_is_off_has_its_distance() -> None:
    p = np.repeat([0.2, 0.7], 100)
    exact = np.concatenate([np.arange(100) < 20, np.arange(100) < 70]).astype(float)
    edges = bin_edges(p, 10, "equal-width")
    assert value(calibration_error(p, exact, edges), np.ones(200)) == pytest.approx(0.0)
    assert value(calibration_error(p, np.zeros(200), edges), np.ones(200)) == pytest.approx(0.45)


def test_cycles_are_those_of_all_triples_by_brute_force() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        p = rng.choice([0.0, 0.3, 0.5, 0.9, np.nan], (6, 6))
        p = np.triu(p, 1) + np.tril(1 - p.T, -1) + 0.5 * np.eye(6)
        cyclic = triples = 0
        for i, j, k in combinations(range(6), 3):
            round_trip = np.array([p[i, j], p[j, k], p[k, i]])
            if not np.isnan(round_trip).any():
                triples += 1
                cyclic += bool((round_trip > 0.5).all() or (round_trip < 0.5).all())
        assert count_cycles(p) == (cyclic, triples)


def estimate(statistic: Statistic, clusters: np.ndarray, **settings: Any) -> Any:
    return estimate_all({"it": statistic}, clusters, Resampling(**settings))["it"]


def test_intervals_of_a_mean_are_scipys_bca() -> None:
    values = np.random.default_rng(0).beta(2, 1, 80)
    found = estimate(mean(values, share=True), np.arange(80), bootstrap=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert found.method == "bca" and found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_intervals_of_a_correlation_are_scipys_bca() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    found = estimate(mirrored_pearson(x, y), np.arange(60), bootstrap=20_000)

    def about_zero(a: np.ndarray, b: np.ndarray, axis: int = -1) -> Any:
        return (a * b).sum(axis) / np.sqrt((a * a).sum(axis) * (b * b).sum(axis))

    theirs = stats.bootstrap((x, y), about_zero, paired=True, n_resamples=20_000, method="BCa", rng=1)
    low, high = theirs.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_intervals_of_a_figure_whose_resamples_lie_off_are_scipys_bca() -> None:
    """A squared mean near zero: most resamples lie above it, which the correction of the bias has to undo."""
    values = np.random.default_rng(5).normal(0.1, 1.0, 60)

    def squared(weights_RN: np.ndarray) -> np.ndarray:
        return (weights_RN @ values / weights_RN.sum(1)) ** 2

    found = estimate(Statistic(squared), np.arange(60), bootstrap=20_000)
    theirs = stats.bootstrap(
        (values,), lambda v, axis=-1: v.mean(axis) ** 2, n_resamples=20_000, method="BCa", rng=1
    ).confidence_interval
    percentile = stats.bootstrap(
        (values,), lambda v, axis=-1: v.mean(axis) ** 2, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert percentile.high - theirs.high > 0.015  # the correction is not small here
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_pairs_of_one_prompt_are_drawn_together() -> None:
    values = np.random.default_rng(0).random(50)
    single = estimate(mean(values, share=True), np.arange(50))
    tenfold = estimate(mean(np.repeat(values, 10), share=True), np.repeat(np.arange(50), 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((single.low, single.high))
    alone = estimate(mean(np.repeat(values, 10), share=True), np.arange(500))
    assert alone.high - alone.low < 0.5 * (single.high - single.low)


def test_clustered_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    inside, runs = 0, 200
    for run in range(runs):
        sizes = rng.integers(1, 6, 40)
        level = rng.beta(3, 2, 40)  # prompts differ, pairs of a prompt resemble each other
        clusters = np.repeat(np.arange(40), sizes)
        hits = (rng.random(len(clusters)) < level[clusters]).astype(float)
        found = estimate(mean(hits, share=True), clusters, bootstrap=400, seed=run)
        inside += found.low <= 0.6 <= found.high
    assert 0.89 <= inside / runs <= 0.99


def test_all_right_gives_the_exact_bound_and_equal_values_inside_none() -> None:
    found = estimate(mean(np.ones(20), share=True), np.arange(20))
    assert (found.method, found.high) == ("exact", 1.0)
    assert stats.binom.sf(19, 20, found.low) == pytest.approx(0.025)
    assert estimate(mean(np.full(20, 0.3), share=True), np.arange(20)).method == "undefined"
    assert estimate(mean(np.ones(3)), np.zeros(3, dtype=np.intp)).note.startswith("one prompt")


def test_a_figure_that_is_not_defined_says_so() -> None:
    found = estimate(ratio(np.zeros(10), np.zeros(10)), np.arange(10))
    assert np.isnan(found.value) and found.method == "undefined" and found.note
    lonely = estimate(ratio(np.eye(10)[0], np.eye(10)[0]), np.arange(10))  # defined in 65% of the resamples
    assert lonely.value == 1.0 and "too few prompts" in lonely.note


def test_chunks_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = np.random.default_rng(0).random(90), np.repeat(np.arange(30), 3)
    whole = estimate(mirrored_spearman(values - 0.5, values**2 - 0.25), clusters)
    monkeypatch.setattr("magnetar.evaluation.judging.resampling._CHUNK_ENTRIES", 700)
    assert estimate(mirrored_spearman(values - 0.5, values**2 - 0.25), clusters) == whole
