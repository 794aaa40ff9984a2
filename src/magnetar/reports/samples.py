"""Prompts with the answers of several policies side by side, as the templates show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.comparison.results import ComparisonResult
from magnetar.evaluation.suite import PolicyRecord, SuiteResult
from magnetar.reports.environment import prompt_turns

__all__ = ["Sample", "SampleView", "Side", "comparison_view", "pair_view", "suite_view"]

Wins = dict[str, dict[str, dict[str, float | None]]]


@dataclass(frozen=True)
class Side:
    """One answer.

    Attributes:
        name: Number of whose answer it is, among the view's names.
        text: The answer.
        chips: What else is known of it, in a few letters each.
    """

    name: int
    text: str
    chips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One prompt.

    Attributes:
        turns: Of the prompt, as (role, text).
        category: None without categories.
        sides: The answers.
        wins: Number of the judge → of the policy → of the opponent → P(policy's answer beats opponent's).
        rate: That of the right side against the left one at first; None where unknown.
    """

    turns: list[tuple[str, str]]
    category: str | None
    sides: tuple[Side, ...]
    wins: Wins
    rate: float | None


@dataclass(frozen=True)
class SampleView:
    """All samples of a page.

    Attributes:
        title: Heading.
        intro: Below it.
        names: Whose answers there are.
        judges: Who compared them.
        left: Number of the name that is shown left at first.
        right: Likewise right.
        samples: In the order in which they are shown.
        categories: Samples by category, in alphabetical order.
    """

    title: str
    intro: str
    names: Sequence[str]
    judges: Sequence[str]
    left: int
    right: int
    samples: Sequence[Sample]
    categories: Mapping[str, int] = field(default_factory=dict)


def pair_view(samples: Sequence[Mapping[str, Any]], sides: tuple[str, str]) -> SampleView:
    """The samples of a match-up.

    Args:
        samples: Objects as `magnetar.evaluation.sample_records` gives them.
        sides: What the opponent's and the policy's answers are called.

    Returns:
        What the templates show.

    Raises:
        DataError: A sample is damaged.
    """
    try:
        shown = [
            _pair(
                sample["prompt"],
                sample.get("category"),
                str(sample["opponent"]),
                str(sample["policy"]),
                None if sample["win_prob"] is None else float(sample["win_prob"]),
            )
            for sample in samples
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"an evaluation sample is damaged ({type(error).__name__}: {error}); expected prompt, category, policy, "
            "opponent and win_prob"
        ) from error
    intro = (
        f"Drawn at random, not picked. The percentage is the judge's probability that “{sides[1]}” beats “{sides[0]}”."
    )
    title = f"{sides[0]} and {sides[1].lower()}"
    return SampleView(title, intro, sides, ["judge"], 0, 1, shown, _counts(shown))


def suite_view(result: SuiteResult) -> SampleView | None:
    """The samples of a suite, the reference left and the last other policy right.

    Args:
        result: What was found.

    Returns:
        What the templates show; None without samples.
    """
    if not result.samples:
        return None
    names = [name for name in result.policies if any(name in one.responses for one in result.samples)]
    numbers = {name: at for at, name in enumerate(names)}
    judges = [judge for judge in result.judges if any(judge in one.win_prob for one in result.samples)]
    left = numbers.get(result.reference or "", 0)
    right = next((at for at in range(len(names) - 1, -1, -1) if at != left), left)
    shown = []
    for one in result.samples:
        sides = tuple(
            Side(
                numbers[name],
                text,
                tuple(
                    f"{f'{judge} ' if len(one.costs) > 1 else 'cost '}{costs[name]:.2f}"
                    for judge, costs in one.costs.items()
                    if name in costs
                ),
            )
            for name, text in one.responses.items()
            if name in numbers
        )
        wins: Wins = {
            str(at): {
                str(numbers[policy]): {str(numbers[other]): rate for other, rate in rates.items() if other in numbers}
                for policy, rates in one.win_prob.get(judge, {}).items()
                if policy in numbers
            }
            for at, judge in enumerate(judges)
        }
        sides = tuple(sorted(sides, key=lambda side: side.name))
        shown.append(Sample(prompt_turns(one.prompt), one.category, sides, wins, _rate(wins, right, left)))
    intro = (
        "Drawn at random, not picked. Choose whose answers to read beside each other. The percentage is the judge's "
        "probability that the answer on the right beats the one on the left."
    )
    return SampleView("Answers side by side", intro, names, judges, left, right, shown, _counts(shown))


def comparison_view(result: ComparisonResult) -> SampleView:
    """The samples of a comparison, the reference left and the first method right.

    Args:
        result: What was found; its win probabilities are means over the responses to a prompt, of which one is shown.

    Returns:
        What the templates show; without samples in older files.
    """
    suite = SuiteResult(
        policies={label: PolicyRecord((), "model") for label in [*result.labels[1:], *result.labels[:1]]},
        reference=result.labels[-1] if result.labels else None,
        judges={result.eval_judge: result.eval_judge},
        samples=result.samples,
    )
    view = suite_view(suite) or SampleView("Answers side by side", "", [], [], 0, 0, [])
    intro = (
        "Drawn at random, not picked: the first response of each method's first run. The percentage is the judge's "
        "mean probability, over all responses to the prompt, that the method on the right beats the one on the left."
    )
    return replace(view, intro=intro)


def _pair(prompt: Any, category: Any, opponent: str, policy: str, rate: float | None) -> Sample:
    label = None if category is None else str(category)
    return Sample(prompt_turns(prompt), label, (Side(0, opponent), Side(1, policy)), {"0": {"1": {"0": rate}}}, rate)


def _rate(wins: Wins, policy: int, opponent: int) -> float | None:
    """P(policy beats opponent) by the first judge, from either side's figure."""
    rates = wins.get("0", {})
    found = rates.get(str(policy), {}).get(str(opponent))
    if found is not None:
        return found
    other = rates.get(str(opponent), {}).get(str(policy))
    return None if other is None else 1.0 - other


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    labels = [one.category for one in samples if one.category is not None]
    return {label: labels.count(label) for label in sorted(set(labels))}
