"""Distributions of costs, one below the other on one axis, with a line at zero: left of it is safe."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import PHONE_WIDTH, Drawing, Scale, frame, percent_words
from magnetar.reports.svg import compact, nice_ticks

__all__ = ["CostHistogram", "cost_distributions", "number_words"]

LEFT, RIGHT = 6.0, 6.0
NAME, HILL, GAP, AXIS = 17.0, 40.0, 9.0, 24.0


@dataclass(frozen=True)
class CostHistogram:
    """How the costs of one policy's answers are distributed.

    Attributes:
        name: The policy's.
        edges: Of the bins, increasing, one more than counts.
        counts: Of each bin.
        mean: Mean cost.
        safe: Share of answers with a cost below zero.
    """

    name: str
    edges: Sequence[float]
    counts: Sequence[float]
    mean: Estimate
    safe: Estimate

    def densities(self) -> list[float]:
        """Share of the answers for each unit of cost, bin by bin."""
        total = sum(self.counts) or 1.0
        return [
            count / total / ((high - low) or 1.0)
            for low, high, count in zip(self.edges, self.edges[1:], self.counts, strict=False)
        ]


def cost_distributions(title: str, histograms: Sequence[CostHistogram]) -> Drawing:
    """Draw the density of each policy's costs, safe and unsafe parts in two colours, the mean with its interval below.

    Args:
        title: What is drawn.
        histograms: At least one.

    Returns:
        The drawing; all have one scale, so that areas may be compared.
    """
    ends = [0.0] + [edge for one in histograms for edge in (one.edges[0], one.edges[-1])]
    ticks = nice_ticks(min(ends), max(ends), 5)
    scale = Scale(min(ends), max(ends), LEFT, PHONE_WIDTH - RIGHT)
    tallest = max((max(one.densities(), default=0.0) for one in histograms), default=0.0) or 1.0
    row = NAME + HILL + GAP
    floor = row * len(histograms)
    parts = []
    for tick in ticks:
        if scale.low <= tick <= scale.high:
            x = scale(tick)
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{floor:.1f}"/>'
                f'<text class="tick" x="{min(max(x, 12.0), PHONE_WIDTH - 12.0):.1f}" y="{floor + 15:.1f}" '
                f'text-anchor="middle">{escape(compact(tick))}</text>'
            )
    for at, one in enumerate(histograms):
        parts += _hill(one, scale, row * at, tallest)
    zero = scale(0.0)
    parts.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="4" y2="{floor:.1f}"/>')
    rows = tuple((one.name, number_words(one.mean), percent_words(one.safe)) for one in histograms)
    return Drawing(frame(title, PHONE_WIDTH, floor + AXIS, parts), ("", "mean cost", "cost below zero"), rows)


def number_words(estimate: Estimate | None) -> str:
    """A number with its interval in words."""
    if estimate is None or estimate.value != estimate.value:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}, no interval"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _hill(one: CostHistogram, scale: Scale, top: float, tallest: float) -> list[str]:
    base = top + NAME + HILL
    parts = [
        f'<text class="tick name" x="{LEFT}" y="{top + NAME - 5:.1f}">{escape(one.name[:34])}'
        f"<title>{escape(one.name)}</title></text>"
        f'<text class="tick figure-text" x="{PHONE_WIDTH - RIGHT}" y="{top + NAME - 5:.1f}" text-anchor="end">'
        f"{one.mean.value:.2f}, {one.safe.value:.0%} safe</text>"
    ]
    for low, high, density in zip(one.edges, one.edges[1:], one.densities(), strict=False):
        height = (HILL - 2.0) * density / tallest
        # A bin across zero is part safe, part unsafe; where in it the answers lie is not known.
        pieces = [(low, high)] if high <= 0.0 or low >= 0.0 else [(low, 0.0), (0.0, high)]
        for start, end in pieces:
            side = "safe" if end <= 0.0 else "unsafe"
            if height > 0.0:
                parts.append(
                    f'<rect class="hill {side}" x="{scale(start):.1f}" y="{base - height:.1f}" '
                    f'width="{scale(end) - scale(start):.1f}" height="{height:.1f}"/>'
                )
    parts.append(f'<line class="floor" x1="{LEFT}" x2="{PHONE_WIDTH - RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>')
    mean = scale(one.mean.value)
    if one.mean.low is not None and one.mean.high is not None:
        parts.append(
            f'<line class="whisk" x1="{scale(one.mean.low):.1f}" x2="{scale(one.mean.high):.1f}" '
            f'y1="{base:.1f}" y2="{base:.1f}"/>'
        )
    words = f"{one.name}: mean cost {number_words(one.mean)}; below zero {percent_words(one.safe)}"
    parts.append(f'<circle class="dot" cx="{mean:.1f}" cy="{base:.1f}" r="3.6"><title>{escape(words)}</title></circle>')
    return parts
