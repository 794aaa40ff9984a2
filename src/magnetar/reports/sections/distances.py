"""Win rates over the distance from the reference: what each policy won, and how far it went for it."""

from dataclasses import replace

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import PolicyRecord, SuiteResult
from magnetar.reports.drawing.scatter import distance_plot, nats_words
from magnetar.reports.sections.blocks import Figure, Section, Table, judge_title, policy_tones
from magnetar.reports.sections.matchups import against, matchup_judges

__all__ = ["distance_sections", "rates_by_distance"]


def rates_by_distance(result: SuiteResult, judge: str) -> dict[str, tuple[Estimate, Estimate]]:
    """Distance from the reference in nats, and win rate against it, of each policy that has both.

    With several seeds the distance's line reaches from the nearest to the farthest run: an interval over two runs that
    differ would reach over the whole picture, and where each run ended is known.

    Args:
        result: What was found.
        judge: Name of the judge.

    Returns:
        Both by policy, in the order of the policies.
    """
    rates = against(result, judge, result.reference) if result.reference is not None else {}
    return {
        name: (far, one.win_rate)
        for name, one in rates.items()
        if (far := _over_runs(result.policies[name])) is not None
    }


def _over_runs(policy: PolicyRecord) -> Estimate | None:
    if policy.distance is None or len(policy.run_distances) < 2:
        return policy.distance
    return replace(policy.distance, low=min(policy.run_distances), high=max(policy.run_distances))


def distance_sections(result: SuiteResult) -> list[Section]:
    """One figure for each judge, and the distances as a table.

    Args:
        result: What was found.

    Returns:
        One section, or none where no distance was measured.
    """
    measured = {name: one for name, one in result.policies.items() if one.distance is not None}
    if not measured:
        return []
    judges = matchup_judges(result)
    tones = policy_tones(result)
    figures = []
    seeds = any(len(one.run_distances) > 1 for one in measured.values())
    across = "Lines across reach from the nearest to the farthest seed. " if seeds else ""
    for judge in judges:
        points = rates_by_distance(result, judge)
        if points:
            figures.append(
                Figure(
                    judge_title("Win rate over distance", judge, judges),
                    distance_plot(
                        f"Win rate against {result.reference} under {judge} over the distance from it", "win rate",
                        points, tones,
                        distance_name="distance, nats (nearest to farthest seed)" if seeds else "distance, nats",
                    ),
                    legend=[f"{number} {name}" for number, name in enumerate(points, start=1)],
                    tones=[tones[name] for name in points],
                    hint=f"Up and to the left is better: more won, less changed. {across}The axis is that of the "
                    "square root.",
                )
            )  # fmt: skip
    intro = (
        f"How far each policy went from {result.reference}: KL divergence from it on the policy's own responses to "
        "these prompts. Whoever goes far enough finds what a judge mistakes for good, so win rates are best compared "
        "at one distance."
    )
    rows = [
        [name, nats_words(one.distance)] + ([", ".join(f"{value:.2f}" for value in one.run_distances)] if seeds else [])
        for name, one in measured.items()
    ]
    note = "Intervals over prompts (and seeds, where there are several)."
    table = Table(["", "nats a response", *(["each seed"] if seeds else [])], rows, note)
    return [Section("Distance", intro, figures, [table])]
