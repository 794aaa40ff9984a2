"""Charts of a judge's page: how probabilities and outcomes agree, and what length does."""

from markupsafe import Markup, escape

from magnetar.evaluation.judging.measures import LengthCurve
from magnetar.evaluation.judging.statistics import Bins
from magnetar.reports.svg import compact, nice_ticks

__all__ = ["length_chart", "reliability_chart"]

SIZE, LEFT, BOTTOM, TOP, RIGHT = 320.0, 40.0, 58.0, 8.0, 10.0


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


def _svg(title: str, width: float, height: float, parts: list[str]) -> Markup:
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )
