"""Intervals over prompts and runs cover what they promise, where resampling a few runs does not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student

from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.evaluation.intervals import estimate_mean

DRAWS = 300


def draw(
    rng: np.random.Generator, shape: tuple[int, ...], effects: tuple[float, ...], noise: float
) -> NDArray[np.float64]:
    """Values whose mean is zero: an effect for each run, opponent's run and prompt, and noise."""
    values = rng.normal(0.0, noise, shape)
    for axis, (length, spread) in enumerate(zip(shape, effects, strict=True)):
        form = [1] * len(shape)
        form[axis] = length
        values = values + rng.normal(0.0, spread, length).reshape(form)
    return values


@pytest.mark.parametrize(
    ("shape", "effects", "noise"),
    [
        ((3, 80), (0.05, 0.2), 0.3),
        ((3, 80), (0.0, 0.2), 0.3),
        ((5, 80), (0.1, 0.2), 0.2),
        ((3, 3, 80), (0.04, 0.04, 0.2), 0.3),
    ],
)
def test_the_interval_covers_the_mean_about_as_often_as_it_says(
    shape: tuple[int, ...], effects: tuple[float, ...], noise: float
) -> None:
    rng = np.random.default_rng(0)
    found = [crossed_mean(draw(rng, shape, effects, noise)) for _ in range(DRAWS)]
    covered = np.mean([one.low <= 0.0 <= one.high for one in found if one.low is not None and one.high is not None])
    # Nominal 0.95; Satterthwaite's degrees of freedom are an approximation. Noise of the share itself: 0.013.
    assert 0.90 <= covered <= 0.985


def test_resampling_three_runs_and_the_prompts_covers_far_less() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(200):
        values = draw(rng, (3, 80), (0.1, 0.1), 0.1)
        runs, prompts = rng.integers(0, 3, (300, 3)), rng.integers(0, 80, (300, 80))
        means = values[runs[:, :, None], prompts[:, None, :]].mean((1, 2))
        low, high = np.quantile(means, [0.025, 0.975])
        covered.append(low <= 0.0 <= high)
    assert np.mean(covered) < 0.88


def test_without_noise_between_prompts_it_is_students_interval_of_the_runs() -> None:
    runs = np.array([0.1, 0.4, 0.25, 0.3])
    found = crossed_mean(np.repeat(runs[:, None], 50, axis=1))
    half = student.ppf(0.975, 3) * runs.std(ddof=1) / 2.0
    assert found.low == pytest.approx(runs.mean() - half) and found.high == pytest.approx(runs.mean() + half)


def test_variance_is_that_of_the_analysis_of_variance() -> None:
    values = draw(np.random.default_rng(3), (4, 30), (0.3, 0.3), 0.1)
    # Mean squares of the two-way table, computed cell by cell.
    rows, columns = values.mean(1), values.mean(0)
    mean = sum(float(v) for v in values.ravel()) / 120
    of_rows = sum(30 * (float(r) - mean) ** 2 for r in rows) / 3
    of_columns = sum(4 * (float(c) - mean) ** 2 for c in columns) / 29
    rest = sum((float(values[i, j]) - rows[i] - columns[j] + mean) ** 2 for i in range(4) for j in range(30)) / 87
    variance = (of_rows + of_columns - rest) / 120
    shares = (of_rows - rest) / 120, (of_columns - rest) / 120
    shares = (variance - shares[1], shares[1]) if of_rows > of_columns else (shares[0], variance - shares[0])
    freedom = variance**2 / (shares[0] ** 2 / 3 + shares[1] ** 2 / 29)
    found = crossed_mean(values)
    assert found.high is not None
    assert found.high - found.value == pytest.approx(student.ppf(0.975, freedom) * variance**0.5)
    assert found.method == "crossed"


def test_one_run_is_a_bootstrap_over_prompts() -> None:
    values = np.random.default_rng(0).random((1, 40))
    expected = estimate_mean(values[0], bootstrap=500, confidence=0.9, seed=3)
    assert crossed_mean(values, bounds=(0.0, 1.0), bootstrap=500, confidence=0.9, seed=3) == expected


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
def test_several_runs_on_one_prompt_have_no_interval_over_prompts(bounds: tuple[float, float] | None) -> None:
    found = crossed_mean(np.array([[0.2], [0.5], [0.9]]), bounds=bounds)
    assert (found.low, found.high, found.method) == (None, None, "undefined")
    assert found.note is not None and "one prompt" in found.note


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_always_won_or_lost_has_an_exact_bound(value: float) -> None:
    found = crossed_mean(np.full((3, 20), value), bounds=(0.0, 1.0))
    assert found.method == "exact"
    assert found == estimate_mean(np.full(20, value), bootstrap=2000, confidence=0.95, seed=0)


def test_ends_stay_within_bounds_and_constants_have_no_interval() -> None:
    values = draw(np.random.default_rng(2), (2, 10), (0.5, 0.0), 0.01) + 0.5
    found = crossed_mean(values, bounds=(0.0, 1.0))
    assert (found.low, found.high) == (0.0, 1.0)
    assert crossed_mean(np.full((3, 4), 2.0)).low is None
    assert crossed_mean(np.array([[[0.3]]])).method == "undefined"
