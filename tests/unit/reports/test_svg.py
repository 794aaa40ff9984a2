import json
import math
import re
from html import unescape
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from magnetar.reports.svg import Series, compact, line_chart, moving_mean, nice_ticks, smoothing_window, stacked_chart


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.037), (-3, 8), (0, 0), (5, 5), (-2, -2), (0, 123_456), (1.9, 1.93), (0, 1e-9)]
)
def test_ticks_enclose_the_range_at_equal_round_steps(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12
    steps = [b - a for a, b in pairwise(ticks)]
    assert 2 <= len(ticks) <= 8
    assert all(step == pytest.approx(steps[0]) and step > 0 for step in steps)
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert any(mantissa == pytest.approx(round_step) for round_step in (1, 2, 5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.30000000000000004, "0.3"),
        (1e-4, "1e-4"),
        (123.4, "123"),
        (12_345, "12.3k"),
        (2e6, "2e6"),
        (-0.5, "-0.5"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert compact(value) == text


def test_moving_mean_by_hand_leaves_gaps_alone() -> None:
    assert moving_mean([1.0, 2.0, None, 6.0], 3) == [1.5, 1.5, None, 6.0]
    assert moving_mean([1.0, 5.0], 1) == [1.0, 5.0]
    assert smoothing_window(20) == 1 and smoothing_window(200) % 2 == 1


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]


def test_a_curve_passes_through_its_points_and_breaks_at_gaps() -> None:
    root = ElementTree.fromstring(line_chart("t", [1, 2, 3, 4, 5, 6], [Series("a", [0.0, 1.0, None, 4.0, None, 2.0])]))
    path = next(e for e in root.iter("path")).get("d", "")
    assert path.count("M") == 1 and path.count("L") == 1
    x0, y0, x1, y1 = numbers(path)
    grid = sorted((float(e.get("y1", 0)) for e in root.iter("line") if e.get("class") == "grid"), reverse=True)
    assert y0 == grid[0], "zero lies on the lowest grid line"
    assert y1 == grid[1], "one lies on the grid line of the tick 1"
    dots = [e for e in root.iter("circle")]
    assert [float(e.get("cy", 0)) for e in dots] == [grid[4], grid[2]], "single values become dots"
    assert x1 - x0 == pytest.approx((float(dots[1].get("cx", 0)) - x0) / 5, abs=0.1)


def test_marks_stand_at_their_updates() -> None:
    root = ElementTree.fromstring(line_chart("t", [0, 10], [Series("a", [1.0, 2.0])], marks=[0, 5, 10]))
    marks = [float(e.get("x1", 0)) for e in root.iter("line") if e.get("class") == "mark"]
    assert marks[1] == pytest.approx((marks[0] + marks[2]) / 2, abs=0.1) and marks[0] < marks[2]


def test_layers_stack() -> None:
    layers = [Series("a", [1.0, 1.0], 1), Series("b", [2.0, None], 2)]
    root = ElementTree.fromstring(stacked_chart("t", [1, 2], layers))
    grid = sorted((float(e.get("y1", 0)) for e in root.iter("line") if e.get("class") == "grid"), reverse=True)
    second = numbers([e for e in root.iter("path")][1].get("d", ""))
    tops, bottoms = second[1:4:2], second[5:8:2]
    assert tops == [grid[3], grid[1]] and bottoms == [grid[1], grid[1]]


@pytest.mark.parametrize("points", [1, 2, 59, 60, 5000])
def test_charts_of_any_length_are_valid_and_small(points: int) -> None:
    x = [float(i) for i in range(points)]
    y: list[float | None] = [math.sin(i / 50) + 2 for i in range(points)]
    for chart in (line_chart("t", x, [Series("a", y)]), stacked_chart("t", x, [Series("a", y), Series("b", y, 2)])):
        ElementTree.fromstring(chart)
        assert len(chart) < 80_000


def test_words_are_escaped_and_readings_are_the_data() -> None:
    chart = line_chart('a "<b>', [1, 2], [Series("<s>", [0.123456, None])])
    root = ElementTree.fromstring(chart)
    assert root.get("aria-label") == 'a "<b>. <s>: first 0.123, last 0.123, between 0.123 and 0.123'
    data = json.loads(unescape(root.get("data-chart", "")))
    assert data["x"] == [1, 2] and data["y"] == [[0.12346, None]]
