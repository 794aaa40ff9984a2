"""Comparisons of features by name, so that recorded features can be compared again without their judge."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.checks import FloatArray
from magnetar.judges.pointwise import bradley_terry

__all__ = ["COMPARISONS", "compare_by", "vote"]


def vote(first: FloatArray, second: FloatArray, same_score: float) -> FloatArray:
    """Share of annotators that prefer the first response, ties half.

    Args:
        first: A score by each annotator, shape (..., annotators).
        second: A shape that broadcasts with it.
        same_score: Scores that differ by less are a tie.

    Returns:
        The broadcast shape without the annotators, in [0, 1].
    """
    difference = first - second
    return (0.5 + 0.5 * np.sign(np.where(np.abs(difference) < same_score, 0.0, difference))).mean(-1)


def _scores(first: FloatArray, second: FloatArray, temperature: float) -> FloatArray:
    return bradley_terry(first[..., 0], second[..., 0], temperature)


def _embeddings(first: FloatArray, second: FloatArray, temperature: float) -> FloatArray:
    from magnetar.modeling.general_preference import skew_score  # loads torch

    return expit(skew_score(first, second) / temperature)


COMPARISONS: Mapping[str, Callable[..., FloatArray]] = MappingProxyType(
    {"bradley_terry": _scores, "general": _embeddings, "vote": vote}
)
"""Functions of features (..., D), (..., D) and settings, by the name that `PointwiseJudge.comparison` gives."""


def compare_by(comparison: Mapping[str, Any], first: FloatArray, second: FloatArray) -> FloatArray:
    """Win probability from features, by a named comparison.

    Args:
        comparison: Its "rule" is a key of `COMPARISONS`, the rest are settings, as `PointwiseJudge.comparison` says.
        first: Shape (..., D).
        second: A shape that broadcasts with it.

    Returns:
        P(first beats second), the broadcast shape without D.

    Raises:
        JudgeError: If the rule is unknown or its settings are wrong.
    """
    settings = dict(comparison)
    rule = str(settings.pop("rule", None))
    if rule not in COMPARISONS:
        raise JudgeError(unknown_name("comparison of features", rule, COMPARISONS))
    try:
        return COMPARISONS[rule](first, second, **settings)
    except TypeError as error:
        raise JudgeError(f"the comparison {rule!r} does not take the settings {settings}: {error}") from error
