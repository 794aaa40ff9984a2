import numpy as np
import pytest
from scipy import stats

from magnetar.errors import ConfigError
from magnetar.evaluation.intervals import bca_interval, estimate_mean


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Win probabilities of an uneven match: a third even, the rest lopsided; the mean is 0.3 * 0.5 + 0.7 * 0.8."""
    return np.where(rng.random(shape) < 0.3, 0.5, rng.beta(4.0, 1.0, shape))


TRUE_MEAN = 0.3 * 0.5 + 0.7 * 0.8


@pytest.mark.parametrize(("count", "seed"), [(7, 0), (60, 1), (400, 2)])
def test_interval_equals_scipys_on_the_same_resamples(count: int, seed: int) -> None:
    values = skewed(np.random.default_rng(seed), (count,))
    ours = bca_interval(values, resamples=2000, confidence=0.9, seed=seed)
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    assert ours == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_chunked_resampling_does_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(np.random.default_rng(3), (50,))
    whole = bca_interval(values, resamples=500, confidence=0.95, seed=4)
    monkeypatch.setattr("magnetar.evaluation.intervals._CHUNK_ENTRIES", 170)
    assert bca_interval(values, resamples=500, confidence=0.95, seed=4) == whole


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    trials, hits = 600, 0
    for trial in range(trials):
        low, high = bca_interval(skewed(rng, (50,)), resamples=600, confidence=0.9, seed=trial)
        hits += low <= TRUE_MEAN <= high
    # 600 trials at 90%: standard error 1.2 percentage points; BCa is known to fall a little short at 50 values.
    assert 0.86 <= hits / trials <= 0.94


def test_interval_narrows_with_the_square_root_of_the_prompts() -> None:
    rng = np.random.default_rng(6)
    widths = [np.ptp(bca_interval(skewed(rng, (n,)), resamples=2000, confidence=0.95, seed=0)) for n in (100, 1600)]
    assert widths[0] / widths[1] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_intervals_over_few_prompts_cover_as_often_as_they_say(count: int) -> None:
    rng = np.random.default_rng(count)
    hits = dict.fromkeys(("even", "lopsided"), 0)
    for trial in range(200):
        for name, values in (("even", rng.random(count)), ("lopsided", (rng.random(count) < 0.5).astype(float))):
            found = estimate_mean(values, bootstrap=100, confidence=0.9, seed=trial)
            hits[name] += found.low is not None and found.high is not None and found.low <= 0.5 <= found.high
            assert found.low is None or 0.0 <= found.low <= found.value <= (found.high or 0.0) <= 1.0
    # 200 trials at 90%: standard error 2.1 percentage points. The bootstrap alone covers 0.45, 0.65, 0.79 and 0.86.
    assert min(hits.values()) / 200 >= 0.83


def test_many_prompts_have_the_bootstraps_interval_and_few_are_told() -> None:
    values = skewed(np.random.default_rng(8), (10,))
    found = estimate_mean(values, bootstrap=200, confidence=0.95, seed=0)
    assert (found.low, found.high) == bca_interval(values, resamples=200, confidence=0.95, seed=0)
    few = estimate_mean(values[:4], bootstrap=200, confidence=0.95, seed=0)
    assert few.method == "t" and few.note is not None and "4 prompts are few" in few.note
    student = stats.t.interval(0.95, 3, values[:4].mean(), stats.sem(values[:4]))
    low, high = bca_interval(values[:4], resamples=200, confidence=0.95, seed=0)
    assert (few.low, few.high) == pytest.approx((min(student[0], low), min(max(student[1], high), 1.0)))


def test_one_prompt_has_no_interval() -> None:
    estimate = estimate_mean(np.array([0.7]), bootstrap=200, confidence=0.95, seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (0.7, None, None)
    assert estimate.note is not None and "one prompt" in estimate.note
    assert not estimate.excludes(0.5)


def test_equal_values_inside_the_range_have_no_interval() -> None:
    estimate = estimate_mean(np.full(9, 0.5), bootstrap=200, confidence=0.95, seed=0)
    assert estimate.low is None and estimate.method == "undefined"


@pytest.mark.parametrize("count", [2, 5, 40])
def test_all_won_gives_the_exact_binomial_bound_not_a_zero_width(count: int) -> None:
    won = estimate_mean(np.ones(count), bootstrap=200, confidence=0.95, seed=0)
    reference = stats.binomtest(count, count).proportion_ci(0.95, method="exact")
    assert (won.low, won.high) == pytest.approx((reference.low, reference.high))
    lost = estimate_mean(np.zeros(count), bootstrap=200, confidence=0.95, seed=0)
    assert (lost.low, lost.high) == pytest.approx((1 - reference.high, 1 - reference.low))
    assert won.method == lost.method == "exact"


def test_excludes_is_about_the_interval_not_the_value() -> None:
    rng = np.random.default_rng(7)
    clear = estimate_mean(rng.beta(8, 2, 80), bootstrap=500, confidence=0.95, seed=0)
    even = estimate_mean(rng.beta(2, 2, 80), bootstrap=500, confidence=0.95, seed=0)
    assert clear.excludes(0.5)
    assert not even.excludes(0.5)


@pytest.mark.parametrize(("bootstrap", "confidence", "word"), [(10, 0.95, "bootstrap"), (500, 95.0, "confidence")])
def test_settings_out_of_range_are_refused(bootstrap: int, confidence: float, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        estimate_mean(np.array([0.1, 0.9]), bootstrap=bootstrap, confidence=confidence, seed=0)
