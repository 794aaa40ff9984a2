"""Charts of a judge's page: how probabilities and outcomes agree, and what length does."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from magnetar.evaluation.judging.measures import LengthCurve
from magnetar.evaluation.judging.statistics import Bins
from magnetar.reports.svg import compact, nice_ticks

__all__ = ["interval_chart", "length_chart", "reliability_chart"]

SIZE, LEFT, BOTTOM, TOP, RIGHT = 320.0, 40.0, 58.0, 8.0, 10.0
BAR_HEIGHT = 26.0
Entry = tuple[str, float, float | None, float | None]


def reliability_chart(bins: Bins) -> Markup:
    """Draw observed frequency over predicted probability, with the share of answers in each bin below.

    Args:
        bins: The reliability curve.

    Returns:
        An ``svg`` element.
    """
    side = SIZE - LEFT - RIGHT

    def x(value: float) -> float:
        return LEFT + side * value

    def y(value: float) -> float:
        return TOP + side * (1.0 - value)

    total, most = sum(bins.count), max(bins.count)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + side}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:g}</text>'
        f'<text class="tick" x="{x(tick):.1f}" y="{TOP + side + 15:.1f}" text-anchor="middle">{tick:g}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts.append(f'<line class="mark" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    points, base = [], TOP + side + BOTTOM - 8.0
    for low, high, count, predicted, observed in zip(
        bins.edges, bins.edges[1:], bins.count, bins.predicted, bins.observed, strict=False
    ):
        height = 28.0 * count / most if most else 0.0
        words = f"{low:.2g} to {high:.2g}: {count / total:.0%} of the answers"
        if predicted is not None and observed is not None:
            words += f", mean {predicted:.2f}, happened {observed:.2f}"
            radius = 3.0 + 4.0 * (count / most) ** 0.5
            points.append((x(predicted), y(observed), radius, words))
        parts.append(
            f'<rect class="band tone-1" x="{x(low) + 0.5:.1f}" y="{base - height:.1f}" '
            f'width="{max(side * (high - low) - 1.0, 0.5):.1f}" height="{height:.1f}">'
            f"<title>{escape(words)}</title></rect>"
        )
    path = " L".join(f"{px:.1f} {py:.1f}" for px, py, _, _ in points)
    parts.append(f'<path class="curve tone-1" d="M{path}"/>')
    parts += [
        f'<circle class="curve tone-1" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">'
        f"<title>{escape(words)}</title></circle>"
        for px, py, radius, words in points
    ]
    return _svg("Observed share of wins over the judge's probability", SIZE, TOP + side + BOTTOM, parts)


def length_chart(curve: LengthCurve) -> Markup:
    """Draw how often the longer response wins over how much longer it is, for the judge and for the labels.

    Args:
        curve: The curve, with at least one bin.

    Returns:
        An ``svg`` element.
    """
    side = SIZE - LEFT - RIGHT
    ticks = nice_ticks(0.0, max(curve.difference))

    def x(value: float) -> float:
        return LEFT + side * value / ticks[-1]

    def y(value: float) -> float:
        return TOP + side * (1.0 - value)

    floor = TOP + side
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + side}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{floor + 15:.1f}" '
        f'text-anchor="{"end" if tick == ticks[-1] else "middle"}">{compact(tick)}</text>'
        for tick in ticks
    ]
    parts.append(f'<line class="mark" x1="{LEFT}" x2="{LEFT + side}" y1="{y(0.5):.1f}" y2="{y(0.5):.1f}"/>')
    for tone, name, values in ((1, "judge", curve.judge), (2, "labels", curve.labels)):
        if values is None:
            continue
        points = [(x(at), y(value)) for at, value in zip(curve.difference, values, strict=True)]
        path = " L".join(f"{px:.1f} {py:.1f}" for px, py in points)
        parts.append(f'<path class="curve tone-{tone}" d="M{path}"/>')
        for (px, py), value, pairs in zip(points, values, curve.pairs, strict=True):
            words = f"{name}: the longer wins with {value:.2f}, {pairs} pairs"
            parts.append(
                f'<circle class="curve tone-{tone}" cx="{px:.1f}" cy="{py:.1f}" r="4">'
                f"<title>{escape(words)}</title></circle>"
            )
    return _svg("Probability that the longer response wins over the difference in length", SIZE, floor + 24.0, parts)


def interval_chart(title: str, entries: Sequence[Entry], centre: float | None = None) -> Markup:
    """Draw values between 0 and 1 with their intervals, one below the other.

    Args:
        title: Description for screen readers.
        entries: Name, value, and the ends of the interval, None where there is none.
        centre: Where to draw a vertical line; None for nowhere.

    Returns:
        An ``svg`` element.
    """
    left, width = 138.0, 420.0
    height = TOP + BAR_HEIGHT * len(entries) + 22.0

    def x(value: float) -> float:
        return left + (width - left - 56.0) * value

    floor = TOP + BAR_HEIGHT * len(entries)
    parts = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{floor}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{floor + 15}" text-anchor="middle">{tick:.0%}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    if centre is not None:
        parts.append(f'<line class="mark" x1="{x(centre):.1f}" x2="{x(centre):.1f}" y1="{TOP}" y2="{floor}"/>')
    for row, (name, value, low, high) in enumerate(entries):
        middle = TOP + BAR_HEIGHT * (row + 0.5)
        tone = f"tone-{1 if row == 0 else 2}"
        if low is not None and high is not None:
            parts.append(
                f'<line class="curve {tone}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}"/>'
            )
        parts.append(
            f'<text class="tick name" x="{left - 12}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
            f'<circle class="curve {tone}" cx="{x(value):.1f}" cy="{middle}" r="5"/>'
            f'<text class="tick name" x="{width - 46}" y="{middle + 4}">{value:.1%}</text>'
        )
    return _svg(title, width, height, parts)


def _svg(title: str, width: float, height: float, parts: list[str]) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
