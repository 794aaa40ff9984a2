"""Intervals of any statistic of judged pairs: prompts are resampled, and the statistic is computed with weights."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from magnetar.errors import ConfigError
from magnetar.evaluation.intervals import Estimate

__all__ = ["Resampling", "Statistic", "estimate_all", "exact_bound"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

_CHUNK_ENTRIES = 4_000_000
_JACKKNIFE_BLOCKS = 400
_SAME = 1e-12


@dataclass(frozen=True)
class Statistic:
    """A figure that is computed from weighted pairs.

    Attributes:
        compute: Weights of the N pairs, shape (R, N), to R values; NaN where the figure is not defined.
        share: Whether it is a weighted mean of values in [0, 1], for which an exact bound exists at either end.
    """

    compute: Callable[[FloatArray], FloatArray]
    share: bool = False


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        bootstrap: Number of resamples, at least 100.
        confidence: Nominal coverage, in (0, 1).
        seed: Seed of the resampling.
    """

    bootstrap: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.bootstrap < 100:
            raise ConfigError(f"bootstrap={self.bootstrap}, expected at least 100 resamples; 2000 is the default")
        if not 0.0 < self.confidence < 1.0:
            raise ConfigError(f"confidence={self.confidence}, expected a number between 0 and 1; 0.95 is the default")


def estimate_all(
    statistics: Mapping[str, Statistic], cluster_N: IndexArray, resampling: Resampling
) -> dict[str, Estimate]:
    r"""Compute several figures of the same pairs, each with its interval over prompts.

    Pairs of one prompt share a cluster and are drawn together: they resemble each other, and counting them as
    independent would make intervals too narrow. The interval is the bias-corrected and accelerated (BCa) bootstrap;
    its acceleration comes from a jackknife that leaves out one of at most 400 blocks of clusters at a time.

    Args:
        statistics: The figures by name.
        cluster_N: Number of the prompt of each pair, 0 to C − 1, N at least 1.
        resampling: Resamples, coverage and seed.

    Returns:
        An `Estimate` for each name; NaN, "undefined" and a reason where the figure does not exist.
    """
    clusters = int(cluster_N.max()) + 1
    values = {name: float(one.compute(np.ones((1, len(cluster_N))))[0]) for name, one in statistics.items()}
    undefined = Estimate(np.nan, None, None, resampling.confidence, "undefined")
    if clusters < 2:
        note = "one prompt: an interval over prompts needs at least two"
        return {name: replace(undefined, value=value, note=note) for name, value in values.items()}
    draws = _values(statistics, cluster_N, _resampled_counts(clusters, resampling))
    left_out = _values(statistics, cluster_N, _jackknife_counts(clusters, resampling.seed))
    sizes = np.bincount(cluster_N)
    found = {}
    for name, value in values.items():
        if np.isnan(value):
            found[name] = replace(undefined, note="not defined for these answers")
        else:
            found[name] = _interval(value, draws[name], left_out[name], statistics[name].share, sizes, resampling)
    return found


def exact_bound(count: int, confidence: float) -> float:
    """Lower bound of a mean on [0, 1] when all of ``count`` independent values are 1: ``((1 − c)/2)^(1/count)``."""
    return float(((1.0 - confidence) / 2.0) ** (1.0 / count))


def _interval(
    value: float,
    draws: FloatArray,
    left_out: FloatArray,
    share: bool,
    sizes: NDArray[np.int64],
    resampling: Resampling,
) -> Estimate:
    confidence = resampling.confidence
    undefined = Estimate(value, None, None, confidence, "undefined")
    lost = float(np.isnan(draws).mean())
    if lost > 0.05:
        return replace(undefined, note=f"not defined in {lost:.0%} of the resamples: too few prompts")
    draws, left_out = draws[~np.isnan(draws)], left_out[~np.isnan(left_out)]
    if np.ptp(draws) <= _SAME:
        if share and min(value, 1.0 - value) <= _SAME:
            # With prompts of unequal size the bound is that of the mean over prompts.
            bound = exact_bound(len(sizes), confidence)
            low, high = (bound, 1.0) if value > 0.5 else (0.0, 1.0 - bound)
            return Estimate(
                value, low, high, confidence, "exact", "all prompts alike: exact bound instead of the bootstrap"
            )
        return replace(undefined, note="all prompts alike: the bootstrap has nothing to resample")
    below = ((draws < value - _SAME).mean() + (draws <= value + _SAME).mean()) / 2.0
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1.0 - 0.5 / len(draws)))
    pull = left_out.mean() - left_out
    spread = (pull**2).sum()
    acceleration = (pull**3).sum() / (6.0 * spread**1.5) if spread > 0.0 else 0.0
    tail = ndtri((1.0 - confidence) / 2.0)
    shifted = bias + np.array([tail, -tail])
    levels = ndtr(bias + shifted / (1.0 - acceleration * shifted))
    low, high = np.quantile(draws, levels)
    return Estimate(value, float(low), float(high), confidence, "bca")


def _values(
    statistics: Mapping[str, Statistic], cluster_N: IndexArray, counts: Iterator[FloatArray]
) -> dict[str, FloatArray]:
    """Each statistic on each set of counts of clusters, a bounded number of weights at a time."""
    parts: dict[str, list[FloatArray]] = {name: [] for name in statistics}
    for counts_RC in counts:
        rows = max(1, _CHUNK_ENTRIES // len(cluster_N))
        for start in range(0, len(counts_RC), rows):
            weights_RN = counts_RC[start : start + rows, cluster_N]
            for name, one in statistics.items():
                parts[name].append(one.compute(weights_RN))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _resampled_counts(clusters: int, resampling: Resampling) -> Iterator[FloatArray]:
    """How often each cluster is drawn, for each resample."""
    rng = np.random.default_rng(resampling.seed)
    rows = max(1, _CHUNK_ENTRIES // clusters)
    for start in range(0, resampling.bootstrap, rows):
        size = min(rows, resampling.bootstrap - start)
        drawn = rng.integers(0, clusters, (size, clusters)) + clusters * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters).astype(np.float64)


def _jackknife_counts(clusters: int, seed: int) -> Iterator[FloatArray]:
    """All clusters but one block, for each block."""
    blocks = min(clusters, _JACKKNIFE_BLOCKS)
    block_of = np.random.default_rng(seed).permutation(clusters) % blocks
    rows = max(1, _CHUNK_ENTRIES // clusters)
    for start in range(0, blocks, rows):
        yield (block_of[None, :] != np.arange(start, min(start + rows, blocks))[:, None]).astype(np.float64)
