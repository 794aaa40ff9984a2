"""Points with intervals in two directions: what was won over how far somebody went."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from statistics import median

from markupsafe import escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import PHONE_WIDTH, Drawing, Scale, frame, percent_words
from magnetar.reports.drawing.labels import Box, place_labels
from magnetar.reports.svg import nice_ticks

__all__ = ["distance_plot", "distance_ticks", "nats_words", "shown_range", "whiskers"]

HEIGHT, LEFT, RIGHT, TOP, BELOW = 250.0, 44.0, 12.0, 12.0, 34.0
DIGIT, TALL = 6.6, 12.0
TOO_WIDE = 4.0  # times the median
NATS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


def distance_ticks(farthest: float) -> list[float]:
    """Marks in nats for an axis on which the square root of the distance is drawn, from 0 to the farthest."""
    return [tick for tick in NATS if tick == 0.0 or (tick <= farthest and sqrt(tick / farthest) > 0.12)]


def shown_range(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Range of an axis that holds all values, and the intervals that are not many times as wide as most.

    With two seeds that differ an interval may be as wide as everything; its line then runs out of the picture.

    Args:
        estimates: At least one.

    Returns:
        Lowest and highest value.
    """
    both = [(one.low, one.high) for one in estimates if one.low is not None and one.high is not None]
    limit = TOO_WIDE * median(high - low for low, high in both) if both else 0.0
    ends = [one.value for one in estimates]
    ends += [end for low, high in both if high - low <= limit for end in (low, high)]
    return min(ends), max(ends)


def whiskers(
    points: Iterable[tuple[Estimate, Estimate]], place: Callable[[float, float], tuple[float, float]]
) -> list[Box]:
    """The intervals of points as thin rectangles.

    Args:
        points: Distance in nats and win rate.
        place: Where a distance and a win rate are drawn, y growing downwards.

    Returns:
        Up to two for each point, the distance's first.
    """
    found = []
    for far, one in points:
        if far.low is not None and far.high is not None:
            (left, y), (right, _) = place(far.low, one.value), place(far.high, one.value)
            found.append(Box(left, y - 1.0, right - left, 2.0))
        if one.low is not None and one.high is not None:
            (x, top), (_, bottom) = place(far.value, one.high), place(far.value, one.low)
            found.append(Box(x - 1.0, top, 2.0, bottom - top))
    return found


def nats_words(estimate: Estimate | None) -> str:
    """A divergence with its interval."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def distance_plot(
    title: str,
    value_name: str,
    points: Mapping[str, tuple[Estimate, Estimate]],
    tones: Mapping[str, int] | None = None,
    numbers: Mapping[str, int] | None = None,
    distance_name: str = "distance, nats",
) -> Drawing:
    """Draw win rates over the square root of distances, each point with a number that the table explains.

    Args:
        title: What is drawn.
        value_name: What the height means.
        points: Distance in nats and win rate, by name; at least one.
        tones: Colour of each, from 1; all alike by default.
        numbers: Of each; by their order from 1 by default.
        distance_name: What the table calls distances, and what is in brackets after them.

    Returns:
        The drawing.
    """
    farthest = 1.05 * shown_range([far for far, _ in points.values()])[1] or 1.0
    across = distance_ticks(farthest)
    x = Scale(0.0, sqrt(farthest), LEFT, PHONE_WIDTH - RIGHT)
    lowest, highest = shown_range([one for _, one in points.values()])
    up = nice_ticks(min(0.5, lowest), max(0.5, highest), 4)
    y = Scale(up[0], up[-1], HEIGHT - BELOW, TOP)
    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{PHONE_WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{100 * tick:g}%</text>'
        for tick in (round(tick, 6) for tick in up)
    ]
    parts += [
        f'<text class="tick" x="{x(sqrt(tick)):.1f}" y="{HEIGHT - BELOW + 15:.1f}" text-anchor="middle">{tick:g}</text>'
        for tick in across
    ]
    middle = (LEFT + PHONE_WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle:.1f}" y="{HEIGHT - 4:.1f}" text-anchor="middle">'
        "distance, nats a response</text>"
    )
    half = y(0.5)
    parts.append(f'<line class="mark" x1="{LEFT}" x2="{PHONE_WIDTH - RIGHT}" y1="{half:.1f}" y2="{half:.1f}"/>')

    def place(far: float, rate: float) -> tuple[float, float]:
        return x(sqrt(max(far, 0.0))), y(rate)

    places = [place(far.value, one.value) for far, one in points.values()]
    written = [f"{at if numbers is None else numbers[name]}" for at, name in enumerate(points, start=1)]
    area = Box(LEFT, TOP, PHONE_WIDTH - RIGHT - LEFT, HEIGHT - BELOW - TOP)
    boxes = place_labels(
        places, [DIGIT * len(number) for number in written], TALL, area, lines=whiskers(points.values(), place)
    )
    rows = []
    for (name, (far, one)), (px, py), number, box in zip(points.items(), places, written, boxes, strict=True):
        tone = f"tone-{1 if tones is None else tones[name]}"
        if far.low is not None and far.high is not None:
            (start, _), (end, _) = place(far.low, one.value), place(far.high, one.value)
            parts.append(f'<path class="whisker-line {tone}" d="M{start:.1f} {py:.1f} H{end:.1f}"/>')
        if one.low is not None and one.high is not None:
            parts.append(f'<path class="whisker-line {tone}" d="M{px:.1f} {y(one.low):.1f} V{y(one.high):.1f}"/>')
        words = escape(f"{name}: {percent_words(one)} at {nats_words(far)} nats")
        parts.append(
            f'<circle class="curve {tone}" cx="{px:.1f}" cy="{py:.1f}" r="4"><title>{words}</title></circle>'
            f'<text class="name" x="{box.x + box.width / 2:.1f}" y="{box.y + TALL - 3:.1f}" text-anchor="middle" '
            f'font-size="11">{number}</text>'
        )
        rows.append((name, number, nats_words(far), percent_words(one)))
    return Drawing(frame(title, PHONE_WIDTH, HEIGHT, parts), ("", "number", distance_name, value_name), tuple(rows))
