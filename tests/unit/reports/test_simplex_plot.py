import re
from pathlib import Path

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError, GameError
from magnetar.reports.simplex_plot import Trajectory, draw_simplex_plot

START = np.array([6, 3, 2]) / 11


def path_of(method: methods.Method, updates: int = 60) -> Trajectory:
    trace = games.run(method, games.biased_rps(), updates=updates, initial=START, record=True)
    return Trajectory.from_trace(trace, has_magnet=method.name != "mirror_descent")


@pytest.fixture(scope="module")
def paths() -> list[Trajectory]:
    return [path_of(method) for method in (methods.mirror_descent(), methods.mmd(), methods.mpo())]


def words(path: Path) -> str:
    """Words of an SVG: matplotlib notes each before the shapes that draw it."""
    return " | ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def test_a_path_is_its_trace() -> None:
    moving = path_of(methods.mpo(magnet_every=20))
    assert moving.magnets is not None
    np.testing.assert_array_equal(moving.magnets, moving.policies[[0, 20, 40, 60]])
    assert moving.magnet_moves
    still = path_of(methods.mmd())
    assert still.magnets is not None and len(still.magnets) == 1 and not still.magnet_moves
    assert path_of(methods.mirror_descent()).magnets is None


def test_the_picture_says_what_happens(paths: list[Trajectory], tmp_path: Path) -> None:
    draw_simplex_plot(paths, games.rps(), tmp_path / "all.svg")
    said = words(tmp_path / "all.svg")
    for expected in (
        "(a) mirror_descent", "(b) mmd", "(c) mpo", "no magnet", "magnet never moves", "magnet moves to the policy",
        "rock", "paper", "scissors", "start", "equilibrium", "average policy", "magnet 1, 2, …", "magnet moves",
    ):  # fmt: skip
        assert expected in said
    assert f"gap {paths[0].final_gap:.2g}" in said


def test_one_path_has_no_letter_and_no_words_of_others(paths: list[Trajectory], tmp_path: Path) -> None:
    nameless = games.PreferenceGame(games.biased_rps().P)
    draw_simplex_plot(paths[:1], nameless, tmp_path / "one.svg")
    said = words(tmp_path / "one.svg")
    assert "(a)" not in said and "magnet 1" not in said
    assert "action 0" in said


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_every_form_is_written_whole_and_reproducibly(paths: list[Trajectory], tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        draw_simplex_plot(paths[2:], games.biased_rps(), tmp_path / f"{name}{suffix}")
    content = (tmp_path / f"a{suffix}").read_bytes()
    assert content.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    assert content == (tmp_path / f"b{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]


def test_many_paths_and_a_run_that_never_moves(tmp_path: Path) -> None:
    still = path_of(methods.mpo(), updates=0)
    draw_simplex_plot([still] * 9, games.biased_rps(), tmp_path / "nine.png")
    assert (tmp_path / "nine.png").stat().st_size > 1000


def test_a_game_in_which_nothing_matters_has_no_arrows(tmp_path: Path) -> None:
    tie = games.PreferenceGame(np.full((3, 3), 0.5))
    draw_simplex_plot([path_of(methods.mpo())], tie, tmp_path / "tie.svg")
    assert (tmp_path / "tie.svg").exists()


def test_what_cannot_be_drawn(paths: list[Trajectory], tmp_path: Path) -> None:
    with pytest.raises(GameError, match="4 actions, expected 3 for a picture of the simplex"):
        draw_simplex_plot(paths, games.random_game(4), tmp_path / "a.svg")
    with pytest.raises(ConfigError, match="no trajectories"):
        draw_simplex_plot([], games.rps(), tmp_path / "a.svg")
    with pytest.raises(ConfigError, match=r"suffix '\.gif'"):
        draw_simplex_plot(paths, games.rps(), tmp_path / "a.gif")
    with pytest.raises(ConfigError, match="record=True"):
        Trajectory.from_trace(games.run(methods.mpo(), games.rps(), updates=1), has_magnet=True)
    with pytest.raises(ConfigError, match=r"policies of 'mpo' has shape \(2, 4\), expected \(n, 3\)"):
        Trajectory.from_trace(games.run(methods.mpo(), games.random_game(4), updates=1, record=True), has_magnet=True)
