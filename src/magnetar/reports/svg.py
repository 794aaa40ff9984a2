"""Small line and stacked charts as inline SVG: colours come from the page's style sheet, so that dark mode works."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

__all__ = ["Series", "compact", "line_chart", "moving_mean", "nice_ticks", "stacked_chart"]

WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 8.0, 22.0
_MAX_POINTS = 300
_MAX_READINGS = 1000
_SMOOTH_FROM = 60

Values = Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        label: What the legend calls it.
        y: One value for each x; None where there is none, which leaves a gap.
        tone: Number of its colour in the style sheet, from 1.
    """

    label: str
    y: list[float | None]
    tone: int = 1


@dataclass(frozen=True)
class _Frame:
    """Maps data to the chart's coordinates."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        span = self.y_high - self.y_low or 1.0
        return HEIGHT - BOTTOM - (value - self.y_low) / span * (HEIGHT - TOP - BOTTOM)


def line_chart(
    title: str,
    x: Sequence[float],
    series: Sequence[Series],
    *,
    marks: Sequence[float] = (),
    from_zero: bool = True,
    smooth: bool = True,
) -> Markup:
    """Draw curves; from 60 points on, single values are thin and their moving mean is thick.

    Args:
        title: Description for screen readers.
        x: Increasing positions.
        series: At least one curve with at least one value.
        marks: Positions of vertical lines.
        from_zero: Let the axis of values begin at zero if no value is negative.
        smooth: Whether long curves get a moving mean; not wanted for what has no noise.

    Returns:
        An ``svg`` element.
    """
    values = [y for one in series for y in one.y if y is not None]
    low, high = min(values), max(values)
    if from_zero and low >= 0.0:
        low = 0.0
    ticks = nice_ticks(low, high)
    frame = _Frame(min(x), max(x), min(low, ticks[0]), max(high, ticks[-1]))
    window = smoothing_window(len(x)) if smooth else 1
    parts = [_axes(frame, ticks), _marks(frame, marks)]
    for one in series:
        at, y = _thin_out(x, one.y)
        if window > 1:
            parts.append(_curve(frame, at, y, f"raw tone-{one.tone}"))
            at, y = _thin_out(x, moving_mean(one.y, window))
        parts.append(_curve(frame, at, y, f"curve tone-{one.tone}"))
    return _svg(title, frame, x, series, parts)


def stacked_chart(title: str, x: Sequence[float], series: Sequence[Series], *, marks: Sequence[float] = ()) -> Markup:
    """Draw non-negative quantities on top of each other; missing values count as zero.

    Args:
        title: Description for screen readers.
        x: Increasing positions.
        series: The layers, lowest first.
        marks: Positions of vertical lines.

    Returns:
        An ``svg`` element.
    """
    at: list[float] = []
    below: list[float] = []
    bands: list[tuple[list[float], list[float]]] = []
    for one in series:
        at, y = _thin_out(x, [value or 0.0 for value in one.y])
        below = below or [0.0] * len(at)
        top = [base + (value or 0.0) for base, value in zip(below, y, strict=True)]
        bands.append((below, top))
        below = top
    ticks = nice_ticks(0.0, max(below))
    frame = _Frame(min(x), max(x), 0.0, max(*below, ticks[-1]))
    parts = [_axes(frame, ticks)]
    for one, (base, top) in zip(series, bands, strict=True):
        # One update gives a band of no width; a bar across the whole frame shows the shares all the same.
        places = [frame.x(value) for value in at] if len(at) > 1 else [LEFT, WIDTH - RIGHT]
        base, top = (base, top) if len(at) > 1 else (base * 2, top * 2)
        there = [f"{px:.1f} {frame.y(value):.1f}" for px, value in zip(places, top, strict=True)]
        back = [f"{px:.1f} {frame.y(value):.1f}" for px, value in zip(places, base, strict=True)]
        parts.append(f'<path class="band tone-{one.tone}" d="M{" L".join(there + back[::-1])}Z"/>')
    parts.append(_marks(frame, marks))
    return _svg(title, frame, x, series, parts)


def smoothing_window(points: int) -> int:
    """Points in the moving mean: none (1) for short runs, about a twentieth of a long one, always odd."""
    return 1 if points < _SMOOTH_FROM else 2 * (points // 40) + 1


def moving_mean(values: Values, window: int) -> list[float | None]:
    """Centred mean over ``window`` values, fewer at the ends; gaps are left out and stay gaps.

    Args:
        values: The values.
        window: An odd number.

    Returns:
        As many values.
    """
    half = window // 2
    result: list[float | None] = []
    for i, value in enumerate(values):
        near = [v for v in values[max(0, i - half) : i + half + 1] if v is not None]
        result.append(None if value is None else sum(near) / len(near))
    return result


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose the range.

    Args:
        low: Smallest value.
        high: Largest value, not below ``low``.
        count: About how many steps.

    Returns:
        At least two increasing numbers, the first at most ``low``, the last at least ``high``.
    """
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        pad = abs(low) * 0.1 or 1.0
        low, high = (0.0, high + pad) if low >= 0.0 else (low - pad, high + pad)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def compact(value: float | None) -> str:
    """A number in few characters: 3 significant digits, thousands as k, tiny ones with an exponent."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 999_500 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if size >= 10_000:
        return f"{value / 1000:.3g}k"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _svg(title: str, frame: _Frame, x: Sequence[float], series: Sequence[Series], parts: list[str]) -> Markup:
    at = _thin_out(x, x, _MAX_READINGS)[0]
    data = {
        "x": [_rounded(value) for value in at],
        "y": [[_rounded(value) for value in _thin_out(x, one.y, _MAX_READINGS)[1]] for one in series],
        "domain": [frame.x_low, frame.x_high],
        "plot": [LEFT, WIDTH - RIGHT],
    }
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(_told(title, series))}" '
        f'data-chart="{escape(json.dumps(data))}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" x1="-9" x2="-9"/></svg>'
    )


def _told(title: str, series: Sequence[Series]) -> str:
    """The title, and of each curve where it begins and ends and between what it lies: for who cannot see it."""
    told = []
    for one in series:
        known = [value for value in one.y if value is not None]
        if known:
            told.append(
                f"{one.label}: first {compact(known[0])}, last {compact(known[-1])}, between {compact(min(known))} and "
                f"{compact(max(known))}"
            )
    return f"{title}. {'; '.join(told)}"


def _axes(frame: _Frame, y_ticks: Sequence[float]) -> str:
    parts = []
    for value in y_ticks:
        place = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{place + 3.5:.1f}" text-anchor="end">{compact(value)}</text>'
        )
    whole = [v for v in nice_ticks(frame.x_low, frame.x_high, 5) if abs(v - round(v)) < 1e-9]
    for value in [v for v in whole if frame.x_low <= v <= frame.x_high] or [frame.x_low]:
        anchor = "end" if frame.x(value) > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{frame.x(value):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">'
            f"{compact(value)}</text>"
        )
    return "".join(parts)


def _marks(frame: _Frame, marks: Sequence[float]) -> str:
    low, high = TOP, HEIGHT - BOTTOM
    return "".join(
        f'<line class="mark" x1="{frame.x(at):.1f}" x2="{frame.x(at):.1f}" y1="{low}" y2="{high}"/>' for at in marks
    )


def _curve(frame: _Frame, x: Sequence[float], y: Values, style: str) -> str:
    """A path that is broken at gaps; values with a gap on both sides become dots."""
    runs: list[list[str]] = [[]]
    for at, value in zip(x, y, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(f"{frame.x(at):.1f} {frame.y(value):.1f}")
    path = "".join("M" + " L".join(run) for run in runs if len(run) > 1)
    dots = [run[0].split() for run in runs if len(run) == 1]
    line = f'<path class="{style}" d="{path}"/>' if path else ""
    return line + "".join(f'<circle class="{style}" cx="{cx}" cy="{cy}" r="2.5"/>' for cx, cy in dots)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _thin_out(x: Sequence[float], y: Values, limit: int = _MAX_POINTS) -> tuple[list[float], list[float | None]]:
    """Mean of neighbouring points, so that a long run stays a small page."""
    size = math.ceil(len(x) / limit)
    if size <= 1:
        return list(x), list(y)
    at, values = [], []
    for start in range(0, len(x), size):
        known = [value for value in y[start : start + size] if value is not None]
        near = x[start : start + size]
        at.append(sum(near) / len(near))
        values.append(sum(known) / len(known) if known else None)
    return at, values
