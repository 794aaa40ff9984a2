import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.main import main
from magnetar.evaluation import MatchupSummary

PROMPTS = ["a b", "c d", "e f", "g h", "a h"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Prompts with categories, an answer file, and a judge that can be imported; the names of what can be asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter_judge.py").write_text(
        "def more_letters(prompts, first, second):\n"
        "    return [0.5 + 0.5 * ((len(a) > len(b)) - (len(a) < len(b))) for a, b in zip(first, second)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"prompt": p, "category": "left" if i < 2 else "right"} for i, p in enumerate(PROMPTS)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = {"long": "xxxx", "short": "x", "mixed": "xx"}
    for name, text in answers.items():
        lines = [
            {"prompt": p, "response": "xxxxx" if name == "mixed" and i == 4 else text} for i, p in enumerate(PROMPTS)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "--policy": "file:mixed.jsonl",
        "--opponent": "file:long.jsonl",
        "--judge": "python:letter_judge:more_letters",
        "--dataset": "prompts.jsonl",
    }


def run(options: dict[str, str], *more: str) -> int:
    return main(["eval", *(word for pair in options.items() for word in pair), *more])


def test_the_command_writes_what_it_prints(world: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, "--json", "out/eval.json", "--html", "out/page.html", "--samples", "3") == 0
    printed = capsys.readouterr().out
    record = json.loads(Path("out/eval.json").read_text())
    summary = MatchupSummary.from_dict(record)
    assert summary.win_rate.value == pytest.approx(1 / 5)
    assert {name: part.win_rate.value for name, part in summary.categories.items()} == {
        "left": 0.0,
        "right": pytest.approx(1 / 3),
    }
    low, high = summary.win_rate.low, summary.win_rate.high
    assert low is not None and high is not None
    assert "20.0%" in printed and f"{low:.1%} to {high:.1%}" in printed
    assert "left" in printed and "right" in printed
    assert record["settings"]["policy"] == "file:mixed.jsonl" and record["settings"]["temperature"] == 1.0
    assert record["settings"]["judge_counts"]["comparisons"] == 5
    assert "magnetar" in record["versions"] and len(record["samples"]) == 3
    assert printed.count("policy, wins with") == 3
    assert "20.0%" in Path("out/page.html").read_text()


def test_a_model_plays_against_a_file(world: dict[str, str], model_folder: Path) -> None:
    world["--policy"] = str(model_folder)
    arguments = ("--json", "a.json", "--max-new-tokens", "6", "--limit", "4", "--seed", "2")
    assert run(world, *arguments) == 0
    record = json.loads(Path("a.json").read_text())
    assert record["prompts"] == 4 and 0 < record["policy"]["tokens"] <= 6 and record["opponent"]["tokens"] is None
    assert run({**world, "--json": "b.json"}, *arguments[2:]) == 0
    again = json.loads(Path("b.json").read_text())
    assert again["samples"] == record["samples"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--judge": "panle"}, "did you mean 'panel'"),
        ({"--policy": "file:absent.jsonl"}, "no file 'absent.jsonl'"),
        ({"--opponent": "./nowhere"}, "no folder './nowhere'"),
        ({"--dataset": "absent.jsonl"}, "absent.jsonl"),
        ({"--json": "/proc/no/such/place.json"}, "cannot write to"),
        ({"--html": "prompts.jsonl/page.html"}, "cannot write to"),
        ({"--html": "."}, "is a folder"),
        ({"--temperature": "0"}, "temperature"),
        ({"--temprature": "1"}, "did you mean 'temperature'"),
    ],
)
def test_mistakes_are_told_in_one_line_before_any_model_is_loaded(
    world: dict[str, str],
    model_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    message: str,
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("magnetar.modeling.loading.load_policy", never)
    assert run({**world, "--policy": str(model_folder), **change}) == 2
    error = capsys.readouterr().err
    assert error.startswith("magnetar eval: ") and message in error and "Traceback" not in error


@pytest.mark.parametrize("flags", [("--limit", "0"), ("--confidence", "95"), ("--bootstrap", "ten")])
def test_values_out_of_range_are_refused(world: dict[str, str], flags: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(world, *flags)
    assert stop.value.code == 2


def test_a_match_up_that_is_stopped_says_where_answers_are_kept(
    world: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("magnetar.evaluation.play.play", lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM))
    assert run(world) == 143
    assert "not kept, those of a suite are (magnetar eval --config FILE)" in capsys.readouterr().err
