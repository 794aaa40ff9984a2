"""What every drawing is made of: a scale, text, the frame, and the table that stands for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from magnetar.evaluation.intervals import Estimate

__all__ = ["LETTER", "PHONE_WIDTH", "TONES", "Drawing", "Scale", "frame", "label_lines", "percent", "percent_words"]

PHONE_WIDTH = 360.0  # at this width letters of a drawing are as large on a phone as those of the page's small print
LETTER = 6.2  # mean width of a letter of a label, in the drawing's units
TONES = 8  # colours of the style sheet


@dataclass(frozen=True)
class Drawing:
    """A picture, and its figures for whoever cannot see it.

    Attributes:
        svg: An ``svg`` element.
        header: Of the columns of the table.
        rows: Of the table, in words.
    """

    svg: Markup
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Scale:
    """Maps a range of data to a range of the drawing, linearly; what lies outside is drawn at the end.

    Attributes:
        low: Smallest value.
        high: Largest value.
        start: Place of the smallest.
        end: Place of the largest.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Place of a value."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def frame(title: str, width: float, height: float, parts: Sequence[str], *, natural: bool = False) -> Markup:
    """The ``svg`` element around a drawing's parts.

    Args:
        title: What it shows, for screen readers.
        width: In the drawing's units.
        height: Likewise.
        parts: Elements, escaped.
        natural: Whether to keep its size and be scrolled sideways, rather than to shrink until it fits.

    Returns:
        The element.
    """
    size = f' style="width:{width:.0f}px;max-width:none"' if natural else ""
    return Markup(
        f'<svg class="plot"{size} viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def label_lines(label: str, letters: int, lines: int = 2) -> list[str]:
    """Break a label at spaces and signs between words into lines of at most so many letters.

    Args:
        label: The label.
        letters: At most so many in a line.
        lines: At most so many lines; the last one ends with … where more would be needed.

    Returns:
        At least one line.
    """
    words, word = [], ""
    for letter in label:
        word += letter
        if letter in " _-/:=":
            words.append(word)
            word = ""
    told = [""]
    for piece in [*words, word]:
        while len(piece) > letters:
            words_left = letters - len(told[-1])
            told[-1] += piece[:words_left]
            piece = piece[words_left:]
            told.append("")
        if len((told[-1] + piece).rstrip()) > letters:
            told.append("")
        told[-1] += piece
    told = [line.strip() for line in told if line.strip()] or [""]
    if len(told) > lines:
        told = [*told[: lines - 1], told[lines - 1][: letters - 1] + "…"]
    return told


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent, – where there is none."""
    return "–" if value is None or value != value else f"{100.0 * value:.{digits}f}%"


def percent_words(estimate: Estimate | None) -> str:
    """A share with its interval in words."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.1%}, no interval"
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
