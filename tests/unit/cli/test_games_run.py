import json
from pathlib import Path

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.cli.games import main
from magnetar.games.builders.suite import SUITES, suite

KEYS = ["game", "method", "updates", "evaluations", "final_gap", "best_gap", "average_gap", "policy"]
Capture = pytest.CaptureFixture[str]


def run_json(capsys: Capture, *words: str) -> dict:
    assert main(["run", "--json", *words]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    return json.loads(captured.out)


def test_json_is_one_object_with_the_run(capsys: Capture) -> None:
    found = run_json(capsys, "--game", "rps", "--method", "mpo", "--updates", "1000")
    assert list(found) == KEYS
    assert (found["game"], found["method"], found["updates"], found["evaluations"]) == ("rps", "mpo", 1000, 1000)
    assert found["best_gap"] <= found["final_gap"] < 1e-12 < 1e-4 < found["average_gap"]
    np.testing.assert_allclose(found["policy"], 1 / 3, atol=1e-12)


def test_settings_reach_the_method(capsys: Capture) -> None:
    words = "--game biased_rps --initial uniform --step_size 1.2 --magnet_strength 0.3 --magnet_every 7 --updates 50"
    found = run_json(capsys, *words.split())
    trace = games.run(methods.mpo(1.2, 0.3, 7), games.biased_rps(), updates=50)
    assert found["policy"] == trace.policy.tolist()
    assert found["final_gap"] == trace.duality_gap[-1]
    assert found["average_gap"] == trace.average_gap[-1]
    assert found["best_gap"] == trace.duality_gap.min()


def test_the_default_start_is_skewed_so_that_a_symmetric_game_shows_something(capsys: Capture) -> None:
    assert main(["run", "--game", "rps", "--updates", "0"]) == 0
    assert "rock 0.5455, paper 0.2727, scissors 0.1818" in capsys.readouterr().out
    assert run_json(capsys, "--updates", "10")["final_gap"] > 1e-3
    assert run_json(capsys, "--updates", "10", "--initial", "uniform")["final_gap"] < 1e-15


def test_game_and_start_from_files(capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", games.biased_rps().P)
    (tmp_path / "start.csv").write_text("0.2,0.2,0.6\n")
    words = ["--game", str(tmp_path / "mine.npy"), "--initial", str(tmp_path / "start.csv"), "--updates", "9"]
    found = run_json(capsys, *words)
    assert found["game"] == "mine"
    expected = games.run(methods.mpo(), games.biased_rps(), updates=9, initial=(0.2, 0.2, 0.6))
    assert found["policy"] == expected.policy.tolist()


def test_size_and_seed_choose_the_game(capsys: Capture) -> None:
    found = run_json(capsys, "--game", "random_game", "--actions", "4", "--seed", "3", "--updates", "2")
    assert found["game"] == "random_game(4, seed=3)"
    assert len(found["policy"]) == 4


def test_table_is_short_and_names_the_actions(capsys: Capture) -> None:
    assert main(["run", "--game", "cyclic_game", "--actions", "25", "--updates", "100"]) == 0
    out = capsys.readouterr().out
    assert "mpo: step_size 1, magnet_strength 0.1, magnet_every 10" in out
    assert "the magnet moved 10 times" in out
    assert "and 15 more" in out
    assert len(out.splitlines()) < 15


def test_list_names_every_game_and_method(capsys: Capture) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in (*games.BUILDERS, *methods.METHODS):
        assert f"  {name} " in out


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_writes_a_picture(capsys: Capture, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gap{suffix}"
    run_json(capsys, "--updates", "40", "--plot", str(path))
    starts = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    assert path.read_bytes().startswith(starts[suffix])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--game rsp", "unknown game 'rsp'; did you mean 'rps'?"),
        ("--game nowhere.csv", "nowhere.csv: no such file"),
        ("--game nowhere.csv --actions 3", "nowhere.csv: no such file"),
        ("--method mpoo", "unknown method 'mpoo'; did you mean 'mpo'?"),
        (
            "--method mmd --magnet_every 3",
            "method 'mmd': unknown setting 'magnet_every'; did you mean 'magnet_strength'?",
        ),
        ("--game rps --actions 4", "game 'rps' has no setting 'actions'"),
        ("--step_size 0", "step_size is 0.0, expected a positive, finite number"),
        ("--updates -3", "updates is -3, expected at least 0"),
        ("--initial middling", "--initial is 'middling', expected uniform, skewed or a file"),
        ("--initial nowhere.json", "nowhere.json: no such file"),
        ("--plot gap.gif", "suffix '.gif', expected one of .pdf, .png, .svg"),
        ("--plot no/such/folder/gap.png", "no folder no/such/folder"),
    ],
)
def test_bad_input_is_one_line_on_stderr(capsys: Capture, words: str, message: str) -> None:
    assert main(["run", "--json", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("magnetar games: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_file_takes_no_builder_settings(capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", games.rps().P)
    assert main(["run", "--game", str(tmp_path / "mine.npy"), "--seed", "3"]) == 2
    assert "--seed is for ready-made games" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run", "--bla"], ["run", "--updates", "many"], [], ["rum"]])
def test_words_that_do_not_parse_end_with_code_two(capsys: Capture, words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "usage: magnetar games" in capsys.readouterr().err


def test_settings_in_words_reach_the_method(capsys: Capture) -> None:
    found = run_json(
        capsys, *["--set", "step_size=1.2", "magnet_every=7", "--magnet_strength", "0.3", "--updates", "20"]
    )
    assert found == run_json(
        capsys, *["--step-size", "1.2", "--magnet-every", "7", "--set", "magnet_strength=0.3", "--updates", "20"]
    )
    assert found["policy"] != run_json(capsys, "--updates", "20")["policy"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set step_size", "'step_size' is no setting, expected KEY=VALUE"),
        ("--set step_sice=1", "did you mean 'step_size'?"),
        ("--set step_size=1 --step_size 2", "setting 'step_size' is given twice"),
        ("--method mpo:step_size=2", "expected a name alone; give settings by --set"),
        ("--game random:actions=4 --simplex a.svg", "4 actions, expected 3 for a picture of the simplex"),
        ("--simplex a.gif", "suffix '.gif'"),
        ("--updates 1000000000000", "updates is 1,000,000,000,000, expected at least 0 and at most"),
        ("--step_size inf", "step_size is inf, expected a positive, finite number"),
    ],
)
def test_settings_and_pictures_that_cannot_be(capsys: Capture, tmp_path: Path, words: str, message: str) -> None:
    assert main(["run", "--json", *words.replace(" a.", f" {tmp_path}/a.").split()]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_simplex_draws_the_path(capsys: Capture, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"path{suffix}"
    words = ["run", "--game", "biased_rps", "--updates", "30", "--simplex", str(path)]
    assert main(words) == 0
    assert path.stat().st_size > 1000
    assert f"picture written to {path}" in capsys.readouterr().err


def test_list_as_json_holds_settings_with_defaults(capsys: Capture) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in found["methods"]}
    assert list(by_name) == list(methods.METHODS)
    assert by_name["mpo"]["settings"] == {"step_size": 1.0, "magnet_strength": 0.1, "magnet_every": 10}
    assert by_name["mpo"]["converges_to"] == "original equilibrium"
    assert {"random_game", "biased_rps"} <= {row["name"] for row in found["games"]}
    assert all(set(row) == {"name", "summary", "settings"} for row in found["games"])
    suites = {row["name"]: row["games"] for row in found["suites"]}
    assert suites == {name: len(suite(name)) for name in SUITES}


def test_payoffs_can_be_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    def summary(*options: str) -> dict:
        assert main(["run", "--game", "biased_rps", "--updates", "20", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    exact, sampled = summary(), summary("--feedback", "sampled:opponents=8,seed=3")
    assert "duels" not in exact
    assert sampled["duels"] == 20 * 8 * 3
    assert sampled["policy"] != exact["policy"]
    assert summary("--feedback", "sampled:opponents=8,seed=3") == sampled
    assert summary("--feedback", "sampled:opponents=8,seed=4") != sampled


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("smpled", "unknown feedback 'smpled'; did you mean 'sampled'"),
        ("exact:seed=1", "exact payoffs have no settings"),
        ("sampled:oponents=3", "did you mean 'opponents'"),
        ("sampled:responses=1", "responses is 1, expected at least 2"),
    ],
)
def test_feedback_that_does_not_exist_is_refused(spec: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--feedback", spec]) == 2
    assert message in capsys.readouterr().err
