"""Drawings put every figure where its value says, and their tables say the same."""

import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.bars import Measure, grouped_bars, interval_bars, outcome_bars
from magnetar.reports.drawing.canvas import Drawing, Scale, label_lines
from magnetar.reports.drawing.distribution import CostHistogram, cost_distributions
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.drawing.labels import Box, place_labels
from magnetar.reports.drawing.points import Stop, point_curves, training_path
from magnetar.reports.drawing.radar import CENTRE_X, CENTRE_Y, RADIUS, polygon_points, radar
from magnetar.reports.drawing.scatter import distance_plot, distance_ticks, shown_range

HOSTILE = "<b onload='x'> & \"quotes\""
TONES = {HOSTILE: 1, "b": 2}
RATE = Measure("win rate", 0.5, 0.4, 0.6)


def rate(value: float, half: float | None = 0.05) -> Estimate:
    if half is None:
        return Estimate(value, None, None, 0.95, "undefined", "one prompt")
    return Estimate(value, value - half, value + half, 0.95, "bca")


def elements(drawing: Drawing, tag: str, style: str) -> list[dict[str, str]]:
    tree = ElementTree.fromstring(str(drawing.svg))
    return [one.attrib for one in tree.iter(tag) if style in one.attrib.get("class", "").split()]


def texts(drawing: Drawing) -> str:
    return " ".join("".join(one.itertext()) for one in ElementTree.fromstring(str(drawing.svg)).iter("text"))


@pytest.mark.parametrize(
    "drawing",
    [
        interval_bars(HOSTILE, {HOSTILE: rate(0.6), "b": None}, RATE),
        grouped_bars(HOSTILE, {HOSTILE: {HOSTILE: rate(0.6, None)}}, RATE),
        outcome_bars(HOSTILE, {HOSTILE: (0.5, 0.2, 0.3)}),
        heat_map(HOSTILE, [HOSTILE], [HOSTILE, "b"], [[rate(0.6), None]]),
        radar(HOSTILE, [HOSTILE, "b", "c"], {HOSTILE: [0.2, None, 0.9]}),
        cost_distributions(HOSTILE, [CostHistogram(HOSTILE, (-1.0, 1.0), (2,), rate(0.0), rate(0.5))]),
        point_curves(HOSTILE, [HOSTILE, "b"], {HOSTILE: [rate(0.6), None]}),
        distance_plot(
            HOSTILE, HOSTILE, {HOSTILE: (rate(2.0), rate(0.6)), "b": (rate(0.0, None), rate(0.5, None))}, TONES
        ),
        training_path(HOSTILE, HOSTILE, [Stop(HOSTILE, rate(0.5, None), 1.0, True)]),
    ],
    ids=["bars", "groups", "outcomes", "heat", "radar", "costs", "points", "distance", "path"],
)
def test_names_are_text_and_the_picture_is_well_formed(drawing: Drawing) -> None:
    tree = ElementTree.fromstring(str(drawing.svg))
    assert tree.attrib["role"] == "img" and tree.attrib["aria-label"] == HOSTILE
    assert not list(tree.iter("b")) and HOSTILE in ["".join(one.itertext()) for one in tree.iter("title")] + [
        cell for row in drawing.rows for cell in row
    ]
    assert all(len(row) == len(drawing.header) for row in drawing.rows)


