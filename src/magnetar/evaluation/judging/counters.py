"""What a judge's own counters say that a reader has to know."""

import re
from collections.abc import Iterator, Mapping

__all__ = ["disagreement_figures", "truncation_notes"]

PANEL = {
    "disagreement": ("judges apart", "mean distance of two judges' probabilities"),
    "split_share": ("judges on both sides", "share of the pairs that split the panel"),
}


def truncation_notes(counters: Mapping[str, float]) -> list[str]:
    """Whose inputs were cut, in words.

    Args:
        counters: What `Judge.stats` returned.

    Returns:
        A sentence for each judge that did not read all of its inputs.
    """
    notes = []
    for whose, share in _ending(counters, "truncated_share"):
        if share > 0.0:
            percent = f"{share:.0%}" if share >= 0.01 else "Less than 1%"
            notes.append(f"{whose}{percent} of the inputs were longer than the judge reads and were cut.")
    return notes


def disagreement_figures(counters: Mapping[str, float]) -> list[tuple[str, str, float, bool]]:
    """How far the judges of a panel are from each other.

    Args:
        counters: What `Judge.stats` returned.

    Returns:
        Name, explanation, value, and whether it is a share; empty for a judge that is no panel.
    """
    return [
        (f"{whose}{name}", hint, value, counter == "split_share")
        for counter, (name, hint) in PANEL.items()
        for whose, value in _ending(counters, counter)
    ]


def _ending(counters: Mapping[str, float], counter: str) -> Iterator[tuple[str, float]]:
    """The counters of this name, of the judge itself or of one within it, with a prefix that names the latter."""
    for name, value in counters.items():
        bare = re.sub(r"(^|/)(inner_)+", r"\1", name)
        whose, _, last = bare.rpartition("/")
        if last == counter:
            yield f"{whose}: " if whose else "", value
