"""The files of a comparison say the same, hide nothing, and the page is whole and safe to open."""

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from magnetar.errors import DataError
from magnetar.evaluation.comparison.results import ComparisonResult, CurvePoint, MethodRow, RunRow, Spent
from magnetar.evaluation.intervals import Estimate
from magnetar.reports.comparison_charts import budget_chart, kl_chart, rate_range
from magnetar.reports.comparison_files import (
    comparison_csv,
    comparison_markdown,
    comparison_record,
    read_comparison,
    write_comparison,
)
from magnetar.reports.comparison_page import comparison_page, comparison_verdict
from magnetar.reports.drawing.heat import heat_map

HOSTILE = "<script>alert('x')</script> | a & b"
VOID = ("meta", "link", "line", "circle", "rect", "path", "br", "input")


def estimate(value: float, half: float | None = 0.04) -> Estimate:
    if half is None:
        return Estimate(value, None, None, 0.95, "undefined", "one prompt")
    return Estimate(value, value - half, value + half, 0.95, "crossed")


def row(label: str, rate: float | None, others: float | None = 0.5, half: float | None = 0.04) -> MethodRow:
    return MethodRow(
        label=label,
        method="" if rate is None else "mpo",
        seeds=() if rate is None else (0, 1),
        win_rate=None if rate is None else estimate(rate, half),
        win_rate_others=None if others is None else estimate(others),
        kl_nats=estimate(0.0 if rate is None else 4.25),
        tokens=estimate(37.5),
        truncated=0.25,
        distinct_2=0.8,
        looping=0.01,
        canned=0.0,
        spent=None if rate is None else Spent(1152.0, 98765.0, 24.0, 3725.0),
        equilibrium=0.0,
        in_support=0.5,
    )


def found(**changes: Any) -> ComparisonResult:
    """Two methods and the reference; the first has a hostile name."""
    rates = [[None, 0.62, 0.71], [0.38, None, 0.52], [0.29, 0.48, None]]
    result = ComparisonResult(
        rows=[row(HOSTILE, 0.71, 0.62), row("b", 0.52, 0.38), row("reference", None, 0.385)],
        runs=[
            RunRow(HOSTILE, 0, estimate(0.7), Spent(1152, 1, 2, 3)),
            RunRow("b", 0, estimate(0.52), Spent(1, 2, 3, 4)),
        ],
        matrix=[[None if rate is None else estimate(rate) for rate in line] for line in rates],
        curves={
            HOSTILE: [CurvePoint(400.0, estimate(0.6), 2), CurvePoint(1152.0, estimate(0.71), 2)],
            "b": [CurvePoint(1152.0, estimate(0.52, None), 1)],
        },
        budget_unit="comparisons",
        budget=1152,
        judge="reward:one",
        eval_judge="reward:other",
        same_judge=False,
        prompts=100,
        responses=2,
        confidence=0.95,
        settings={"model": HOSTILE, "methods": {"b": {"method": "mpo"}}, "evaluation": {"prompts": 100}},
        versions={"magnetar": "0"},
    )
    return replace(result, **changes)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_the_page_is_whole_and_names_are_text() -> None:
    text = comparison_page(found(missing=[f"{HOSTILE}, seed 1: failed"], notes=[HOSTILE]))
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.scripts == 1  # the page's own
    assert "<script>alert" not in text
    assert not re.search(r"""(src|href)=["']?(http|//)""", text)


def test_what_is_missing_and_what_to_know_stands_at_the_top() -> None:
    text = comparison_page(found(missing=["b, seed 1: failed: loss is nan"], notes=["One seed for each method."]))
    top = text[: text.index("<h2>")]
    assert "Not in the tables: b, seed 1: failed: loss is nan" in top and "One seed for each method." in top
    assert "Know this" not in comparison_page(found())


def test_every_figure_of_the_table_is_on_the_page() -> None:
    text = " ".join(comparison_page(found()).split())
    for figure in (
        "71.0%",
        "67.0% to 75.0%",
        "62.0%",
        "4.25",
        "37.5",
        "1,152",
        "98,765",
        "62 min",
        "25%",
        "0.00 <small>50%",
    ):
        assert figure in text, figure
    for settings in ("reward:one", "reward:other", "95% intervals"):
        assert settings in text


