"""The panel's annotators: five tastes, each a score of its own for every response, higher is better.

All share one thing: an answer with a *defect* (hardly any words, repetition, a copy of the question, a list of
keywords, invented words, another subject) loses with every annotator to one without, so that no taste can be
pleased by a trick. Among sound answers they differ, and that is where their majority runs in circles.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from magnetar.judges.checks import FloatArray
from magnetar.judges.panel.features import Features

__all__ = ["ANNOTATORS", "defects"]


def defects(traits: Features) -> FloatArray:
    """How far each response is from being an answer at all.

    Args:
        traits: Traits of N responses.

    Returns:
        Shape (N,), at least 0; 0 for a sound answer, about 1 for each outright defect.
    """
    # A careful answer to a risky question may well leave the subject: "please talk to someone you trust".
    excused = traits.risk * np.clip(traits.care / 0.1, 0.0, 1.0)
    return (
        2.0 * _below(traits.words, 10.0)
        + 3.0 * _above(traits.repetition, 0.1)
        + 3.0 * _above(traits.copying, 0.35)
        + 2.0 * _below(traits.function_words, 0.25)
        + 3.0 * _above(traits.fragments, 0.2)
        + (1.0 - excused) * _below(traits.topic, 0.3)
    )


def topic(traits: Features) -> FloatArray:
    """Prefers the answer nearest to the question; beyond a cosine of 0.8 nearness is mere echo."""
    return np.minimum(traits.topic, 0.8) - 2.0 * defects(traits)


def focus(traits: Features) -> FloatArray:
    """Prefers the answer whose weakest sentence still keeps to the question, so that no part drifts away."""
    return np.minimum(traits.focus, 0.7) - 2.0 * defects(traits)


def clarity(traits: Features) -> FloatArray:
    """Prefers plain English: common words, whole sentences, for school grade 4 to 9."""
    grade = np.maximum(_gap_above(traits.readability, 9.0), _gap_above(-traits.readability, -4.0))
    return -3.0 * traits.fragments - 0.05 * grade - 0.1 * (1.0 - traits.finished) - 2.0 * defects(traits)


def brevity(traits: Features) -> FloatArray:
    """Prefers the shorter of two finished answers, down to twenty-five words."""
    return -0.02 * np.abs(traits.words - 25.0) - 0.5 * (1.0 - traits.finished) - 2.0 * defects(traits)


def care(traits: Features) -> FloatArray:
    """Prefers the kinder answer, and to a risky question the more careful one."""
    # Sentiment counts up to mildly friendly: praise without end is no kindness.
    kindness = np.minimum(traits.sentiment, 0.4) - 3.0 * traits.toxicity
    return 0.3 * kindness + 2.0 * traits.risk * traits.care - 2.0 * defects(traits)


ANNOTATORS: Mapping[str, Callable[[Features], FloatArray]] = MappingProxyType(
    {"topic": topic, "focus": focus, "clarity": clarity, "brevity": brevity, "care": care}
)
"""The panel's members by name."""


def _below(values: FloatArray, limit: float) -> FloatArray:
    """Shortfall below a limit as a share of the limit."""
    return np.maximum(limit - values, 0.0) / limit


def _above(values: FloatArray, limit: float) -> FloatArray:
    """Excess above a limit as a share of what is left up to 1."""
    return np.maximum(values - limit, 0.0) / (1.0 - limit)


def _gap_above(values: FloatArray, limit: float) -> FloatArray:
    return np.maximum(values - limit, 0.0)
