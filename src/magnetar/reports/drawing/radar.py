"""A radar of shares by category: one polygon for each policy, and a ring at one half."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import escape

from magnetar.reports.drawing.canvas import PHONE_WIDTH, TONES, Drawing, frame, label_lines, percent
from magnetar.reports.svg import nice_ticks

__all__ = ["MIN_AXES", "polygon_points", "radar"]

MIN_AXES = 3  # fewer directions make no area
CENTRE_X, CENTRE_Y, RADIUS = PHONE_WIDTH / 2, 136.0, 88.0
HEIGHT, LINE = 276.0, 12.0
LETTERS = 14
DASHES = ("", "6 3", "2 2.5", "8 3 2 3")


def radar(
    title: str,
    axes: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    tones: Sequence[int] = (),
    within: Sequence[float] = (),
) -> Drawing:
    """Draw shares in several directions; the rim and the centre are round numbers around all values and one half.

    Args:
        title: What is drawn.
        axes: Names of the directions, at least three, clockwise from above.
        series: Shares in those directions, by name; None breaks the polygon.
        tones: Colour of each series, from 1; by their order where empty.
        within: Values that the scale holds too, so that several radars have one scale.

    Returns:
        The drawing.
    """
    known = [0.5, *within, *(value for values in series.values() for value in values if value is not None)]
    ticks = nice_ticks(max(min(known) - 0.02, 0.0), min(max(known) + 0.02, 1.0), 5)
    low, high = ticks[0], ticks[-1]
    parts = []
    for tick in ticks[1:]:
        ring = polygon_points([tick] * len(axes), low, high)
        parts.append(f'<path class="web" d="{_path(ring, closed=True)}"/>')
    for at, name in enumerate(axes):
        parts.append(_axis(at, name, len(axes)))
    half = polygon_points([0.5] * len(axes), low, high)
    parts.append(f'<path class="half-ring" d="{_path(half, closed=True)}"><title>50%</title></path>')
    for number, (name, values) in enumerate(series.items()):
        tone = tones[number] if tones else number % TONES + 1
        points = polygon_points(values, low, high)
        dash = DASHES[number // TONES % len(DASHES)] if len(series) > TONES else DASHES[number % len(DASHES)]
        whole = all(point is not None for point in points)
        parts.append(
            f'<path class="polygon tone-{tone}{"" if whole else " open"}" stroke-dasharray="{dash or "none"}" '
            f'd="{_path(points, closed=whole)}"><title>{escape(name)}</title></path>'
        )
        for axis, point, value in zip(axes, points, values, strict=True):
            if point is not None:
                words = f"{name}, {axis}: {percent(value)}"
                parts.append(
                    f'<circle class="curve tone-{tone}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="2.6">'
                    f"<title>{escape(words)}</title></circle>"
                )
    # Numbers stand between the first two directions, where no name is.
    angle = math.pi / len(axes)
    for tick in ticks:
        reach = RADIUS * (tick - low) / (high - low) * math.cos(angle)
        x, y = CENTRE_X + reach * math.sin(angle), CENTRE_Y - reach * math.cos(angle)
        parts.append(f'<text class="tick halo" x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle">{tick:.0%}</text>')
    rows = tuple((axis, *(percent(values[at]) for values in series.values())) for at, axis in enumerate(axes))
    return Drawing(frame(title, PHONE_WIDTH, HEIGHT, parts), ("", *series), rows)


def polygon_points(values: Sequence[float | None], low: float, high: float) -> list[tuple[float, float] | None]:
    """Corners of a polygon: the k-th of n lies at angle 2πk/n clockwise from above, ``low`` in the centre.

    Args:
        values: One for each direction; None has no corner.
        low: Value at the centre.
        high: Value at the rim.

    Returns:
        One corner for each direction.
    """
    corners: list[tuple[float, float] | None] = []
    for at, value in enumerate(values):
        if value is None or value != value:
            corners.append(None)
            continue
        angle = 2.0 * math.pi * at / len(values)
        reach = RADIUS * (value - low) / (high - low)
        corners.append((CENTRE_X + reach * math.sin(angle), CENTRE_Y - reach * math.cos(angle)))
    return corners


def _axis(at: int, name: str, count: int) -> str:
    angle = 2.0 * math.pi * at / count
    right, up = math.sin(angle), math.cos(angle)
    x, y = CENTRE_X + RADIUS * right, CENTRE_Y - RADIUS * up
    anchor = "middle" if abs(right) < 0.3 else "start" if right > 0 else "end"
    lines = label_lines(name.replace("_", " "), 2 * LETTERS if anchor == "middle" else LETTERS, 3)
    label_x, label_y = CENTRE_X + (RADIUS + 9) * right, CENTRE_Y - (RADIUS + 10) * up
    first = label_y + 3.5 - LINE * (len(lines) - 1) * (0.5 + 0.5 * up)
    spans = "".join(
        f'<tspan x="{label_x:.1f}" y="{first + LINE * row:.1f}">{escape(line)}</tspan>'
        for row, line in enumerate(lines)
    )
    return (
        f'<line class="web" x1="{CENTRE_X}" y1="{CENTRE_Y}" x2="{x:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick name" text-anchor="{anchor}">{spans}<title>{escape(name)}</title></text>'
    )


def _path(points: Sequence[tuple[float, float] | None], *, closed: bool) -> str:
    """Lines between neighbours that both exist."""
    told, pen_down = [], False
    for point in points:
        if point is not None:
            told.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    return " ".join(told) + ("Z" if closed else "")
