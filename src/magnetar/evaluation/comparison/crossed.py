"""Intervals of a mean over several things drawn at random at once: prompts, and the seeds of training runs."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from magnetar.evaluation.intervals import Estimate, estimate_mean

__all__ = ["crossed_mean"]

FloatArray = NDArray[np.float64]

ONE_PROMPT = "one prompt: an interval over prompts needs at least two"
CONSTANT = "all values are equal: there is nothing to estimate a spread from"


def crossed_mean(
    values: FloatArray,
    *,
    bounds: tuple[float, float] | None = None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    r"""Mean of an array whose axes are the things drawn at random: runs, perhaps the opponents' runs, and prompts last.

    With one entry on every axis but the last the interval is `estimate_mean`'s, a bootstrap over prompts. With several
    runs it would be wrong to resample runs and prompts alike: resampling three runs underestimates their spread and
    covers the mean too rarely. The interval is then

    ``mean ± t_ν √V``, with ``V = Σ_f s_f²/n_f − (k − 1) s_e²/N``

    where ``s_f²`` is the variance of the means along axis f of length ``n_f``, k the number of axes longer than one,
    and ``s_e²`` the variance of what the axes' means leave over, which each ``s_f²`` contains once. V is at least its
    largest term, and ν is Satterthwaite's. Few runs make it wide, as they should.

    Args:
        values: Any number of axes, finite; axes of length one are ignored, but for the last: one prompt says nothing
            about others, so there is no interval.
        bounds: Range of the values, to which the interval is cut; None for none.
        bootstrap: Resamples, where it is a bootstrap.
        confidence: Nominal coverage, in (0, 1).
        seed: Of the bootstrap.

    Returns:
        The mean with its interval; its method is "crossed" where several axes were taken into account, and
        "t" where one was and it is no bootstrap.

    Source: Satterthwaite (1946), An Approximate Distribution of Estimates of Variance Components.
    """
    mean = float(values.mean())
    if values.shape[-1] == 1:  # several runs would say how far runs differ, and nothing about other prompts
        return Estimate(mean, None, None, confidence, "undefined", ONE_PROMPT)
    squeezed = values.squeeze() if values.size > 1 else values.reshape(-1)
    if squeezed.ndim <= 1 and bounds == (0.0, 1.0):
        return estimate_mean(squeezed.reshape(-1), bootstrap=bootstrap, confidence=confidence, seed=seed)
    variance, freedom = _variance_of_mean(squeezed)
    if not variance > 0.0:
        if bounds == (0.0, 1.0):  # always won, or always lost: there is an exact bound
            return estimate_mean(
                squeezed.reshape(-1, squeezed.shape[-1]).mean(0), bootstrap=bootstrap, confidence=confidence, seed=seed
            )
        return Estimate(mean, None, None, confidence, "undefined", CONSTANT)
    half = float(stdtrit(freedom, (1.0 + confidence) / 2.0)) * variance**0.5
    low, high = mean - half, mean + half
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(mean, low, high, confidence, "crossed" if squeezed.ndim > 1 else "t")


def _variance_of_mean(values: FloatArray) -> tuple[float, float]:
    """V and its degrees of freedom; see `crossed_mean`."""
    mean = values.mean()
    residual = values - mean
    terms: list[float] = []
    freedoms: list[int] = []
    for axis, length in enumerate(values.shape):
        effects = values.mean(axis=_others(values.ndim, axis)) - mean
        terms.append(float((effects**2).sum()) / (length - 1) / length)
        freedoms.append(length - 1)
        residual = residual - effects.reshape([-1 if other == axis else 1 for other in range(values.ndim)])
    left = values.size - 1 - sum(freedoms)
    noise = float((residual**2).sum()) / left / values.size if values.ndim > 1 and left > 0 else 0.0
    variance = max(sum(terms) - (values.ndim - 1) * noise, *terms, 0.0)
    # A term that is nothing but noise has no share in the variance, nor in its uncertainty.
    shares = [max(term - noise, 0.0) for term in terms] if values.ndim > 1 else terms
    largest = int(np.argmax(terms))
    shares[largest] = variance - sum(share for at, share in enumerate(shares) if at != largest)
    spread = sum(share**2 / freedom for share, freedom in zip(shares, freedoms, strict=True))
    return variance, variance**2 / spread if spread > 0 else 1.0


def _others(count: int, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(count) if other != axis)
