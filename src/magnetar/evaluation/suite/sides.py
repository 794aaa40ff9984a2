"""What a policy's responses look like on average over its runs."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from magnetar.evaluation.degeneracy import Degeneracy
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.summary import SideSummary, side_summary

__all__ = ["mean_sides"]


def mean_sides(name: str, runs: Sequence[Responses]) -> SideSummary:
    """Figures of a policy's responses, the mean over its runs.

    Args:
        name: Of the policy.
        runs: Responses of each run to the same prompts, at least one run.

    Returns:
        The figures; None where one run's are unknown.
    """
    sides = [side_summary(name, run) for run in runs]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    varied = {f.name: mean([getattr(side.degeneracy, f.name) for side in sides]) for f in fields(Degeneracy)}
    return SideSummary(
        name=name,
        responses_per_prompt=sides[0].responses_per_prompt,
        tokens=mean([side.tokens for side in sides]),
        characters=float(np.mean([side.characters for side in sides])),
        truncated=mean([side.truncated for side in sides]),
        degeneracy=Degeneracy(**varied),  # type: ignore[arg-type]
    )
