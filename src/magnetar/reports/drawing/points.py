"""Points with intervals at places that are counted, not measured: over n, over checkpoints, on the way of a magnet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import PHONE_WIDTH, TONES, Drawing, Scale, frame, label_lines, percent_words
from magnetar.reports.svg import nice_ticks

__all__ = ["Stop", "point_curves", "training_path"]

HEIGHT, LEFT, RIGHT, TOP = 210.0, 44.0, 12.0, 12.0
LINE, MAX_LINES = 12.0, 3
LETTER = 6.2
SHIFT = 4.0  # between the points of two series at one place
LARGEST = 8.0


@dataclass(frozen=True)
class Stop:
    """A checkpoint on the way of a run.

    Attributes:
        label: Below the axis.
        value: Where it is drawn, with its interval if it has one.
        weight: Share in a mixture, in [0, 1]: the area of its disc.
        magnet: Whether the magnet moved here.
    """

    label: str
    value: Estimate
    weight: float = 0.0
    magnet: bool = False


def point_curves(
    title: str,
    places: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    line_at: float | None = 0.5,
    tones: Mapping[str, int] | None = None,
) -> Drawing:
    """Draw shares over places in their order, one curve for each series.

    Args:
        title: What is drawn.
        places: Labels of the horizontal axis.
        series: One share for each place, by name; None where there is none.
        line_at: Where to draw a dashed line; None for nowhere.
        tones: Colour of each series, from 1; by their order where not given.

    Returns:
        The drawing.
    """
    known = [one for values in series.values() for one in values if one is not None]
    y, parts, floor = _axes(places, known, line_at)
    step = _step(len(places))
    for number, (name, values) in enumerate(series.items()):
        tone = (tones or {}).get(name, number % TONES + 1)
        shift = SHIFT * (number - (len(series) - 1) / 2)
        points = [
            (LEFT + step * (at + 0.5) + shift, one, place)
            for at, (one, place) in enumerate(zip(values, places, strict=True))
            if one is not None and one.value == one.value
        ]
        path = " L".join(f"{x:.1f} {y(one.value):.1f}" for x, one, _ in points)
        if len(points) > 1:
            parts.append(f'<path class="curve tone-{tone}" d="M{path}"/>')
        for x, one, place in points:
            parts.append(_whisker(x, y, one, f"tone-{tone}"))
            words = escape(f"{name}, {place}: {percent_words(one)}")
            parts.append(
                f'<circle class="curve tone-{tone}" cx="{x:.1f}" cy="{y(one.value):.1f}" r="3.5">'
                f"<title>{words}</title></circle>"
            )
    rows = tuple((place, *(percent_words(values[at]) for values in series.values())) for at, place in enumerate(places))
    return Drawing(frame(title, PHONE_WIDTH, floor, parts), ("", *series), rows)


def training_path(title: str, value_name: str, stops: Sequence[Stop]) -> Drawing:
    """Draw a run's checkpoints in the order of training: rings where the magnet moved, discs by weight in a mixture.

    Args:
        title: What is drawn.
        value_name: What the height means, for the table.
        stops: At least one.

    Returns:
        The drawing.
    """
    y, parts, floor = _axes([stop.label for stop in stops], [stop.value for stop in stops], 0.5)
    step = _step(len(stops))
    places = [(LEFT + step * (at + 0.5), y(stop.value.value)) for at, stop in enumerate(stops)]
    parts.append('<path class="faint strong" d="M' + " L".join(f"{x:.1f} {py:.1f}" for x, py in places) + '"/>')
    for (x, py), stop in zip(places, stops, strict=True):
        parts.append(_whisker(x, y, stop.value, "tone-1"))
        if stop.weight > 0:
            radius = LARGEST * stop.weight**0.5
            parts.append(f'<circle class="weight" cx="{x:.1f}" cy="{py:.1f}" r="{max(radius, 1.5):.1f}"/>')
        words = f"{stop.label}: {percent_words(stop.value)}, Nash weight {stop.weight:.2f}"
        words += "; the magnet moved here" if stop.magnet else ""
        parts.append(
            f'<circle class="{"magnet" if stop.magnet else "stop"}" cx="{x:.1f}" cy="{py:.1f}" '
            f'r="{LARGEST + 2.5 if stop.magnet else 3.2}"><title>{escape(words)}</title></circle>'
        )
    rows = tuple(
        (stop.label, percent_words(stop.value), f"{stop.weight:.2f}", "yes" if stop.magnet else "") for stop in stops
    )
    return Drawing(frame(title, PHONE_WIDTH, floor, parts), ("", value_name, "Nash weight", "magnet moved"), rows)


def _step(count: int) -> float:
    return (PHONE_WIDTH - LEFT - RIGHT) / max(count, 1)


def _axes(places: Sequence[str], known: Sequence[Estimate], line_at: float | None) -> tuple[Scale, list[str], float]:
    """The vertical scale, what is behind the points, and the height of the whole."""
    ends = [] if line_at is None else [line_at]
    ends += [v for one in known for v in (one.value, one.low, one.high) if v is not None and v == v]
    ticks = nice_ticks(min(ends), max(ends), 4)
    y = Scale(ticks[0], ticks[-1], HEIGHT - 20.0, TOP)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{PHONE_WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{_tick(tick, ticks)}</text>'
        for tick in ticks
    ]
    if line_at is not None:
        place = y(line_at)
        parts.append(f'<line class="mark" x1="{LEFT}" x2="{PHONE_WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
    step = _step(len(places))
    # Labels that would be too narrow to read are left out in turn; each point says its own when it is touched.
    every = max(1, -(-30 // int(step)))
    most = 1
    for at, place in enumerate(places):
        if at % every:
            continue
        lines = label_lines(place, max(3, int(step * every / LETTER)), MAX_LINES)
        most = max(most, len(lines))
        x = LEFT + step * (at + 0.5)
        spans = "".join(
            f'<tspan x="{x:.1f}" y="{HEIGHT - 4.0 + LINE * row:.1f}">{escape(line)}</tspan>'
            for row, line in enumerate(lines)
        )
        parts.append(f'<text class="tick" text-anchor="middle">{spans}<title>{escape(place)}</title></text>')
    return y, parts, HEIGHT + LINE * (most - 1) + 4.0


def _tick(value: float, ticks: Sequence[float]) -> str:
    return f"{100 * value:.1f}%" if ticks[1] - ticks[0] < 0.0099 else f"{value:.0%}"


def _whisker(x: float, y: Scale, one: Estimate, tone: str) -> str:
    if one.low is None or one.high is None:
        return ""
    low, high = y(one.low), y(one.high)
    return (
        f'<path class="whisker-line {tone}" d="M{x:.1f} {low:.1f} V{high:.1f} M{x - 3:.1f} {low:.1f} h6 '
        f'M{x - 3:.1f} {high:.1f} h6"/>'
    )