@pytest.mark.parametrize(
    ("rows", "matrix", "sentence"),
    [
        ([row("a", 0.52), row("b", 0.49)], 0.5, "No method is shown to be better than where training started."),
        ([row("a", 0.71, 0.6), row("b", 0.52, 0.4)], 0.6, "Better than the reference: a. a beats every other method"),
        (
            [row("a", 0.71, 0.51), row("b", 0.7, 0.49)],
            0.51,
            "a wins most against the others, but is not shown to beat any",
        ),
    ],
)
def test_the_verdict_claims_what_intervals_show(rows: list[MethodRow], matrix: float, sentence: str) -> None:
    cells = [[None, estimate(matrix), estimate(0.7)], [estimate(1 - matrix), None, estimate(0.6)], [None, None, None]]
    assert sentence in comparison_verdict(found(rows=[*rows, row("reference", None)], matrix=cells))


def test_one_method_alone_is_compared_with_the_reference() -> None:
    alone = found(
        rows=[row("a", 0.7, None), row("reference", None, 0.3)],
        matrix=[[None, estimate(0.7)], [estimate(0.3), None]],
        curves={},
        runs=[],
    )
    assert comparison_verdict(alone) == "It beats the reference."
    assert "<h1>One method</h1>" in comparison_page(alone)


def test_drawings_are_well_formed_and_mark_what_is_sure() -> None:
    result = found()
    heat = heat_map("Who beats whom", result.labels, result.labels, result.matrix).svg
    charts = [heat, kl_chart(result.rows)]
    charts += [budget_chart(label, result.curves, "comparisons", (0.4, 0.8)) for label in result.curves]
    for chart in charts:
        ElementTree.fromstring(str(chart).replace("&#39;", "'"))
    assert heat.count('class="rate sure"') == 4  # 0.62 and 0.71 and their mirror images; 0.52 ± 0.04 holds one half
    assert heat.count('class="rate"') == 2
    assert heat.count("cell none") == 3


def test_points_of_a_curve_lie_where_their_figures_say() -> None:
    curve = {"a": [CurvePoint(50.0, estimate(0.6), 3), CurvePoint(100.0, estimate(0.8), 3)]}
    chart = str(budget_chart("a", curve, "tokens", (0.5, 0.9)))
    places = [
        tuple(map(float, at)) for at in re.findall(r'<circle class="curve tone-1" cx="([\d.]+)" cy="([\d.]+)"', chart)
    ]
    (x1, y1), (x2, y2) = places
    start = tuple(map(float, re.findall(r'<path class="curve tone-1" d="M([\d.]+) ([\d.]+)', chart)[0]))
    assert x1 - start[0] == pytest.approx(x2 - x1, abs=0.2)  # half of the way, then all of it
    assert (start[1] - y1) / (start[1] - y2) == pytest.approx(1 / 3, abs=0.02)  # 0.6 and 0.8 above one half
    assert "after 100 tokens" in chart


def test_a_range_of_rates_holds_one_half_and_all_ends() -> None:
    assert rate_range([estimate(0.6), estimate(0.7, None)]) == (0.5, 0.7)
    assert rate_range([estimate(0.3, 0.1)]) == pytest.approx((0.2, 0.5))


def test_json_is_read_back_as_it_was(tmp_path: Path) -> None:
    result = found(missing=["x"], notes=["y"])
    write_comparison(result, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".md", ".html"}
    again = read_comparison(tmp_path / "comparison.json")
    assert comparison_record(again) == comparison_record(result)
    assert comparison_page(again) == (tmp_path / "comparison.html").read_text()
    (tmp_path / "comparison.json").write_text('{"rows": []}')
    with pytest.raises(DataError, match="cannot be read as a comparison"):
        read_comparison(tmp_path / "comparison.json")
    with pytest.raises(DataError, match="choose another output_dir"):
        write_comparison(result, tmp_path / "nowhere")


def test_the_csv_has_a_line_for_each_method_and_each_run() -> None:
    lines = list(csv.DictReader(io.StringIO(comparison_csv(found()))))
    assert [line["label"] for line in lines] == [HOSTILE, "b", "reference", HOSTILE, "b"]
    assert (float(lines[0]["win_rate"]), float(lines[0]["win_rate_low"])) == pytest.approx((0.71, 0.67))
    assert lines[2]["win_rate"] == "" and lines[2]["spent_tokens"] == ""
    assert (lines[0]["seeds"], lines[3]["seeds"]) == ("0 1", "0")
    assert float(lines[0]["spent_seconds"]) == 3725.0


def test_the_markdown_is_a_table_whatever_labels_hold() -> None:
    text = comparison_markdown(found(missing=["b, seed 1: failed"]))
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths == {14, 5}  # thirteen columns, and the matrix of three
    assert "71.0% (67.0–75.0)" in text and "Not in the tables:" in text and "- b, seed 1: failed" in text
    assert json.dumps(comparison_record(found()))
