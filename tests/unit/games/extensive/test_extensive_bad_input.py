import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from magnetar import methods
from magnetar.errors import ConfigError, GameError, MissingDependencyError
from magnetar.games import extensive

needs_openspiel = pytest.mark.skipif(
    "not __import__('importlib.util').util.find_spec('pyspiel')", reason="no OpenSpiel"
)


def test_games_do_not_load_openspiel() -> None:
    code = (
        "import sys, magnetar.games, magnetar.games.extensive;"
        "assert not {'pyspiel', 'open_spiel', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "magnetar\[poker\]"'):
        extensive.load_game("kuhn_poker")


@needs_openspiel
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kun_poker", "did you mean 'kuhn_poker'"),
        ("zzz", "unknown OpenSpiel game 'zzz'; for instance kuhn_poker"),
        ("", "unknown OpenSpiel game ''"),
        ("kuhn_poker(cards=3)", "cannot load 'kuhn_poker(cards=3)'"),
        ("kuhn_poker(players=3)", "3 player(s)"),
        ("bargaining", "general sum payoffs"),
        ("matrix_rps", "simultaneous moves"),
        ("tic_tac_toe", "more than 50,000 information states|more than 1,000,000 histories"),
        ("liars_dice_ir", "no perfect recall"),
    ],
)
def test_games_that_cannot_be_used(name: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GameError) as error:
        extensive.load_game(name)
    assert any(part in str(error.value) for part in message.split("|")), str(error.value)
    assert len(str(error.value)) < 250
    if "(" not in name:
        assert capfd.readouterr().err == ""


@needs_openspiel
def test_limits_of_size() -> None:
    with pytest.raises(GameError, match="more than 11 information states"):
        extensive.load_game("kuhn_poker", max_infostates=11)
    with pytest.raises(GameError, match="more than 57 histories"):
        extensive.load_game("kuhn_poker", max_histories=57)
    assert extensive.load_game("kuhn_poker", max_infostates=12, max_histories=58).num_infostates == 12
    with pytest.raises(ConfigError, match="max_infostates is 0"):
        extensive.load_game("kuhn_poker", max_infostates=0)


@pytest.mark.parametrize("name", ["ogda", "hamiltonian", "adagrad_norm", "bt_rlhf", "iterative_dpo"])
def test_methods_without_behavioural_form(name: str) -> None:
    with pytest.raises(ConfigError, match=f"method '{name}' has no behavioural form"):
        extensive.behavioural_form(methods.build_method(name))


@pytest.mark.parametrize("name", ["omwu", "sppo", "egpo", "nash_md", "inpo"])
def test_methods_without_sampled_form(name: str) -> None:
    with pytest.raises(ConfigError, match=f"method '{name}' has no sampled form"):
        extensive.sampled_form(methods.build_method(name))


@needs_openspiel
def test_runs_that_cannot_start(kuhn: extensive.ExtensiveGame) -> None:
    for run in (extensive.run_exact, extensive.run_sampled):
        with pytest.raises(ConfigError, match="updates is -1"):
            run(methods.mpo(), kuhn, -1)
        with pytest.raises(ConfigError, match=r"tremble is 1\.0"):
            run(methods.mpo(), kuhn, 1, tremble=1.0)
    with pytest.raises(ConfigError, match="updates is -1"):
        extensive.run_cfr(kuhn, -1)
    with pytest.raises(GameError, match=r"initial has shape \(2, 2\)"):
        extensive.run_exact(methods.mpo(), kuhn, 1, initial=np.eye(2))
    with pytest.raises(ConfigError, match="seed is -1, expected at least 0"):
        extensive.run_sampled(methods.mpo(), kuhn, 1, seed=-1)
    with pytest.raises(ConfigError, match=r"seed is 1\.5, expected an integer"):
        extensive.run_sampled(methods.mpo(), kuhn, 1, seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="settings is 5, expected SelfPlaySettings"):
        extensive.run_sampled(methods.mpo(), kuhn, 1, settings=5)  # type: ignore[arg-type]


RUNS = {
    "exact": lambda game, *rest, **options: extensive.run_exact(methods.mpo(), game, *rest, **options),
    "sampled": lambda game, *rest, **options: extensive.run_sampled(methods.mpo(), game, *rest, **options),
    "cfr": lambda game, *rest, **options: extensive.run_cfr(game, *rest, **options),
}


@needs_openspiel
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_run_checks_its_game_and_its_counts(kuhn: extensive.ExtensiveGame, run) -> None:
    with pytest.raises(GameError, match=r"game is 'kuhn_poker', expected ExtensiveGame; .*load_game\('kuhn_poker'\)"):
        run("kuhn_poker")
    for updates in (1e3, "10", 10.5, True):
        with pytest.raises(ConfigError, match=f"updates is {updates!r}, expected an integer of at least 0"):
            run(kuhn, updates)
    with pytest.raises(ConfigError, match=r"measure_at\[1\] is 'a', expected an integer"):
        run(kuhn, 2, measure_at=[0, "a"])
    with pytest.raises(ConfigError, match=r"measure_at\[0\] is 0\.5, expected an integer"):
        run(kuhn, 2, measure_at=[0.5])
    with pytest.raises(ConfigError, match=r"measure_at is 2, expected numbers of updates; write \[2\]"):
        run(kuhn, 2, measure_at=2)


@pytest.mark.parametrize("form", [extensive.behavioural_form, extensive.sampled_form])
def test_a_magnet_that_waits_for_rounds_is_refused(form) -> None:
    with pytest.raises(ConfigError, match=r"method 'mpo' moves its magnet at the end of each round.*never move"):
        form(methods.mpo(magnet=methods.EachRound()))
    with pytest.raises(ConfigError, match="method is 'mpo', expected Method"):
        form("mpo")


@needs_openspiel
def test_names_and_limits_of_another_type() -> None:
    with pytest.raises(GameError, match="name is 5, expected OpenSpiel's name"):
        extensive.load_game(5)  # type: ignore[arg-type] - wrong values are the point
    with pytest.raises(ConfigError, match=r"max_histories is 1\.5, expected an integer"):
        extensive.load_game("kuhn_poker", max_histories=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("episodes", 1),
        ("gradient_steps", 0),
        ("learning_rate", 0.0),
        ("hidden", ()),
        ("hidden", (8, 0)),
        ("hidden", 64),
        ("hidden", (64, 2.5)),
        ("hidden", "64"),
        ("episodes", 2.5),
        ("gradient_steps", 1.5),
        ("learning_rate", "a"),
    ],
)
def test_settings_of_self_play(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}(\[1\])? is"):
        extensive.SelfPlaySettings(**{setting: value})  # type: ignore[arg-type] - wrong values are the point


@needs_openspiel
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_mixed_opponent_plays_on_where_steps_are_so_long_that_actions_are_excluded(
    kuhn: extensive.ExtensiveGame, weight: float
) -> None:
    # Their log-probabilities are -inf, and 0 · inf is no number.
    method = replace(methods.mirror_descent(1e308), opponent=methods.Opponent("mixture", weight))
    trace = extensive.run_exact(method, kuhn, 4, measure_at=[4])
    assert (trace.policy[kuhn.legal] == 0).any()
    assert np.isfinite(trace.exploitability).all()
