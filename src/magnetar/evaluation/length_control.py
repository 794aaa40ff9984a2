"""Win rates at equal length: what the judge would say if neither side wrote more than the other."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from magnetar.evaluation.intervals import Estimate, widened
from magnetar.evaluation.judging.resampling import Resampling, Statistic, estimate_all

__all__ = [
    "LENGTH_RIDGE",
    "LengthFit",
    "extrapolation",
    "fit_length",
    "influence_values",
    "length_controlled_rate",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

LENGTH_RIDGE = 0.1
"""Weight of the penalty on the length coefficient, in units of prompts: it only bites where nothing else bounds it."""
MAX_STEPS = 100
HALVINGS = 30
TOLERANCE = 1e-11
LARGEST = 30.0  # log-odds beyond which a probability is 0 or 1 to rounding error
COEFFICIENTS = 2
FEW = 20  # with fewer prompts a bootstrap of two coefficients covers less than it says
RARE = 0.1  # with less than this share of comparisons on one side, equal length lies outside of what was seen
SAME_LENGTH = "one side is always longer by the same amount, so that length cannot be told from quality"


class LengthFit:
    """A fitted logistic model of who wins, for R sets of weights at once.

    Attributes:
        quality_R: Log-odds at equal length; ±infinity where one side wins everything.
        length_R: Coefficient of the length term; positive where the judge favours length.
        feature_RN: The length term of each comparison, in (−1, 1).
    """

    def __init__(self, quality_R: FloatArray, length_R: FloatArray, feature_RN: FloatArray) -> None:
        self.quality_R = quality_R
        self.length_R = length_R
        self.feature_RN = feature_RN

    @property
    def rate_R(self) -> FloatArray:
        """Win rate at equal length, ``σ(quality)``."""
        return expit(self.quality_R)


def length_controlled_rate(
    win_prob_N: FloatArray, length_N: FloatArray, cluster_N: IndexArray, resampling: Resampling
) -> Estimate | str:
    r"""Win rate at equal length with a bootstrap interval over prompts.

    The judge's answers are modelled as
    ``logit P(a beats b) = θ + φ · tanh(Δ / std(Δ))``, with Δ the difference of the two lengths in characters. θ and φ
    maximise the likelihood of the answers, which may be probabilities; each prompt weighs the same however many
    responses it has. The win rate at equal length is ``σ(θ)``, the length term set to zero. As the plain win rate it
    is one half for a policy against itself, and one minus the other's when the sides are exchanged.

    Two things differ from AlpacaEval 2. Its model has a third term, the difference in ability times a difficulty of
    the instruction, which was estimated from the leaderboard's other models for AlpacaEval's own instructions; there
    is none for other prompts, and it is left out. And its regularisation, an L1 penalty by cross-validation together
    with the answers of two artificially lengthened baselines at a weight of 0.2, is replaced by ``(λ/2) φ²`` with
    λ = 0.1 prompts, which matters only where a difference in length decides every comparison. Their baselines guard
    against a policy that gains by cutting its responses short; here the estimate's note says when nearly all responses
    of one side are shorter, so that equal length is an extrapolation.

    Args:
        win_prob_N: P(the policy's response wins) of each comparison, in [0, 1], none missing.
        length_N: Length of the policy's response less the opponent's, in characters.
        cluster_N: Number of each comparison's prompt, from 0 without gaps.
        resampling: How the interval is made.

    Returns:
        The estimate, or the reason why there is none.

    Source: arXiv:2404.04475, section 3.
    """
    weight_N = _prompt_weights(cluster_N)
    if np.ptp(length_N) == 0.0 and length_N[0] != 0.0:
        return SAME_LENGTH

    def compute(draws_RN: FloatArray) -> FloatArray:
        return fit_length(win_prob_N, length_N, draws_RN * weight_N).rate_R

    found = estimate_all({"rate": Statistic(compute)}, cluster_N, resampling)["rate"]
    if found.low is not None and cluster_N.max() + 1 < FEW:
        found = _with_few(found, win_prob_N, length_N, cluster_N)
    notes = [note for note in (found.note, extrapolation(length_N, cluster_N)) if note is not None]
    return replace(found, note="; ".join(notes) or None)


def _with_few(found: Estimate, win_prob_N: FloatArray, length_N: FloatArray, cluster_N: IndexArray) -> Estimate:
    """The interval over few prompts: at least as wide as Student's by the jackknife, with two coefficients fitted."""
    count = int(cluster_N.max()) + 1
    if count <= COEFFICIENTS:
        note = f"{count} prompts are too few to fit what quality and length do"
        return replace(found, low=None, high=None, method="undefined", note=note)
    others = 1.0 - np.eye(count)[:, cluster_N]
    rates = fit_length(win_prob_N, length_N, others * _prompt_weights(cluster_N)).rate_R
    pseudo = (count * found.value - (count - 1) * rates)[~np.isnan(rates)]
    return widened(found, pseudo, share=True, coefficients=COEFFICIENTS) if len(pseudo) > COEFFICIENTS else found


def extrapolation(length_N: FloatArray, cluster_N: IndexArray) -> str | None:
    """What to say where nearly all of one side's responses are longer, so that nothing was seen near equal length.

    Args:
        length_N: Length of the policy's response less the opponent's.
        cluster_N: Number of each comparison's prompt.

    Returns:
        One sentence; None where at least a tenth of the comparisons lies on either side.
    """
    weight_N = _prompt_weights(cluster_N)
    longer, shorter = (float(weight_N[side].sum() / weight_N.sum()) for side in (length_N > 0.0, length_N < 0.0))
    if max(longer, shorter) <= 1.0 - RARE:
        return None
    word = "longer" if longer > shorter else "shorter"
    return f"an extrapolation: {max(longer, shorter):.0%} of the policy's responses are {word} than the opponent's"


def influence_values(win_prob_N: FloatArray, length_N: FloatArray, cluster_N: IndexArray) -> FloatArray | str:
    """Values per prompt whose mean is the win rate at equal length, and whose spread is that of its estimate.

    They are the rate plus each prompt's influence on it, so that means over prompts and several runs can be treated as
    those of a plain win rate.

    Args:
        win_prob_N: As for `length_controlled_rate`.
        length_N: Likewise.
        cluster_N: Likewise.

    Returns:
        One value for each prompt, shape (B,), or the reason why there are none.
    """
    if np.ptp(length_N) == 0.0 and length_N[0] != 0.0:
        return SAME_LENGTH
    weight_N = _prompt_weights(cluster_N)
    count = int(cluster_N.max()) + 1
    fit = fit_length(win_prob_N, length_N, weight_N[None])
    rate, feature = float(fit.rate_R[0]), fit.feature_RN[0]
    if not np.isfinite(fit.quality_R[0]):
        return np.full(count, rate)
    chance = expit(fit.quality_R[0] + fit.length_R[0] * feature)
    curve = weight_N * chance * (1.0 - chance)
    hessian = np.array(
        [
            [curve.sum(), (curve * feature).sum()],
            [(curve * feature).sum(), (curve * feature**2).sum() + LENGTH_RIDGE],
        ]
    )
    pull = weight_N * (win_prob_N - chance)
    score_B2 = np.stack([np.bincount(cluster_N, pull, count), np.bincount(cluster_N, pull * feature, count)], axis=1)
    influence_B = count * rate * (1.0 - rate) * np.linalg.solve(hessian, score_B2.T)[0]
    return rate + influence_B - influence_B.mean()


def fit_length(win_prob_N: FloatArray, length_N: FloatArray, weight_RN: FloatArray) -> LengthFit:
    """Fit θ and φ by Newton's method, for several sets of weights at once.

    Args:
        win_prob_N: In [0, 1].
        length_N: Differences of length.
        weight_RN: Weights, at least 0, each row with a positive sum.

    Returns:
        The fit; NaN for a set of weights under which all differences in length are the same and not zero.
    """
    total_R1 = weight_RN.sum(1, keepdims=True)
    centre_R1 = (weight_RN * length_N).sum(1, keepdims=True) / total_R1
    spread_R1 = np.sqrt((weight_RN * (length_N - centre_R1) ** 2).sum(1, keepdims=True) / total_R1)
    flat_R1 = spread_R1 <= 1e-9 * (1.0 + np.abs(centre_R1))
    feature_RN = np.tanh(length_N / np.where(flat_R1, 1.0, spread_R1))
    feature_RN = np.where(flat_R1, 0.0, feature_RN)
    theta, phi = _newton(win_prob_N, feature_RN, weight_RN)
    mean_R = (weight_RN * win_prob_N).sum(1) / total_R1[:, 0]
    theta = np.where(mean_R >= 1.0 - 1e-12, np.inf, np.where(mean_R <= 1e-12, -np.inf, theta))
    unknown_R = flat_R1[:, 0] & (np.abs(centre_R1[:, 0]) > 0.0)
    return LengthFit(np.where(unknown_R, np.nan, theta), np.where(unknown_R, np.nan, phi), feature_RN)


def _newton(win_prob_N: FloatArray, feature_RN: FloatArray, weight_RN: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Damped Newton on the penalised log-likelihood, which is concave in (θ, φ)."""

    def loss(theta: FloatArray, phi: FloatArray) -> FloatArray:
        logit = theta[:, None] + phi[:, None] * feature_RN
        cross_entropy = np.logaddexp(0.0, logit) - win_prob_N * logit
        return (weight_RN * cross_entropy).sum(1) + 0.5 * LENGTH_RIDGE * phi**2

    theta, phi = np.zeros(len(weight_RN)), np.zeros(len(weight_RN))
    value = loss(theta, phi)
    for _ in range(MAX_STEPS):
        chance = expit(theta[:, None] + phi[:, None] * feature_RN)
        pull, curve = weight_RN * (chance - win_prob_N), weight_RN * chance * (1.0 - chance)
        slope_theta, slope_phi = pull.sum(1), (pull * feature_RN).sum(1) + LENGTH_RIDGE * phi
        a = curve.sum(1) + 1e-12
        b = (curve * feature_RN).sum(1)
        c = (curve * feature_RN**2).sum(1) + LENGTH_RIDGE
        determinant = a * c - b * b
        step_theta = np.clip((c * slope_theta - b * slope_phi) / determinant, -5.0, 5.0)
        step_phi = np.clip((a * slope_phi - b * slope_theta) / determinant, -5.0, 5.0)
        scale = np.ones_like(theta)
        next_theta, next_phi, next_value = theta, phi, value
        for _ in range(HALVINGS):
            next_theta = np.clip(theta - scale * step_theta, -LARGEST, LARGEST)
            next_phi = phi - scale * step_phi
            next_value = loss(next_theta, next_phi)
            worse = next_value > value + 1e-12 * np.abs(value)
            if not worse.any():
                break
            scale = np.where(worse, scale / 2.0, scale)
        moved = np.maximum(np.abs(next_theta - theta), np.abs(next_phi - phi))
        theta, phi, value = next_theta, next_phi, next_value
        if moved.max() < TOLERANCE:
            break
    return theta, phi


def _prompt_weights(cluster_N: IndexArray) -> FloatArray:
    """One for each prompt, shared by its comparisons."""
    return 1.0 / np.bincount(cluster_N)[cluster_N]
