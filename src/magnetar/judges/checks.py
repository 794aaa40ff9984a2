"""Checks of what judges are asked and of what they answer: each failure is one sentence with the value and the pair."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import JudgeError
from magnetar.types import Prompt

__all__ = [
    "FloatArray",
    "Groups",
    "IndexArray",
    "check_groups",
    "check_pairs",
    "check_text",
    "describe_pair",
    "short_text",
    "validate_features",
    "validate_win_prob",
]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
Groups = Sequence[Sequence[str]]
SYMMETRY_TOLERANCE = 1e-6
"""How far P + Pᵀ may be from 1: a judge may compute in float32."""


def validate_features(answer: object, prompts: Sequence[Prompt], responses: Sequence[str], judge: str) -> FloatArray:
    """Check that a pointwise judge's answer is N rows of finite numbers.

    Args:
        answer: What the judge returned: shape (N, D), or (N,) for one number each.
        prompts: The N prompts asked about.
        responses: The N responses asked about.
        judge: Name of the judge, for the message.

    Returns:
        The features as float64, shape (N, D).

    Raises:
        JudgeError: Naming the first bad response and its value.
    """
    features = _as_array(answer, judge, f"scores of shape ({len(responses)},)")
    if features.ndim not in (1, 2) or len(features) != len(responses):
        raise JudgeError(
            f"judge {judge!r} returned an array of shape {features.shape}, expected scores of shape "
            f"({len(responses)},), one for each response"
        )
    features = features.reshape(len(responses), -1)
    bad = np.argwhere(~np.isfinite(features))
    if bad.size:
        at, column = (int(i) for i in bad[0])
        raise JudgeError(
            f"judge {judge!r} scored response {at} {features[at, column]}, expected a finite number; "
            f"prompt {short_text(prompts[at])}, response {short_text(responses[at])}"
        )
    return features


def validate_win_prob(
    answer: object,
    shape: tuple[int, ...],
    judge: str,
    describe: Callable[[tuple[int, ...]], str] | None = None,
    *,
    antisymmetric: bool = False,
    masked: bool = False,
) -> FloatArray:
    """Check that an answer consists of win probabilities.

    Args:
        answer: What the judge returned, anything NumPy can read.
        shape: The shape it must have.
        judge: Name of the judge, for the message.
        describe: Says in words which pair an index stands for.
        antisymmetric: Whether the last two axes must hold ``P + Pᵀ = 1``, the diagonal 1/2.
        masked: Whether NaN is allowed; it stands for a pair that the judge could not answer.

    Returns:
        The answer as float64.

    Raises:
        JudgeError: Naming the first bad entry, its value, the expectation and the pair.
    """
    win_prob = _as_array(answer, judge, f"win probabilities of shape {shape}")
    if win_prob.shape != shape:
        raise JudgeError(
            f"judge {judge!r} returned an array of shape {win_prob.shape}, expected win probabilities of shape {shape}"
        )

    def where(at: tuple[int, ...]) -> str:
        return f"; {describe(at)}" if describe else ""

    # NaN compares false, so that the negation catches it too.
    bad = np.argwhere(~((win_prob >= 0.0) & (win_prob <= 1.0)) & ~(masked & np.isnan(win_prob)))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise JudgeError(
            f"judge {judge!r} answered P{list(at)} = {win_prob[at]}, expected a win probability in [0, 1]{where(at)}"
        )
    if antisymmetric:
        excess = np.abs(win_prob + win_prob.swapaxes(-1, -2) - 1.0)
        one_way = np.isnan(win_prob) != np.isnan(win_prob.swapaxes(-1, -2))
        bad = np.argwhere((excess > SYMMETRY_TOLERANCE) | one_way)
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            back = (*at[:-2], at[-1], at[-2])
            raise JudgeError(
                f"judge {judge!r} answered P{list(at)} + P{list(back)} = {win_prob[at] + win_prob[back]:.6g}, "
                f"expected 1; wrap the judge in Symmetrized{where(at)}"
            )
    return win_prob


def _as_array(answer: object, judge: str, what: str) -> FloatArray:
    try:
        return np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise JudgeError(
            f"judge {judge!r} returned {type(answer).__name__}, which is not an array of numbers ({error}); "
            f"expected {what}"
        ) from error


def check_pairs(judge: str, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> None:
    """Raise a `JudgeError` unless there are N prompts and N responses on each side."""
    check_text(judge, "first", first)
    check_text(judge, "second", second)
    if not len(prompts) == len(first) == len(second):
        raise JudgeError(
            f"judge {judge!r} was asked about {len(prompts)} prompts, {len(first)} first and {len(second)} "
            "second responses; give one of each for every pair"
        )


def check_groups(judge: str, what: str, prompts: Sequence[Prompt], groups: Groups) -> int:
    """Check that there are B groups of one size, and return that size."""
    if len(prompts) != len(groups):
        raise JudgeError(
            f"judge {judge!r} was given {len(prompts)} prompts and {len(groups)} groups of {what}; "
            "give one group for each prompt"
        )
    for at, group in enumerate(groups):
        check_text(judge, f"{what}[{at}]", group)
        if len(group) != len(groups[0]):
            raise JudgeError(
                f"judge {judge!r}: {what}[{at}] holds {len(group)} texts and {what}[0] holds {len(groups[0])}; "
                "all groups of one call must have the same size"
            )
    return len(groups[0]) if len(groups) else 0


def check_text(judge: str, what: str, texts: Sequence[str]) -> None:
    """Raise a `JudgeError` unless these are texts."""
    # A bare string is a sequence of strings too, and would be judged letter by letter.
    if isinstance(texts, str):
        raise JudgeError(f"judge {judge!r}: {what} is one text {short_text(texts)}, expected a sequence of texts")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise JudgeError(f"judge {judge!r}: {what}[{at}] is a {type(text).__name__}, expected text")


def describe_pair(prompt: Prompt, first: str, second: str) -> str:
    """Say in words which pair is meant."""
    return f"prompt {short_text(prompt)}, first {short_text(first)}, second {short_text(second)}"


def short_text(value: Prompt, limit: int = 80) -> str:
    """The beginning of a text or dialogue, quoted."""
    text = value if isinstance(value, str) else " / ".join(turn.get("content", "") for turn in value)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
