"""Bootstrap confidence intervals of a mean over prompts."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from magnetar.errors import ConfigError

__all__ = ["Estimate", "bca_interval", "estimate_mean"]

FloatArray = NDArray[np.float64]

_CHUNK_ENTRIES = 4_000_000
_SAME = 1e-12
FEW = 10
"""With fewer prompts a bootstrap covers less than its 95%: 53% of the time for two, 75% for three, 87% for five."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval, or with the reason why there is none.

    Attributes:
        value: The mean.
        low: Lower end of the interval; None when the interval is undefined.
        high: Upper end likewise.
        confidence: Nominal coverage of the interval, in (0, 1).
        method: "bca" (bootstrap), "t" (Student's, where that of the bootstrap is too narrow), "exact" (all values at
            the end of the range), "crossed" (over runs and prompts) or "undefined".
        note: Why the interval is not the bootstrap's; None when it is.
    """

    value: float
    low: float | None
    high: float | None
    confidence: float
    method: str
    note: str | None = None

    def excludes(self, value: float) -> bool:
        """Whether an interval exists and ``value`` lies outside it."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def estimate_mean(
    values_B: FloatArray, *, bootstrap: int, confidence: float, seed: int, share: bool = True
) -> Estimate:
    r"""Mean of per-prompt values with an interval over prompts.

    The interval is the bias-corrected and accelerated (BCa) bootstrap. With fewer than ten prompts, where resamples
    vary too little, each end is Student's if that lies further out. There is no interval for one prompt, nor when all
    prompts have the same value. Where the values are win rates or shares in [0, 1] and all are 1 the bootstrap would
    have width zero however few prompts there are; the exact bound ``μ ≥ ((1 − confidence)/2)^(1/B)`` is given instead,
    which holds for any distribution on [0, 1] because ``P(all are 1) ≤ μ^B``; all values 0 likewise.

    Args:
        values_B: One value per prompt.
        bootstrap: Number of resamples, at least 100.
        confidence: Nominal coverage, in (0, 1).
        seed: Seed of the resampling.
        share: Whether the values are in [0, 1] by their nature, so that there is an exact bound at either end.

    Returns:
        The mean and its interval.

    Raises:
        ConfigError: If ``bootstrap`` or ``confidence`` is out of range.
    """
    if bootstrap < 100:
        raise ConfigError(f"bootstrap={bootstrap}, expected at least 100 resamples; 2000 is the default")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence={confidence}, expected a number between 0 and 1; 0.95 is the default")
    count = len(values_B)
    mean = float(np.mean(values_B))
    if count < 2:
        note = "one prompt: an interval over prompts needs at least two"
        return Estimate(mean, None, None, confidence, "undefined", note)
    if np.ptp(values_B) > _SAME:
        low, high = bca_interval(values_B, resamples=bootstrap, confidence=confidence, seed=seed)
        estimate = Estimate(mean, low, high, confidence, "bca")
        return _widened(estimate, values_B, share=share) if count < FEW else estimate
    bound = float(((1.0 - confidence) / 2.0) ** (1.0 / count))
    if share and mean >= 1.0 - _SAME:
        note = "every prompt was won outright: exact bound instead of the bootstrap"
        return Estimate(mean, bound, 1.0, confidence, "exact", note)
    if share and mean <= _SAME:
        note = "every prompt was lost outright: exact bound instead of the bootstrap"
        return Estimate(mean, 0.0, 1.0 - bound, confidence, "exact", note)
    what = "win probability" if share else "value"
    note = f"all prompts have the same {what}: the bootstrap has nothing to resample"
    return Estimate(mean, None, None, confidence, "undefined", note)


def _widened(bca: Estimate, values_B: FloatArray, *, share: bool) -> Estimate:
    """The hull of a bootstrap interval and Student's, within the range of shares."""
    count = len(values_B)
    quantile = float(stdtrit(count - 1, (1.0 + bca.confidence) / 2.0))
    half = quantile * float(values_B.std(ddof=1)) / count**0.5
    low, high = bca.value - half, bca.value + half
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    if bca.low is None or bca.high is None or (bca.low <= low and high <= bca.high):
        return bca
    note = f"{count} prompts are few: Student's interval where the bootstrap's is narrower"
    return Estimate(bca.value, min(low, bca.low), max(high, bca.high), bca.confidence, "t", note)


def bca_interval(values_B: FloatArray, *, resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    r"""Bias-corrected and accelerated bootstrap interval of a mean.

    For a mean the jackknife acceleration has the closed form
    ``a = Σ (x − x̄)³ / (6 (Σ (x − x̄)²)^{3/2})``, so only the resampling costs anything.

    Args:
        values_B: At least two values that are not all equal.
        resamples: Number of bootstrap resamples.
        confidence: Nominal coverage, in (0, 1).
        seed: Seed of the resampling.

    Returns:
        Lower and upper end.

    Source:
        Efron (1987), Better Bootstrap Confidence Intervals.
    """
    means = _resampled_means(values_B, resamples, np.random.default_rng(seed))
    mean = values_B.mean()
    below = ((means < mean).mean() + (means <= mean).mean()) / 2.0
    # With few resamples of very skewed values none may lie on one side; half a resample keeps the quantile finite.
    bias = ndtri(np.clip(below, 0.5 / resamples, 1.0 - 0.5 / resamples))
    centred = values_B - mean
    acceleration = (centred**3).sum() / (6.0 * (centred**2).sum() ** 1.5)
    tail = ndtri((1.0 - confidence) / 2.0)
    shifted = bias + np.array([tail, -tail])
    levels = ndtr(bias + shifted / (1.0 - acceleration * shifted))
    low, high = np.quantile(means, levels)
    return float(low), float(high)


def _resampled_means(values_B: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Means of ``resamples`` draws with replacement, a bounded number of entries at a time."""
    count = len(values_B)
    rows = max(1, _CHUNK_ENTRIES // count)
    chunks = [
        values_B[rng.integers(0, count, (min(rows, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(chunks)
