"""Bars: values with intervals one below the other, groups of them, and outcomes on top of each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import LETTER, PHONE_WIDTH, TONES, Drawing, Scale, frame, percent, percent_words
from magnetar.reports.svg import nice_ticks

__all__ = ["Measure", "grouped_bars", "interval_bars", "outcome_bars"]

LEFT, RIGHT = 4.0, 62.0
NAME, BAR, GAP = 17.0, 15.0, 10.0
THIN, THIN_GAP = 9.0, 3.0
AXIS = 22.0


@dataclass(frozen=True)
class Measure:
    """What is drawn and how it is written.

    Attributes:
        name: Heading of its column in the table.
        base: Where bars begin, marked by a line.
        low: Lowest value that the axis shows at least.
        high: Highest value likewise.
        tick: How a number on the axis is written.
        words: How a value is written beside its bar.
        told: How a value with its interval is written in the table.
    """

    name: str
    base: float
    low: float
    high: float
    tick: Callable[[float], str] = lambda value: f"{value:.0%}"
    words: Callable[[float], str] = percent
    told: Callable[[Estimate | None], str] = percent_words

    def scale(self, estimates: Sequence[Estimate], start: float, end: float) -> tuple[Scale, list[float]]:
        """A scale that holds all estimates with their intervals, and its ticks."""
        ends = [self.low, self.high, self.base]
        for one in estimates:
            ends += [value for value in (one.value, one.low, one.high) if value is not None and value == value]
        ticks = nice_ticks(min(ends), max(ends), 4)
        return Scale(ticks[0], ticks[-1], start, end), ticks


def interval_bars(
    title: str, entries: Mapping[str, Estimate | None], measure: Measure, tones: Sequence[int] = ()
) -> Drawing:
    """Draw a bar from the base to each value, with its interval; the name stands above its bar.

    Args:
        title: What is drawn.
        entries: Values by name; None where there is none.
        measure: What they are.
        tones: Colour of each, from 1; by the side of the base where empty.

    Returns:
        The drawing.
    """
    known = [one for one in entries.values() if one is not None]
    scale, ticks = measure.scale(known, LEFT, PHONE_WIDTH - RIGHT)
    row = NAME + BAR + GAP
    floor = row * len(entries)
    parts = _grid(scale, ticks, measure, floor)
    for at, (name, one) in enumerate(entries.items()):
        top = row * at
        parts.append(_text(LEFT, top + NAME - 4, name, "name", PHONE_WIDTH))
        if one is None or one.value != one.value:
            continue
        tone = f"tone-{tones[at]}" if tones else ("side-up" if one.value >= measure.base else "side-down")
        parts.append(_bar(scale, measure, one, top + NAME, BAR, tone, f"{name}: {measure.told(one)}"))
        parts.append(_value(scale, measure, one, top + NAME + BAR - 3.5))
    rows = tuple((name, measure.told(one)) for name, one in entries.items())
    return Drawing(frame(title, PHONE_WIDTH, floor + AXIS, parts), ("", measure.name), rows)


def grouped_bars(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate | None]],
    measure: Measure,
    tones: Mapping[str, int] | None = None,
) -> Drawing:
    """Draw thin bars with intervals in groups: in each group one bar for each series, in the same order and colour.

    Args:
        title: What is drawn.
        groups: Values by series, by group.
        measure: What they are.
        tones: Colour of each series, from 1; by their order where not given.

    Returns:
        The drawing.
    """
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    known = [one for values in groups.values() for one in values.values() if one is not None]
    scale, ticks = measure.scale(known, LEFT, PHONE_WIDTH - RIGHT)
    height = NAME + (THIN + THIN_GAP) * len(series) + GAP
    floor = height * len(groups)
    parts = _grid(scale, ticks, measure, floor)
    for at, (group, values) in enumerate(groups.items()):
        top = height * at
        parts.append(_text(LEFT, top + NAME - 4, group, "name", PHONE_WIDTH))
        for number, name in enumerate(series):
            one = values.get(name)
            if one is None or one.value != one.value:
                continue
            place = top + NAME + (THIN + THIN_GAP) * number
            words = f"{group}, {name}: {measure.told(one)}"
            tone = (tones or {}).get(name, number % TONES + 1)
            parts.append(_bar(scale, measure, one, place, THIN, f"tone-{tone}", words))
            parts.append(_value(scale, measure, one, place + THIN))
    rows = tuple((group, *(measure.told(values.get(name)) for name in series)) for group, values in groups.items())
    return Drawing(frame(title, PHONE_WIDTH, floor + AXIS, parts), ("", *series), rows)


def outcome_bars(title: str, entries: Mapping[str, tuple[float, float, float]]) -> Drawing:
    """Draw the shares of wins, ties and losses of each name as one bar.

    Args:
        title: What is drawn.
        entries: Shares of wins, ties and losses, by name.

    Returns:
        The drawing.
    """
    row = NAME + BAR + GAP
    scale = Scale(0.0, 1.0, LEFT, PHONE_WIDTH - LEFT)
    parts = []
    for at, (name, shares) in enumerate(entries.items()):
        top, before = row * at, 0.0
        parts.append(_text(LEFT, top + NAME - 4, name, "name", PHONE_WIDTH))
        for kind, share in zip(("won", "tied", "lost"), shares, strict=True):
            x, end = scale(before), scale(before + share)
            words = escape(f"{name}: {percent(share)} {kind}")
            parts.append(
                f'<rect class="outcome {kind}" x="{x:.1f}" y="{top + NAME:.1f}" width="{end - x:.1f}" '
                f'height="{BAR}"><title>{words}</title></rect>'
            )
            if end - x > 5.5 * LETTER:
                parts.append(
                    f'<text class="inside {kind}" x="{(x + end) / 2:.1f}" y="{top + NAME + BAR - 3.5:.1f}" '
                    f'text-anchor="middle">{percent(share, 0)}</text>'
                )
            before += share
    rows = tuple((name, *(percent(share) for share in shares)) for name, shares in entries.items())
    return Drawing(frame(title, PHONE_WIDTH, row * len(entries), parts), ("", "won", "tied", "lost"), rows)


def _grid(scale: Scale, ticks: Sequence[float], measure: Measure, floor: float) -> list[str]:
    parts = []
    for tick in ticks:
        x = scale(tick)
        anchor = "start" if tick == ticks[0] else "middle"
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{floor:.1f}"/>'
            f'<text class="tick" x="{x:.1f}" y="{floor + 15:.1f}" text-anchor="{anchor}">'
            f"{escape(measure.tick(tick))}</text>"
        )
    base = scale(measure.base)
    parts.append(f'<line class="mark" x1="{base:.1f}" x2="{base:.1f}" y1="4" y2="{floor:.1f}"/>')
    return parts


def _bar(scale: Scale, measure: Measure, one: Estimate, top: float, height: float, tone: str, words: str) -> str:
    left, right = sorted((scale(measure.base), scale(one.value)))
    middle = top + height / 2
    parts = [
        f'<rect class="bar {tone}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0.8):.1f}" '
        f'height="{height}" rx="1.5"/>'
    ]
    if one.low is not None and one.high is not None:
        low, high, half = scale(one.low), scale(one.high), height / 2 - 1.5
        parts.append(
            f'<path class="whisk" d="M{low:.1f} {middle:.1f} L{high:.1f} {middle:.1f} M{low:.1f} {middle - half:.1f} '
            f'V{middle + half:.1f} M{high:.1f} {middle - half:.1f} V{middle + half:.1f}"/>'
        )
    return f"<g>{''.join(parts)}<title>{escape(words)}</title></g>"


def _value(scale: Scale, measure: Measure, one: Estimate, base: float) -> str:
    """The number, right of whatever is furthest right."""
    furthest = max(scale(one.value), scale(measure.base), scale(one.high) if one.high is not None else 0.0)
    words = escape(measure.words(one.value))
    return f'<text class="tick figure-text" x="{furthest + 5:.1f}" y="{base:.1f}">{words}</text>'


def _text(x: float, y: float, text: str, style: str, room: float) -> Markup:
    letters = int(room / LETTER)
    shown = text if len(text) <= letters else text[: letters - 1] + "…"
    return Markup(
        f'<text class="tick {style}" x="{x:.1f}" y="{y:.1f}">{escape(shown)}<title>{escape(text)}</title></text>'
    )
