"""Judges that score: one number for each response, for methods that maximise it."""

from collections.abc import Sequence

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray, Groups
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.types import Prompt

__all__ = ["group_scores", "no_scores", "require_scores"]


def require_scores(judge: Judge, needed_by: str) -> PointwiseJudge:
    """The judge, if it gives each response one score, with or without wrappers around it.

    Args:
        judge: Any judge.
        needed_by: What needs the scores, for the message.

    Returns:
        The same judge.

    Raises:
        JudgeError: It compares, or reads several numbers.
    """
    rule = judge.comparison() if isinstance(judge, PointwiseJudge) else None
    if isinstance(judge, PointwiseJudge) and rule is not None and rule["rule"] == "bradley_terry":
        return judge
    raise no_scores(judge.name, needed_by)


def no_scores(judge: str, needed_by: str) -> JudgeError:
    """The error of a judge that compares where one that scores is needed."""
    return JudgeError(
        f"{needed_by} maximises one score per response, but judge {judge!r} only says which of two responses is "
        "better; give a judge that scores (reward:MODEL, cost:MODEL, or a Python function of one response), or choose "
        "a method that learns from preferences, such as 'mpo'"
    )


def group_scores(judge: PointwiseJudge, prompts: Sequence[Prompt], responses: Groups) -> tuple[FloatArray, FloatArray]:
    """Score each response of each group, reading it once, and compare the responses by their scores.

    Args:
        judge: As `require_scores` returned it.
        prompts: B prompts.
        responses: B groups of G responses.

    Returns:
        Scores, shape (B, G), and win probabilities within the groups, shape (B, G, G).

    Raises:
        JudgeError: As `PointwiseJudge.features`.
    """
    size = len(responses[0])
    repeated = [prompt for prompt in prompts for _ in range(size)]
    features = judge.features(repeated, [text for group in responses for text in group])
    grouped = features.reshape(len(prompts), size, -1)
    win_prob = judge.compare(grouped[:, :, None], grouped[:, None, :])
    places = np.arange(size)
    win_prob[:, places, places] = 0.5
    return grouped[..., 0], win_prob
