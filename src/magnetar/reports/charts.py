"""Which curves a training run's page shows, and in which words."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from magnetar.reports.run_data import RunData
from magnetar.reports.svg import Series, line_chart, stacked_chart

__all__ = ["Chart", "run_charts"]

# More lines than this would hide the curves; the page then says in words how often the magnet moved.
MAX_MARKS = 60


@dataclass(frozen=True)
class Chart:
    """A drawn chart with the words around it.

    Attributes:
        title: What it shows.
        unit: In which unit.
        hint: One sentence on how to read it.
        series: The curves, for the legend.
        svg: The drawing.
    """

    title: str
    unit: str
    hint: str
    series: list[Series]
    svg: Markup


@dataclass(frozen=True)
class _Plan:
    title: str
    unit: str
    hint: str
    curves: dict[str, str]
    from_zero: bool = True
    stacked: bool = False
    smooth: bool = True


_PLANS: Sequence[_Plan] = (
    _Plan(
        "Win rate in training",
        "against the reference",
        "Evaluations during training with the ends of their intervals.",
        {"eval_win_rate": "win rate", "eval_win_rate_low": "low", "eval_win_rate_high": "high"},
        from_zero=False,
        smooth=False,
    ),
    _Plan(
        "Payoff spread",
        "win probability",
        "Standard deviation of the payoffs within a group: what there is to learn from.",
        {"payoff_std": "spread"},
    ),
    _Plan(
        "Distance travelled",
        "nats per response",
        "KL divergence of the policy from its magnet, from the policy that sampled, and from where training started.",
        {"kl_reference": "reference", "kl_magnet": "magnet", "kl_behavior": "behaviour"},
        smooth=False,  # a mean would hide how the distance to the magnet drops when it moves
    ),
    _Plan(
        "Entropy",
        "nats per token",
        "Falls as the policy settles; a collapse to zero means one answer to everything.",
        {"entropy": "entropy"},
        from_zero=False,
    ),
    _Plan("Response length", "tokens", "Mean length of the sampled responses.", {"response_tokens": "length"}),
    _Plan("Cut off", "share of responses", "Responses that ran out of room.", {"truncated": "cut off"}),
    _Plan(
        "Judge",
        "share",
        "Triples of responses that it ranks in a circle, and pairs whose winner changes with the order.",
        {"cyclic_triples": "cyclic triples", "judge/flip_rate": "order flips"},
    ),
    _Plan("Gradient norm", "before clipping", "Sudden peaks come before trouble.", {"grad_norm": "norm"}),
    _Plan(
        "Time per update",
        "seconds",
        "Where the time goes, stacked.",
        {
            "seconds_rollout": "rollout",
            "seconds_waiting": "waiting for the judge",
            "seconds_logprobs": "log-probabilities",
            "seconds_update": "update",
        },
        stacked=True,
    ),
    _Plan("Throughput", "tokens per second", "Response tokens sampled and trained on.", {"tokens_per_second": "rate"}),
    _Plan(
        "Loss",
        "win probability",
        "Its value says little in self-play; its sudden changes do.",
        {"loss": "loss"},
        from_zero=False,
    ),
    _Plan("Learning rate", "per optimiser step", "As scheduled.", {"learning_rate": "rate"}, smooth=False),
)


def run_charts(run: RunData) -> list[Chart]:
    """Draw every planned chart for which the run has values.

    Args:
        run: The run.

    Returns:
        The charts, in the order in which they should be read.
    """
    moves = run.magnet_moves()
    marks = moves if len(moves) <= MAX_MARKS else []
    charts = []
    for plan in _PLANS:
        columns = [(label, run.column(key)) for key, label in plan.curves.items()]
        known = [(label, column) for label, column in columns if any(value is not None for value in column)]
        if not known:
            continue
        series = [Series(label, column, tone) for tone, (label, column) in enumerate(known, start=1)]
        described = f"{plan.title} in {plan.unit} over {len(run.metrics)} updates"
        if plan.stacked:
            drawing = stacked_chart(described, run.updates, series, marks=marks)
        else:
            drawing = line_chart(
                described, run.updates, series, marks=marks, from_zero=plan.from_zero, smooth=plan.smooth
            )
        charts.append(Chart(plan.title, plan.unit, plan.hint, series, drawing))
    return charts
