"""Figures for papers show the numbers that the suite holds, with letters as letters."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from magnetar.errors import DataError
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, write_suite
from magnetar.reports.figures import figure_names, plots, write_figures
from magnetar.reports.sections.costs import cost_histograms, cost_records
from unit.reports.suite_example import CATEGORIES, POLICIES, example_suite

JUDGED = ("ablation", "distance", "outcomes", "categories", "radar")
ONCE = ("costs", "payoffs", "attacks", "exploitability", "attackers")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures as they are when they are saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    return figures


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def test_every_figure_for_which_there_are_data_is_written(tmp_path: Path) -> None:
    write_suite(example_suite(), tmp_path)
    names = [f"{name}-{judge}" for judge in ("preference", "gpt") for name in JUDGED] + list(ONCE)
    assert sorted(figure_names(tmp_path)) == sorted(names)
    suite = example_suite()
    only = replace(suite, matchups=[one for one in suite.matchups if one.judge == "gpt"][:2], attacks=(), costs=())
    write_suite(replace(only, tournament=(), exploitability=()), tmp_path)
    paths = write_figures(tmp_path, tmp_path / "figures", ["svg", "pdf"])
    assert [path.name for path in paths] == [f"{name}.{form}" for name in JUDGED for form in ("svg", "pdf")]
    for path in paths:
        if path.suffix == ".svg":
            tree = ElementTree.parse(path)
            words = " ".join("".join(one.itertext()) for one in tree.iter("{http://www.w3.org/2000/svg}text"))
            assert "PPO" in words, "letters are text, not paths"
        else:
            assert path.read_bytes().startswith(b"%PDF") and not re.search(rb"/Type3\b", path.read_bytes())


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        plots.draw_outcomes(path, {"a": (0.5, 0.1, 0.4)})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    write_suite(SuiteResult(policies=example_suite().policies), tmp_path)
    with pytest.raises(DataError, match="has nothing to draw"):
        write_figures(tmp_path, tmp_path / "figures")


def test_bars_reach_from_one_half_to_the_win_rate(drawn: list[Figure]) -> None:
    rates = {one.policy: one.win_rate for one in example_suite().matchups if one.judge == "gpt"}
    plots.draw_bars(Path("x.svg"), rates, "win rate")
    bars = axes_of(drawn[0]).patches
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx([one.value for one in rates.values()])  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes_of(drawn[0]).get_yticklabels()] == list(rates)
    ends = {round(x, 9) for line in axes_of(drawn[0]).lines for x in line.get_xdata()}  # type: ignore[union-attr]
    assert all(round(end, 9) in ends for one in rates.values() for end in (one.low or 0.0, one.high or 0.0))


def test_the_radar_closes_each_polygon(drawn: list[Figure]) -> None:
    values = {name: [0.4 + 0.05 * at for at in range(8)] for name in ("a", "b")}
    plots.draw_radar(Path("x.svg"), CATEGORIES, values)
    lines = [line for line in axes_of(drawn[0]).lines if line.get_label() in values]
    assert len(lines) == 2
    for line in lines:
        data = list(line.get_ydata())  # type: ignore[arg-type]
        assert data[:-1] == pytest.approx(values[str(line.get_label())]) and data[-1] == data[0]


def test_hills_of_costs_have_one_scale_and_two_colours(drawn: list[Figure]) -> None:
    histograms = cost_histograms(cost_records(example_suite(), "cost"))
    plots.draw_costs(Path("x.svg"), histograms)
    axes = axes_of(drawn[0])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(reversed(POLICIES))
    for bar in axes.patches:
        right = bar.get_x() + bar.get_width()  # type: ignore[attr-defined]
        assert (right <= 1e-9) == (bar.get_facecolor()[:3] == to_rgb(plots.UP))
    heights = sum(bar.get_height() * bar.get_width() for bar in axes.patches)  # type: ignore[attr-defined]
    tallest = max(max(one.densities()) for one in histograms)
    assert heights == pytest.approx(0.85 / tallest * len(histograms), rel=1e-6), "each hill's area is one share"


def test_cells_hold_their_numbers(drawn: list[Figure]) -> None:
    (record,) = example_suite().tournament
    from magnetar.reports.sections.tournament import tournament_matrix

    plots.draw_matrix(Path("x.svg"), record.names, record.names, tournament_matrix(record))
    told = {text.get_position(): text for text in axes_of(drawn[0]).texts}
    for i, row in enumerate(tournament_matrix(record)):
        for j, one in enumerate(row):
            if one is None:
                assert (j, i) not in told
            else:
                assert told[j, i].get_text() == f"{100 * one.value:.0f}"
                assert (told[j, i].get_fontweight() == "bold") == one.excludes(0.5)


def test_points_stand_at_their_distance_and_win_rate(drawn: list[Figure]) -> None:
    far = {"near": 1.0, "away": 9.0}
    points = {
        name: (Estimate(value, value - 0.5, value + 0.5, 0.95, "bca"), Estimate(0.6, 0.55, 0.65, 0.95, "bca"))
        for name, value in far.items()
    }
    plots.draw_distances(Path("x.svg"), points, "win rate")
    axes = axes_of(drawn[0])
    lines = [line for line in axes.lines if line.get_marker() != "None"]
    dots = [[*np.asarray(line.get_xdata()).tolist(), *np.asarray(line.get_ydata()).tolist()] for line in lines]
    assert [1.0, 0.6] in dots and [9.0, 0.6] in dots
    near, away, zero = (axes.transData.transform((x, 0.6))[0] for x in (1.0, 9.0, 0.0))
    assert (away - zero) == pytest.approx(3.0 * (near - zero)), "the axis is that of the square root"
    assert {text.get_text() for text in axes.texts} == set(far)
