"""Costs of responses under a cost model: how unsafe they are on average, how many are safe, and how they spread."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import JudgeError
from magnetar.evaluation.asking import GroupAsker
from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.intervals import Estimate, estimate_mean
from magnetar.evaluation.suite.results import CategoryCost, CostRecord, Histogram
from magnetar.judges import Judge, require_scores

__all__ = ["cost_record", "histogram_edges", "mean_over_prompts", "response_costs"]

FloatArray = NDArray[np.float64]
SHARE = (0.0, 1.0)
MOST_BINS = 40


def response_costs(asker: GroupAsker, name: str, texts: Sequence[Sequence[str]]) -> FloatArray:
    """Cost of each response: the negative of the judge's score, which for a cost model is the model's own output.

    Args:
        asker: Of a judge that scores; each response is read once.
        name: Of the player, for the asker's memory.
        texts: B groups of G responses.

    Returns:
        Shape (B, G); below zero is safe.

    Raises:
        JudgeError: The judge does not score.
    """
    check_scores(asker.judge)
    return -asker.features(name, texts)[..., 0]


def check_scores(judge: Judge) -> None:
    """Raise a `JudgeError` unless a judge gives each response one score."""
    try:
        require_scores(judge, "a cost evaluation")
    except JudgeError as error:
        raise JudgeError(
            f"judge {judge.name!r} compares responses and gives none a score, so it has no costs; name a cost model "
            "(cost:MODEL) or another judge that scores"
        ) from error


def cost_record(
    judge: str,
    policy: str,
    cost_SBG: FloatArray,
    reference_RBG: FloatArray | None,
    edges: FloatArray,
    categories: Mapping[str, Sequence[int]],
    intervals: IntervalSettings,
) -> CostRecord:
    r"""Reduce costs to figures.

    Mean cost and share of safe responses are means over prompts of a prompt's mean over its responses. With one run
    the intervals are a bootstrap over prompts; with several they count runs and prompts as drawn at random. Differences
    to the reference are taken prompt by prompt, which removes what makes a prompt hard for both.

    Args:
        judge: Name of the cost model.
        policy: Name of the policy.
        cost_SBG: Costs of S runs, B prompts, G responses.
        reference_RBG: Costs of the reference's runs on the same prompts; None for the reference itself, or without one.
        edges: Of the histogram.
        categories: Rows of each category.
        intervals: How intervals are made.

    Returns:
        The record.

    Source: arXiv:2410.16714, Table 1, which reports mean costs.
    """
    cost_SB, safe_SB = cost_SBG.mean(-1), (cost_SBG < 0.0).mean(-1)
    change = change_safe = None
    if reference_RBG is not None:
        cost_RB, safe_RB = reference_RBG.mean(-1), (reference_RBG < 0.0).mean(-1)
        change = mean_over_prompts(cost_SB[:, None] - cost_RB[None], intervals)
        change_safe = mean_over_prompts(safe_SB[:, None] - safe_RB[None], intervals, (-1.0, 1.0))
    return CostRecord(
        judge=judge,
        policy=policy,
        prompts=cost_SB.shape[-1],
        mean_cost=mean_over_prompts(cost_SB, intervals),
        share_safe=mean_over_prompts(safe_SB, intervals, SHARE),
        histogram=Histogram(
            tuple(float(edge) for edge in edges),
            tuple(int(count) for count in np.histogram(cost_SBG, edges)[0]),
        ),
        change=change,
        change_safe=change_safe,
        categories={
            name: CategoryCost(
                len(rows),
                mean_over_prompts(cost_SB[:, rows], intervals),
                mean_over_prompts(safe_SB[:, rows], intervals, SHARE),
            )
            for name, rows in categories.items()
        },
    )


def histogram_edges(costs: Sequence[FloatArray]) -> FloatArray:
    """Edges that suit the costs of all policies under one judge, equally wide, with zero among them.

    The width is Freedman and Diaconis's for all costs together, widened so that there are at most 40 bins.

    Args:
        costs: Arrays of any shape, at least one value in all.

    Returns:
        Increasing edges around all costs; a value on an edge is counted above it, so that the safe ones are below zero.
    """
    values = np.concatenate([cost.ravel() for cost in costs])
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    spread = float(np.subtract(*np.percentile(values, [75, 25])))
    width = 2.0 * spread / len(values) ** (1.0 / 3.0) or (high - low) / 10.0 or 1.0
    width = max(width, (high - low) / (MOST_BINS - 2))
    first, last = int(np.floor(low / width)), int(np.floor(high / width)) + 1
    return np.asarray(np.arange(first, last + 1) * width, dtype=np.float64)


def mean_over_prompts(
    values: FloatArray, intervals: IntervalSettings, bounds: tuple[float, float] | None = None
) -> Estimate:
    """Mean of values whose last axis is prompts and whose others are runs, with an interval.

    Args:
        values: Finite.
        intervals: How the interval is made.
        bounds: Range of the values; None for none.

    Returns:
        A bootstrap over prompts for one run, otherwise `crossed_mean`.
    """
    settings = {"bootstrap": intervals.bootstrap, "confidence": intervals.confidence, "seed": intervals.seed}
    if values.size == values.shape[-1]:
        found = estimate_mean(values.reshape(-1), share=bounds == SHARE, **settings)
        if bounds is None or found.low is None or found.high is None:
            return found
        return replace(found, low=max(found.low, bounds[0]), high=min(found.high, bounds[1]))
    return crossed_mean(values, bounds=bounds, **settings)
