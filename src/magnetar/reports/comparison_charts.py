"""Charts of a comparison's page: win rate over budget, win rate over KL."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from magnetar.evaluation.comparison.results import CurvePoint, MethodRow
from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import frame, percent_words
from magnetar.reports.drawing.scatter import distance_plot
from magnetar.reports.svg import compact, nice_ticks

__all__ = ["budget_chart", "kl_chart", "rate_range"]

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 10.0, 24.0


class _Axes:
    """Maps data to a drawing, with ticks at round numbers."""

    def __init__(self, size: tuple[float, float], x: tuple[float, float], y: tuple[float, float]) -> None:
        self.width, self.height = size
        self.x_ticks, self.y_ticks = [tick for tick in nice_ticks(*x, 5) if tick <= x[1]], nice_ticks(*y)
        self._x, self._y = x, (self.y_ticks[0], self.y_ticks[-1])

    def x(self, value: float) -> float:
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def grid(self, half: bool = True) -> list[str]:
        """Lines and numbers; a dashed line at one half."""
        right, floor = self.width - RIGHT, self.height - BOTTOM
        parts = [
            f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{self.y(tick):.1f}" y2="{self.y(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{self.y(tick) + 3.5:.1f}" text-anchor="end">{tick:.0%}</text>'
            for tick in self.y_ticks
        ]
        for tick in self.x_ticks:
            place = self.x(tick)
            anchor = "end" if place > right - 10 else "middle"
            parts.append(
                f'<text class="tick" x="{place:.1f}" y="{floor + 16:.1f}" text-anchor="{anchor}">{compact(tick)}</text>'
            )
        if half and self._y[0] <= 0.5 <= self._y[1]:
            parts.append(f'<line class="mark" x1="{LEFT}" x2="{right}" y1="{self.y(0.5):.1f}" y2="{self.y(0.5):.1f}"/>')
        return parts


def rate_range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """A range of win rates that holds one half and all estimates with their intervals."""
    ends = [0.5]
    for one in estimates:
        ends += [end for end in (one.value, one.low, one.high) if end is not None]
    return min(ends), max(ends)


def budget_chart(
    label: str, curves: Mapping[str, Sequence[CurvePoint]], unit: str, rates: tuple[float, float]
) -> Markup:
    """Draw one method's win rate against the reference over what was spent, before the others in grey.

    Args:
        label: The method.
        curves: Label → points; every curve begins at nothing spent and one half.
        unit: Of what was spent.
        rates: Range of win rates, the same for all methods.

    Returns:
        An ``svg`` element.
    """
    most = max(point.spent for points in curves.values() for point in points)
    axes = _Axes((WIDTH, HEIGHT), (0.0, most), rates)
    parts = axes.grid()
    for other, points in curves.items():
        if other != label:
            parts.append(f'<path class="faint" d="{_path(axes, points)}"><title>{escape(other)}</title></path>')
    own = curves[label]
    known = [point for point in own if point.win_rate.low is not None and point.win_rate.high is not None]
    if known:
        start = f"{axes.x(0.0):.1f} {axes.y(0.5):.1f}"
        above = [f"{axes.x(p.spent):.1f} {axes.y(p.win_rate.high or 0.0):.1f}" for p in known]
        below = [f"{axes.x(p.spent):.1f} {axes.y(p.win_rate.low or 0.0):.1f}" for p in reversed(known)]
        parts.append(f'<path class="range tone-1" d="M{" L".join([start, *above, *below])}Z"/>')
    parts.append(f'<path class="curve tone-1" d="{_path(axes, own)}"/>')
    for point in own:
        words = f"{label}: {percent_words(point.win_rate)} after {point.spent:,.0f} {unit}, runs: {point.runs}"
        parts.append(
            f'<circle class="curve tone-1" cx="{axes.x(point.spent):.1f}" cy="{axes.y(point.win_rate.value):.1f}" '
            f'r="3.5"><title>{escape(words)}</title></circle>'
        )
    return frame(f"Win rate of {label} against the reference over {unit}", WIDTH, HEIGHT, parts)


def kl_chart(rows: Sequence[MethodRow]) -> Markup:
    """Draw win rate against the reference over KL to it, each method with its number in the table.

    Args:
        rows: Lines of the table; the reference is at zero and one half.

    Returns:
        An ``svg`` element.
    """
    shown = {row.label: (number, row) for number, row in enumerate(rows, start=1) if row.win_rate is not None}
    return distance_plot(
        "Win rate against the reference over KL to the reference, nats per response",
        "win rate",
        {label: (row.kl_nats, row.win_rate) for label, (_, row) in shown.items() if row.win_rate is not None},
        numbers={label: number for label, (number, _) in shown.items()},
    ).svg


def _path(axes: _Axes, points: Sequence[CurvePoint]) -> str:
    places = [(0.0, 0.5), *((point.spent, point.win_rate.value) for point in points)]
    return "M" + " L".join(f"{axes.x(spent):.1f} {axes.y(rate):.1f}" for spent, rate in places)
