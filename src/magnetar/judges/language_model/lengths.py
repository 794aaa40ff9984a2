"""Texts too long for a model: cut out of the middle, all of them to one limit."""

from collections.abc import Callable, Sequence

__all__ = ["CUT", "cut_middle", "shared_limit"]

CUT = "\n[… cut …]\n"
"""What stands in the place of what was cut."""


def shared_limit(lengths: Sequence[int], budget: int) -> int:
    """Largest limit c with ``Σ min(length, c) ≤ budget``: short texts stay whole, long ones share what is left.

    It does not depend on the order of the texts, so that a response is cut alike in both orders.

    Args:
        lengths: Lengths, at least 0.
        budget: What they may have together, at least 0.

    Returns:
        The limit, at least 0.
    """
    left = budget
    rest = sorted(lengths)
    while rest and rest[0] * len(rest) <= left:
        left -= rest.pop(0)
    return left // len(rest) if rest else max(lengths, default=0)


def cut_middle(text: str, limit: int, length: Callable[[str], int]) -> str:
    """Cut the middle out of a text that is too long, so that its beginning and its end stay.

    Args:
        text: Any text.
        limit: Largest length allowed.
        length: Length of a text, in whatever unit `limit` has; longer for a longer text.

    Returns:
        The text itself if it is short enough; else beginning, `CUT`, end, and the whole of it at most `limit` long;
        empty where not even that fits.
    """
    if length(text) <= limit:
        return text
    fits, fails = -1, len(text)
    # Characters kept; the length in tokens grows with them, though not evenly, hence by halving.
    while fails - fits > 1:
        keep = (fits + fails) // 2
        if length(_cut(text, keep)) <= limit:
            fits = keep
        else:
            fails = keep
    return _cut(text, fits) if fits > 0 else ""


def _cut(text: str, keep: int) -> str:
    head = (keep + 1) // 2
    return text[:head] + CUT + text[len(text) - (keep - head) :]