def test_a_bar_reaches_from_the_base_to_its_value_and_the_whisker_over_its_interval() -> None:
    drawing = interval_bars("x", {"up": rate(0.6), "down": rate(0.45)}, RATE)
    ticks = [float(one["x1"]) for one in elements(drawing, "line", "grid")]
    up, down = elements(drawing, "rect", "bar")
    (base,) = (float(one["x1"]) for one in elements(drawing, "line", "mark"))
    unit = (ticks[-1] - ticks[0]) / 0.3  # the axis goes from 40% to 70%
    assert float(up["x"]) == pytest.approx(base, abs=0.1) and float(up["width"]) == pytest.approx(0.1 * unit, abs=0.2)
    assert float(down["width"]) == pytest.approx(0.05 * unit, abs=0.2)
    assert float(down["x"]) + float(down["width"]) == pytest.approx(base, abs=0.2)
    assert "side-up" in up["class"] and "side-down" in down["class"]
    low, high = map(float, re.findall(r"M([\d.]+) [\d.]+ L([\d.]+)", elements(drawing, "path", "whisk")[0]["d"])[0])
    assert (low - ticks[0], high - ticks[0]) == pytest.approx((0.15 * unit, 0.25 * unit), abs=0.2)
    assert drawing.rows == (("up", "60.0% (55.0% to 65.0%)"), ("down", "45.0% (40.0% to 50.0%)"))


def test_outcomes_fill_the_bar_in_proportion() -> None:
    drawing = outcome_bars("x", {"a": (0.5, 0.2, 0.3)})
    parts = elements(drawing, "rect", "outcome")
    widths = np.array([float(part["width"]) for part in parts])
    assert [part["class"].split()[1] for part in parts] == ["won", "tied", "lost"]
    assert widths / widths.sum() == pytest.approx([0.5, 0.2, 0.3], abs=0.001)
    assert [float(part["x"]) for part in parts[1:]] == pytest.approx(
        [float(part["x"]) + float(part["width"]) for part in parts[:-1]], abs=0.11
    )


def test_corners_of_a_radar_have_their_value_as_distance_and_their_category_as_angle() -> None:
    values = [0.2, 0.9, 0.5, None, 0.4]
    for at, (value, corner) in enumerate(zip(values, polygon_points(values, 0.2, 1.0), strict=True)):
        if value is None:
            assert corner is None
            continue
        assert corner is not None
        place = complex(corner[0] - CENTRE_X, CENTRE_Y - corner[1])
        expected = RADIUS * (value - 0.2) / 0.8 * np.exp(1j * (math.pi / 2 - 2 * math.pi * at / len(values)))
        assert place == pytest.approx(expected, abs=1e-9)


def test_a_radar_with_a_gap_is_open_and_without_one_closed() -> None:
    axes = ["a", "b", "c", "d"]
    whole, gap = (
        elements(radar("x", axes, {"s": values}), "path", "polygon")[0]
        for values in ([0.5, 0.6, 0.7, 0.4], [0.5, 0.6, None, 0.4])
    )
    assert whole["d"].endswith("Z") and "open" not in whole["class"]
    assert not gap["d"].endswith("Z") and "open" in gap["class"] and gap["d"].count("M") == 2


def test_several_radars_may_share_one_scale() -> None:
    alone = radar("x", ["a", "b", "c"], {"s": [0.5, 0.52, 0.55]})
    within = radar("x", ["a", "b", "c"], {"s": [0.5, 0.52, 0.55]}, within=[0.1, 0.9])
    assert "100%" not in texts(alone) and "100%" in texts(within) and " 0%" in texts(within)


def test_areas_of_a_distribution_are_shares_and_zero_parts_safe_from_unsafe() -> None:
    rng = np.random.default_rng(0)
    costs = rng.normal(-0.5, 2.0, 1000)
    edges = np.linspace(-8.0, 8.0, 22)  # zero lies within a bin
    counts = np.histogram(costs, edges)[0]
    wide = np.array([-8.0, -2.0, -1.0, 0.5, 8.0])
    histograms = [
        CostHistogram("even", tuple(edges), tuple(counts), rate(-0.5), rate(0.6)),
        CostHistogram("uneven", tuple(wide), tuple(np.histogram(costs, wide)[0]), rate(-0.5), rate(0.6)),
    ]
    assert all(
        sum(d * (b - a) for d, a, b in zip(one.densities(), one.edges, one.edges[1:], strict=False))
        == pytest.approx(1.0)
        for one in histograms
    )
    drawing = cost_distributions("x", histograms)
    hills = elements(drawing, "rect", "hill")
    zero = float(elements(drawing, "line", "zero")[0]["x1"])
    for one in hills:
        left, right = float(one["x"]), float(one["x"]) + float(one["width"])
        assert right <= zero + 0.2 if "safe" in one["class"].split() else left >= zero - 0.2
    areas = [0.0, 0.0]
    heights = sorted({float(one["y"]) for one in hills})
    middle = float(elements(drawing, "line", "floor")[0]["y1"])
    for one in hills:
        areas[float(one["y"]) >= middle] += float(one["width"]) * float(one["height"])
    assert heights[0] < middle < heights[-1]
    assert areas[0] == pytest.approx(areas[1], rel=0.02), "the same answers, in other bins, have the same area"
    assert drawing.rows[0] == ("even", "-0.50 (-0.55 to -0.45)", "60.0% (55.0% to 65.0%)")


