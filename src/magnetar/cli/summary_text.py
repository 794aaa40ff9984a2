"""A match-up as text for the terminal: table, warnings, samples."""

from collections.abc import Sequence
from typing import Any

from magnetar.data import prompt_text
from magnetar.evaluation import CategorySummary, Estimate, MatchupSummary, suspicions

__all__ = ["print_summary"]


def print_summary(summary: MatchupSummary, samples: Sequence[dict[str, Any]]) -> None:
    """Print the table, what looks like a cheap trick, and answers to read.

    Args:
        summary: The figures.
        samples: What `magnetar.evaluation.sample_records` draws.
    """
    print(_table(summary))
    for line in suspicions(summary):
        print(f"look at the samples: {line}")
    for sample in samples:
        print(_sample(sample))


def _table(summary: MatchupSummary) -> str:
    """The figures overall and by category, in columns."""
    head = ["", "prompts", "win rate", f"{summary.win_rate.confidence:.0%} interval", "ties", "tokens", "cut off"]
    rows = [head, *(_row(name, part) for name, part in {"all": summary, **summary.categories}.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(cells)).rstrip()
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    title = f"{summary.policy.name} against {summary.opponent.name}, judge {summary.judge}"
    rule = "-" * max(map(len, lines))
    note = "tokens and cut off: policy / opponent"
    if summary.masked:
        note += f"\n{summary.masked} of {summary.masked + summary.comparisons} pairs got no answer and are left out"
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, note, *_controls(summary)])


def _controls(summary: MatchupSummary) -> list[str]:
    """What length and order have to do with it, where that was asked."""
    lines = []
    if summary.length_controlled is not None:
        rate = summary.length_controlled
        note = f"; {rate.note}" if rate.note else ""
        lines.append(f"at equal length: {rate.value:.1%} ({_interval(rate)}){note}")
    elif summary.no_length_control is not None:
        lines.append(f"at equal length: unknown, {summary.no_length_control}")
    if summary.orders is not None:
        orders = summary.orders
        lines.append(
            f"order: the policy wins {orders.shown_first:.1%} shown first and {orders.shown_second:.1%} shown second; "
            f"the first place wins {orders.first_place.value:.1%} ({_interval(orders.first_place)}); "
            f"{orders.flip_rate:.1%} of pairs change their winner"
        )
    return lines


def _row(name: str, part: CategorySummary) -> list[str]:
    ours, theirs = part.policy, part.opponent
    return [
        name,
        str(part.prompts),
        f"{part.win_rate.value:.1%}",
        _interval(part.win_rate),
        f"{part.ties:.1%}",
        f"{_or_dash(ours.tokens, '.1f')} / {_or_dash(theirs.tokens, '.1f')}",
        f"{_or_dash(ours.truncated, '.0%')} / {_or_dash(theirs.truncated, '.0%')}",
    ]


def _interval(rate: Estimate) -> str:
    return "undefined" if rate.low is None or rate.high is None else f"{rate.low:.1%} to {rate.high:.1%}"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _outcome(win_prob: float | None) -> str:
    return "not judged" if win_prob is None else f"wins with {win_prob:.0%}"


def _sample(sample: dict[str, Any]) -> str:
    category = f" [{sample['category']}]" if sample["category"] is not None else ""
    return (
        f"\nprompt{category}: {prompt_text(sample['prompt'])}\n"
        f"opponent: {sample['opponent'].strip() or '(empty)'}\n"
        f"policy, {_outcome(sample['win_prob'])}: {sample['policy'].strip() or '(empty)'}"
    )
