import re
from pathlib import Path

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError
from magnetar.reports.gap_plot import GapCurve, draw_gap_plot


@pytest.fixture(scope="module")
def curves() -> list[GapCurve]:
    made = (methods.mpo(magnet_every=4), methods.mirror_descent())
    return [GapCurve.from_trace(games.run(method, games.biased_rps(), updates=20)) for method in made]


def test_a_curve_is_its_trace() -> None:
    trace = games.run(methods.mpo(magnet_every=4), games.biased_rps(), updates=10)
    curve = GapCurve.from_trace(trace, label="mine")
    assert curve.label == "mine"
    np.testing.assert_array_equal(curve.magnet_moves, [4, 8])
    np.testing.assert_array_equal(curve.gap, trace.duality_gap)


def test_svg_is_reproducible_and_depends_on_the_curves(curves: list[GapCurve], tmp_path: Path) -> None:
    for name, drawn in (("a", curves), ("b", curves), ("c", curves[:1])):
        draw_gap_plot(drawn, tmp_path / f"{name}.svg", title="gaps")
    a, b, c = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_gaps_of_zero_are_drawn(tmp_path: Path) -> None:
    at_once = games.run(methods.mpo(), games.rps(), updates=3)
    draw_gap_plot([GapCurve.from_trace(at_once)], tmp_path / "zero.png", title="at the equilibrium")
    assert (tmp_path / "zero.png").stat().st_size > 1000


def test_a_run_of_no_updates_is_drawn(tmp_path: Path) -> None:
    start = games.run(methods.mpo(), games.biased_rps(), updates=0)
    draw_gap_plot([GapCurve.from_trace(start)], tmp_path / "start.png", title="start")
    assert (tmp_path / "start.png").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("gap.gif", "suffix '.gif'"), ("gap", "suffix ''"), ("none/gap.png", "no folder"), ("dir.png", "is a folder")],
)
def test_paths_that_cannot_be_drawn(curves: list[GapCurve], tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(ConfigError, match=re.escape(message)):
        draw_gap_plot(curves, tmp_path / name, title="gaps")


def test_no_curves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no curves"):
        draw_gap_plot([], tmp_path / "gap.png", title="gaps")