def test_cells_are_as_strong_as_their_share_and_bold_where_sure() -> None:
    drawing = heat_map("x", ["a", "b"], ["a", "b"], [[None, rate(0.8)], [rate(0.52), rate(0.5)]])
    cells = elements(drawing, "rect", "cell")
    opacity = [float(re.findall(r"[\d.]+", one.get("style", "0"))[0]) for one in cells]
    assert "none" in cells[0]["class"] and opacity[1] > opacity[2] > opacity[3]
    assert str(drawing.svg).count('class="rate sure"') == 1
    zero = heat_map("x", ["a"], ["u", "v"], [[rate(0.1), rate(0.9)]], around="zero", mark_sure=False)
    low, high = (float(re.findall(r"[\d.]+", one["style"])[0]) for one in elements(zero, "rect", "cell"))
    assert high > low and "sure" not in str(zero.svg)
    assert "u" in texts(zero) and "1 " not in texts(zero), "columns that are no rows have names, not numbers"


def test_points_have_their_height_and_rings_mark_the_moves_of_the_magnet() -> None:
    stops = [Stop("20", rate(0.4, None), 0.0, True), Stop("40", rate(0.45, None)), Stop("60", rate(0.5), 0.81, True)]
    drawing = training_path("x", "against the mixture", stops)
    (mark,) = (float(one["y1"]) for one in elements(drawing, "line", "mark"))
    rings = elements(drawing, "circle", "magnet")
    (stop,) = elements(drawing, "circle", "stop")
    (weight,) = elements(drawing, "circle", "weight")
    assert len(rings) == 2 and float(rings[1]["cy"]) == pytest.approx(mark, abs=0.1)
    assert float(rings[0]["cy"]) - mark == pytest.approx(2 * (float(stop["cy"]) - mark), abs=0.2)
    assert float(weight["r"]) == pytest.approx(8.0 * 0.9, abs=0.1), "the area is the weight"
    assert [row[3] for row in drawing.rows] == ["yes", "", "yes"]


def test_curves_leave_out_what_is_not_known() -> None:
    drawing = point_curves("x", ["1", "2", "4"], {"a": [rate(0.5), None, rate(0.7)], "b": [None, rate(0.6), None]})
    curve = elements(drawing, "path", "curve")
    assert len(curve) == 1 and curve[0]["d"].count(" L") == 1
    assert len(elements(drawing, "circle", "curve")) == 3
    assert drawing.rows[1] == ("2", "–", "60.0% (55.0% to 65.0%)")


@pytest.mark.parametrize(
    ("label", "letters", "lines", "expected"),
    [
        ("prefix_injection", 9, 3, ["prefix_", "injection"]),
        ("crimes and illegal activities", 15, 3, ["crimes and", "illegal", "activities"]),
        ("x" * 25, 10, 2, ["x" * 10, "x" * 9 + "…"]),
        ("many_shot:shots=8", 11, 3, ["many_shot:", "shots=8"]),
        ("", 5, 2, [""]),
    ],
)
def test_labels_break_between_words_where_they_can(label: str, letters: int, lines: int, expected: Any) -> None:
    assert label_lines(label, letters, lines) == expected


