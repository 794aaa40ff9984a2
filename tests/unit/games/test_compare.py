import re
from pathlib import Path

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError, GameError
from magnetar.games.comparison.cells import CellResult, evaluations_to, result_row, run_cell, summarize, target_text
from magnetar.games.comparison.choices import (
    Cell,
    check_updates,
    choose_games,
    choose_method,
    display_labels,
    game_settings,
    starting_policy,
)
from magnetar.games.settings import setting_text, split_specs


def a_cell(method: str = "mpo", game: str = "biased_rps", updates: int = 200) -> Cell:
    return Cell(choose_games([game])[0], choose_method(method), updates)


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("mpo,mmd", ["mpo", "mmd"]),
        ("mpo:step_size=2,magnet_every=5,mmd", ["mpo:step_size=2,magnet_every=5", "mmd"]),
        (" random:actions=3 , seed=4, ,rps,", ["random:actions=3,seed=4", "rps"]),
        ("file:a.csv,b.npy", ["file:a.csv", "b.npy"]),
        ("", []),
    ],
)
def test_commas_separate_specs_and_their_settings(text: str, specs: list[str]) -> None:
    assert split_specs(text) == specs


def test_settings_are_typed_by_the_method_and_build_it() -> None:
    choice = choose_method("mpo:step_size=2,magnet_every=5")
    assert choice.settings == (("step_size", 2.0), ("magnet_every", 5))
    assert choice.method == methods.mpo(step_size=2.0, magnet_every=5)
    assert choice.label == "mpo:step_size=2,magnet_every=5"
    assert choice.all_settings == {"step_size": 2.0, "magnet_strength": 0.1, "magnet_every": 5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mpoo", "unknown method 'mpoo'; did you mean 'mpo'?"),
        ("mpo:step_sice=2", "method 'mpo': unknown setting 'step_sice'; did you mean 'step_size'?"),
        ("mpo:step_size", "'step_size' is no setting, expected KEY=VALUE, for instance step_size=1"),
        ("mpo:step_size=fast", "step_size is 'fast', expected a number"),
        ("mpo:magnet_every=2.5", "magnet_every is '2.5', expected an integer"),
        ("mpo:step_size=1,step_size=2", "setting 'step_size' is given twice"),
        ("mpo:step_size=1e999", "step_size is inf, expected a positive, finite number"),
        ("mpo:step_size=nan", "step_size is nan, expected a positive, finite number"),
        ("mpo:clip_range=0.1", "clip_range acts on language models only"),
        ("mpo:opponent=magnet", "unknown setting 'opponent'"),
        (":step_size=1", "names nothing"),
    ],
)
def test_methods_that_cannot_be_built(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose_method(spec)


def test_settings_of_every_method_round_trip_through_words() -> None:
    for name in methods.METHODS:
        words = ",".join(
            f"{key}={setting_text(value)}" for key, value in game_settings(name).items() if value is not None
        )
        assert choose_method(f"{name}:{words}").method == choose_method(name).method, name


def test_seeds_multiply_random_games_only() -> None:
    chosen = choose_games(["rps", "random:actions=4", "random:actions=5,seed=7"], seeds=[0, 3])
    assert [game.label for game in chosen] == [
        "rps",
        "random:actions=4,seed=0",
        "random:actions=4,seed=3",
        "random:actions=5,seed=7",
    ]
    assert chosen[1].digest != chosen[2].digest


def test_a_suite_stands_for_its_games_and_repeats_are_dropped() -> None:
    chosen = choose_games(["small", "rps", "rps"])
    assert len({game.label for game in chosen}) == len(chosen) >= 12
    assert [game.label for game in chosen].count("rps") == 1


def test_files_are_named_by_their_stem_unless_two_share_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "mine.npy", tmp_path / "other" / "mine.npy", tmp_path / "yours.npy"):
        np.save(path, games.biased_rps().P)
    paths = [str(tmp_path / "mine.npy"), str(tmp_path / "yours.npy")]
    assert [game.label for game in choose_games(paths)] == ["mine", "yours"]
    twice = choose_games([*paths, str(tmp_path / "other" / "mine.npy")])
    assert [game.label for game in twice] == [paths[0], "yours", str(tmp_path / "other" / "mine.npy")]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rsp", "unknown game 'rsp'; did you mean 'rps'?"),
        ("standart", "unknown game 'standart'; did you mean 'standard'?"),
        ("random:acions=3", "did you mean 'actions'?"),
        ("nowhere.csv", "nowhere.csv: no such file"),
    ],
)
def test_games_that_cannot_be_built(spec: str, message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        choose_games([spec])


def test_a_file_that_changes_during_the_comparison_is_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", games.biased_rps().P)
    chosen = choose_games([str(tmp_path / "mine.npy")])[0]
    np.save(tmp_path / "mine.npy", games.rps().P)
    with pytest.raises(GameError, match="not what it was"):
        chosen.build()


@pytest.mark.parametrize("method", ["mpo", "mirror_descent", "omwu"])
def test_thinning_keeps_first_crossings_ends_and_extremes(method: str) -> None:
    cell = a_cell(method, updates=5000)
    result = run_cell(cell, cell.game.build())
    start = starting_policy("skewed", 3)
    trace = games.run(cell.choice.method, games.biased_rps(), updates=5000, initial=start)
    assert len(result.gap) < 4000
    assert (result.updates[0], result.updates[-1]) == (0, 5000)
    np.testing.assert_array_equal(result.gap, trace.duality_gap[result.updates])
    np.testing.assert_array_equal(result.average_gap, trace.average_gap[result.updates])
    assert result.gap.min() == trace.duality_gap.min()
    assert result.gap.max() == trace.duality_gap.max()
    for target in np.geomspace(1, 1e-17, 60):
        assert evaluations_to(result, target) == trace.evaluations_to(target)


def test_paths_are_kept_for_three_actions_only() -> None:
    cell = a_cell(updates=20)
    result = run_cell(cell, cell.game.build())
    assert result.policies is not None and result.magnets is not None
    assert result.policies.shape == (21, 3)
    np.testing.assert_array_equal(result.magnets[1:], result.policies[[10, 20]])
    assert run_cell(a_cell("mirror_descent", updates=3), games.biased_rps()).magnets is None
    larger = a_cell(game="random:actions=4", updates=3)
    assert run_cell(larger, larger.game.build()).policies is None


def test_identity_names_all_that_matters_and_nothing_else() -> None:
    base = a_cell()
    assert base.identity == a_cell("mpo:step_size=1").identity
    others = [
        a_cell("mpo:step_size=2"),
        a_cell("mpo_rt"),
        a_cell(game="rps"),
        a_cell(updates=201),
        Cell(base.game, base.choice, base.updates, "uniform"),
    ]
    assert all(other.identity != base.identity for other in others)


def result(*gaps: float) -> CellResult:
    count = np.arange(len(gaps))
    return CellResult(count, 2 * count, np.array(gaps), np.array(gaps), seconds=0.5)


def test_summary_counts_unsolved_games_as_never() -> None:
    table = [
        [result(1, 0.1, 0.001), result(1, 0.001, 1)],
        [result(1, 0.001, 0.5), None],
        [result(1, 1, 1), result(1, 1, 0.2)],
    ]
    first, second = summarize(["a", "b"], table, [0.01])
    assert (first.solved, first.median_evaluations, first.worst_evaluations) == ((2,), (4.0,), (None,))
    assert (first.fewest, first.failed, first.median_final_gap, first.worst_final_gap) == ((1,), 0, 0.5, 1.0)
    assert (second.solved, second.median_evaluations, second.fewest, second.failed) == ((1,), (None,), (1,), 1)


def test_rows_leave_what_there_is_not_empty() -> None:
    row = result_row(a_cell(updates=2), result(1, 0.05, 0.001), "", [0.01, 1e-4])
    assert (row["method"], row["settings"]) == ("mpo", "step_size=1 magnet_strength=0.1 magnet_every=10")
    assert (row["evaluations_to_1e-2"], row["evaluations_to_1e-4"]) == (4, "")
    failed = result_row(a_cell(updates=2), None, "no luck", [0.01])
    assert (failed["final_gap"], failed["seconds"], failed["failure"]) == ("", "", "no luck")
    assert list(failed)[:3] == list(row)[:3] == ["game", "actions", "method"]


def test_labels_tell_methods_apart_and_are_short() -> None:
    chosen = [choose_method(spec) for spec in ("mmd", "mpo:magnet_every=5", "mpo:step_size=2")]
    assert display_labels(chosen) == ["mmd", "mpo η=1 T=5", "mpo η=2 T=10"]


@pytest.mark.parametrize("updates", [-1, 10**12])
def test_numbers_of_updates_that_no_run_could_make(updates: int) -> None:
    with pytest.raises(ConfigError, match=f"updates is {updates:,}, expected at least 0"):
        check_updates(updates)


def test_targets_are_written_as_people_write_them() -> None:
    assert [target_text(target) for target in (0.01, 1e-6, 0.5, 0.025)] == ["1e-2", "1e-6", "0.5", "0.025"]
