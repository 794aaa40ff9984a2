"""Answers of a comparison to read beside each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.evaluation.comparison.contestants import REFERENCE, Answers
from magnetar.evaluation.comparison.round_robin import WinRates
from magnetar.evaluation.comparison.tables import FinishedRun
from magnetar.evaluation.suite.results import SampleRecord

__all__ = ["comparison_samples"]


def comparison_samples(
    runs: Sequence[FinishedRun],
    answers: Mapping[str, Answers],
    prompts: Sequence[Any],
    rates: WinRates,
    judge: str,
    *,
    count: int,
    seed: int,
) -> tuple[SampleRecord, ...]:
    """Draw prompts at random, with the first response of each method's first run and of the reference.

    Args:
        runs: Finished runs.
        answers: By contestant.
        prompts: B prompts, as they were answered.
        rates: Win rates on each prompt.
        judge: Its name.
        count: How many to draw; all if there are fewer.
        seed: Of the draw.

    Returns:
        Samples whose win probabilities are means over all responses of both to the prompt, None where unanswered.
    """
    first: dict[str, str] = {}
    for run in runs:
        first.setdefault(run.label, run.name)
    shown = {**first, REFERENCE: REFERENCE}
    rows = np.random.default_rng(seed).permutation(len(prompts))[:count].tolist()
    between = rates.between(list(shown.values()), list(shown.values()))
    samples = []
    for row in rows:
        win_prob = {
            label: {
                other: None if np.isnan(rate := between[i, j, row]) else float(rate)
                for j, other in enumerate(shown)
                if i != j
            }
            for i, label in enumerate(shown)
        }
        responses = {label: answers[name].responses.texts[row][0] for label, name in shown.items()}
        samples.append(SampleRecord(prompts[row], None, responses, {}, {judge: win_prob}))
    return tuple(samples)