def test_a_scale_keeps_what_is_outside_at_its_end() -> None:
    scale = Scale(0.0, 2.0, 10.0, 110.0)
    assert [scale(value) for value in (0.0, 1.0, 2.0, 5.0, -1.0)] == [10.0, 60.0, 110.0, 110.0, 10.0]
    assert Scale(1.0, 1.0, 0.0, 9.0)(1.0) == 0.0


def test_distances_are_drawn_by_their_square_root() -> None:
    points = {
        name: (rate(far, None), rate(won, None))
        for name, far, won in (("a", 1.0, 0.5), ("b", 4.0, 0.6), ("c", 16.0, 0.7))
    }
    drawing = distance_plot("t", "win rate", points, dict.fromkeys(points, 1))
    dots = elements(drawing, "circle", "curve")
    x, y = ([float(dot[axis]) for dot in dots] for axis in ("cx", "cy"))
    left = 44.0  # where the distance is 0
    assert (x[1] - left) / (x[0] - left) == pytest.approx(2.0, abs=0.01)
    assert (x[2] - left) / (x[0] - left) == pytest.approx(4.0, abs=0.02)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11) and y[0] > y[1], "win rates linearly, upwards"
    assert drawing.rows[1] == ("b", "2", "4.00", "60.0%, no interval")


@pytest.mark.parametrize("farthest", [0.02, 0.7, 3.0, 31.0, 5000.0])
def test_marks_of_distances_begin_at_zero_and_do_not_crowd(farthest: float) -> None:
    ticks = distance_ticks(farthest)
    assert ticks[0] == 0.0 and ticks == sorted(set(ticks)) and ticks[-1] <= farthest
    places = np.sqrt(np.array(ticks) / farthest)
    assert np.diff(places).min(initial=1.0) > 0.05


def test_names_of_points_hide_neither_each_other_nor_a_point_nor_a_whisker() -> None:
    """Twelve crowded points, twenty times: hardly anything is hidden of what names to the right of them would hide."""
    rng = np.random.default_rng(0)
    area = Box(0.0, 0.0, 480.0, 200.0)
    hidden, plainly = 0, 0
    for _ in range(20):
        points = [(float(x), float(y)) for x, y in rng.uniform((60, 20), (420, 180), (12, 2))]
        lines = [Box(x - 1.0, y - 15.0, 2.0, 30.0) for x, y in points]
        dots = [Box(x - 3.0, y - 3.0, 6.0, 6.0) for x, y in points]
        found = place_labels(points, [50.0] * 12, 8.0, area, gap=4.0, lines=lines)
        assert all(box.overlap(area) == pytest.approx(box.width * box.height) for box in found)
        plain = [Box(x + 4.0, y - 4.0, 50.0, 8.0) for x, y in points]
        hidden, plainly = (
            before + sum(box.overlap(one) > 0.0 for at, box in enumerate(boxes) for one in [*boxes[:at], *lines, *dots])
            for before, boxes in ((hidden, found), (plainly, plain))
        )
    assert plainly > 100 and hidden < 0.1 * plainly
    far_apart = place_labels([(100.0, 50.0), (300.0, 150.0)], [40.0, 40.0], 8.0, area, gap=4.0)
    assert far_apart == [Box(104.0, 46.0, 40.0, 8.0), Box(304.0, 146.0, 40.0, 8.0)], (
        "right of the point where there is room"
    )


def test_an_interval_as_wide_as_everything_does_not_hide_the_others() -> None:
    usual = [rate(value, 0.01) for value in (0.5, 0.52, 0.55)]
    assert shown_range(usual) == pytest.approx((0.49, 0.56))
    assert shown_range([*usual, rate(0.58, 0.4)]) == pytest.approx((0.49, 0.58)), "its value is shown, its ends are not"
    assert shown_range([rate(0.5, None)]) == (0.5, 0.5)
