"""`magnetar judge` and `magnetar agreement`: files in, figures and answers out, mistakes in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from magnetar.cli.main import main
from magnetar.judges import Judge

JUDGES = '''
import os, time
from pathlib import Path

def score(prompts, responses):
    return [float(len(response)) for response in responses]

def place(prompts, first, second):
    return [0.9 if len(a) >= len(b) else 0.4 for a, b in zip(first, second)]

def slow(prompts, first, second):
    """Notes every question; gets stuck at the fourth call unless told not to."""
    asked = Path("asked.txt")
    with asked.open("a") as notes:
        notes.write("".join(f"{a}|{b}\\n" for a, b in zip(first, second)))
    if os.environ.get("STUCK") and len(asked.read_text().splitlines()) > 12:
        Path("stuck").touch()
        time.sleep(600)
    return [0.75 if len(a) > len(b) else 0.25 for a, b in zip(first, second)]

def broken(prompts, first, second):
    return [1.5] * len(prompts)
'''

TURNS = [{"role": "user", "content": "Hello?"}]
PAIRS = [
    {"prompt": TURNS, "chosen": "aaaa", "rejected": "b", "category": "x"},
    {"prompt": TURNS, "chosen": "cc", "rejected": "ddd", "category": "y"},
    {"prompt": TURNS, "chosen": "same", "rejected": "same", "category": "y"},
    {"prompt": [{"role": "user", "content": "Bye?"}], "chosen": "eeeee", "rejected": "", "category": "y"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_judges", raising=False)
    Path("own_judges.py").write_text(JUDGES)
    write("pairs.jsonl", PAIRS)
    return tmp_path


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def judge(*words: str, spec: str = "python:own_judges:score", pairs: str = "pairs.jsonl") -> int:
    return main(["judge", "--judge", spec, "--pairs", pairs, *words])


def test_answers_are_written_row_for_row_with_scores_and_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("--out", "out/answers.parquet", "--json", "out/figures.json") == 0
    table = parquet.read_table("out/answers.parquet")
    rows = table.to_pylist()
    assert [row["row"] for row in rows] == [0, 1, 3]  # the row with equal responses has nothing to compare
    assert json.loads(rows[0]["prompt"]) == TURNS
    assert (rows[2]["first"], rows[2]["second"]) == ("eeeee", "")
    assert [(row["score_first"], row["score_second"]) for row in rows] == [(4, 1), (2, 3), (5, 0)]
    expected = [1 / (1 + 2.718281828459045**-d) for d in (3, -1, 5)]
    assert [row["win_prob"] for row in rows] == pytest.approx(expected)
    assert [row["label"] for row in rows] == [1.0, 1.0, 1.0] and [row["category"] for row in rows] == ["x", "y", "y"]
    assert not any(row["masked"] for row in rows)
    facts = json.loads(table.schema.metadata[b"magnetar"])
    assert facts["judge"] == "python:own_judges:score" and len(facts["identity"]) == 32
    assert "magnetar" in facts["versions"] and facts["settings"]["pairs"] == "pairs.jsonl"
    figures = json.loads(Path("out/figures.json").read_text())
    assert figures["labels"]["accuracy"]["value"] == pytest.approx(2 / 3)
    captured = capsys.readouterr()
    assert "66.7%" in captured.out and "1 with equal responses" in captured.err
    assert "each response is read by itself" in captured.out and "accuracy by category" in captured.out


def test_both_orders_are_written_where_they_are_asked() -> None:
    assert judge("--out", "answers.parquet", "--html", "page.html", spec="python:own_judges:place") == 0
    rows = parquet.read_table("answers.parquet").to_pylist()
    assert [row["win_prob_as_given"] for row in rows] == pytest.approx([0.9, 0.4, 0.9])
    assert [row["win_prob_swapped"] for row in rows] == pytest.approx([0.6, 0.1, 0.6])
    assert [row["win_prob"] for row in rows] == pytest.approx([0.75, 0.25, 0.75])
    assert [row["flipped"] for row in rows] == [False, False, False]
    assert "both orders, averaged" in Path("page.html").read_text()


def test_pairs_without_labels_and_judges_with_options_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    write("plain.jsonl", [{"prompt": "p", "response_1": "a" * i, "response_2": "bbb"} for i in (1, 2, 6)])
    spec = json.dumps({"kind": "python", "function": "own_judges:score", "temperature": 3.0})
    assert judge("--out", "answers.parquet", spec=spec, pairs="plain.jsonl") == 0
    rows = parquet.read_table("answers.parquet").to_pylist()
    assert "label" not in rows[0] and rows[0]["win_prob"] == pytest.approx(1 / (1 + 2.718281828459045 ** (2 / 3)))
    printed = capsys.readouterr().out
    assert "accuracy" not in printed and "prefers the longer" in printed and "cyclic triples" in printed
    Path("judge.yaml").write_text("kind: python\nfunction: own_judges:score\ntemperature: 3.0\n")
    assert judge("--out", "again.parquet", spec="judge.yaml", pairs="plain.jsonl") == 0
    assert parquet.read_table("again.parquet").column("win_prob") == parquet.read_table("answers.parquet")["win_prob"]


def test_groups_become_matrices_payoffs_and_a_best_response(capsys: pytest.CaptureFixture[str]) -> None:
    write("groups.jsonl", [{"prompt": "p", "responses": ["a", "ccc", "bb"]}, {"prompt": "q", "responses": ["x", "x"]}])
    assert (
        judge("--out", "answers.parquet", "--json", "f.json", spec="python:own_judges:place", pairs="groups.jsonl") == 0
    )
    first, second = parquet.read_table("answers.parquet").to_pylist()
    assert first["win_prob"] == [
        pytest.approx(row) for row in ([0.5, 0.25, 0.25], [0.75, 0.5, 0.75], [0.75, 0.25, 0.5])
    ]
    assert first["payoff"] == pytest.approx([0.25, 0.75, 0.5]) and first["best"] == 1
    assert second["payoff"] == [0.5, 0.5]
    assert "2 groups, 3 pairs within them" in capsys.readouterr().out
    assert json.loads(Path("f.json").read_text())["prefers_longer"]["value"] == 1.0


def test_a_killed_run_goes_on_without_asking_again(folder: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "a" * (i + 2), "rejected": "b"} for i in range(20)]
    write("many.jsonl", rows)
    spec = json.dumps({"kind": "python", "function": "own_judges:slow", "questions_per_call": 4})
    command = [sys.executable, "-m", "magnetar.cli.main", "judge", "--judge", spec, "--pairs", "many.jsonl"]
    command += ["--out", "answers.parquet", "--max_group", "0"]
    run = subprocess.Popen(command, env=os.environ | {"STUCK": "1"}, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not Path("stuck").exists():
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert not Path("answers.parquet").exists()
    before = Path("asked.txt").read_text().splitlines()
    assert judge("--out", "answers.parquet", "--max_group", "0", spec=spec, pairs="many.jsonl") == 0
    after = Path("asked.txt").read_text().splitlines()[len(before) :]
    assert len(before) == 16 and len(after) == 40 - 12  # the call in which the process died, and what was never asked
    assert set(before[:12]).isdisjoint(after)
    answers = parquet.read_table("answers.parquet").to_pylist()
    assert [row["win_prob"] for row in answers] == [0.75] * 20
    assert judge("--out", "answers.parquet", "--max_group", "0", spec=spec, pairs="many.jsonl") == 0
    assert Path("asked.txt").read_text().splitlines()[len(before) :] == after


def test_ending_by_a_signal_says_where_the_answers_are(folder: Path) -> None:
    write("many.jsonl", [{"prompt": f"p{i}", "chosen": "a" * (i + 2), "rejected": "b"} for i in range(20)])
    spec = json.dumps({"kind": "python", "function": "own_judges:slow", "questions_per_call": 4})
    command = [sys.executable, "-m", "magnetar.cli.main", "judge", "--judge", spec, "--pairs", "many.jsonl"]
    run = subprocess.Popen(
        [*command, "--out", "answers.parquet"],
        env=os.environ | {"STUCK": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not Path("stuck").exists():
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    _, told = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM
    kept = "12 of 40 answers about 20 pairs are kept in answers.parquet.cache.sqlite; the same command goes on"
    assert kept in told and "Traceback" not in told


@pytest.mark.parametrize("command", ["judge", "agreement"])
def test_nothing_is_said_to_be_kept_where_nothing_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, "--judge", "python:own_judges:broken", "--pairs", "pairs.jsonl", "--cache", "kept.sqlite"]
    assert main(words) == 2
    assert "goes on" not in capsys.readouterr().err
    # Answers of another judge are not this one's.
    assert judge("--cache", "kept.sqlite") == 0
    assert main(words) == 2
    assert "goes on" not in capsys.readouterr().err


def test_agreement_says_what_is_kept_of_the_judge_that_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agreement", "--judge", "python:own_judges:score", "--against", "python:own_judges:broken"]
    assert main([*words, "--pairs", "pairs.jsonl", "--cache", "kept.sqlite"]) == 2
    assert "6 of 6 answers about 3 pairs are kept in kept.sqlite; the same command" in capsys.readouterr().err


def test_the_better_rule_of_length_is_printed_and_both_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    write("brief.jsonl", [{"prompt": f"p{i}", "chosen": "a", "rejected": "bb"} for i in range(4)])
    assert judge("--json", "f.json", pairs="brief.jsonl") == 0
    printed = capsys.readouterr().out
    assert "shorter wins" in printed and "longer wins" not in printed
    found = json.loads(Path("f.json").read_text())["labels"]["baselines"]
    assert (found["longer wins"]["accuracy"]["value"], found["shorter wins"]["accuracy"]["value"]) == (0.0, 1.0)


def test_a_baseline_is_asked_about_the_same_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("--baseline", "python:own_judges:place", "--json", "f.json") == 0
    found = json.loads(Path("f.json").read_text())["labels"]["baselines"]
    assert found["python:own_judges:place"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert "python:own_judges:place" in capsys.readouterr().out


COUNTERS = {
    "inner_a/inner_truncated_share": 0.5,
    "inner_b/truncated_share": 0.0,
    "inner_disagreement": 0.21,
    "inner_split_share": 0.3,
}


@pytest.mark.parametrize("pairs", ["pairs.jsonl", "groups.jsonl"])
def test_inputs_that_were_cut_and_a_divided_panel_are_told(
    pairs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("groups.jsonl", [{"prompt": "p", "responses": ["a", "ccc", "bb"]}])
    monkeypatch.setattr(Judge, "stats", lambda self: dict(COUNTERS))
    assert judge(pairs=pairs) == 0
    printed = capsys.readouterr().out
    assert printed.count("were cut") == 1
    assert "a: 50% of the inputs were longer than the judge reads and were cut." in printed
    lines = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    assert "0.210" in lines["judges apart"] and "30.0%" in lines["judges on both sides"]


def test_injections_are_tried_on_any_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "--judge", "python:own_judges:score", "--injections", "--json", "f.json"]) == 0
    printed = capsys.readouterr().out
    assert "injected responses" in printed and "all, as given" in printed
    assert len(json.loads(Path("f.json").read_text())["cases"]) >= 50


def test_agreement_with_labels_and_with_another_judge(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["agreement", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl"]
    assert main([*command, "--json", "labels.json"]) == 0
    found = json.loads(Path("labels.json").read_text())
    assert found["agreement"]["value"] == pytest.approx(2 / 3) and found["kappa"]["value"] == pytest.approx(1 / 3)
    assert main([*command, "--against", "python:own_judges:place", "--json", "judges.json"]) == 0
    found = json.loads(Path("judges.json").read_text())
    assert found["agreement"]["value"] == 1.0 and found["flips"] is None and found["flips_against"]["value"] == 0.0
    printed = capsys.readouterr().out
    assert "judge python:own_judges:score against labels: 3 pairs of 2 prompts" in printed and "kappa" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["judge", "--judge", "panle", "--pairs", "pairs.jsonl"], "did you mean 'panel'"),
        (["judge", "--judge", "python:own_judges:score"], "--pairs FILE"),
        (
            ["judge", "--judge", "python:own_judges:score", "--injections", "--html", "new/x.html", "--limit", "2"],
            "--injections without --pairs has no use for --html, --limit; add --pairs FILE",
        ),
        (["judge", "--judge", "python:own_judges:score", "--injections", "--out", "x.parquet"], "no use for --out"),
        (
            ["judge", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl", "--out", "answers.csv"],
            "--out is 'answers.csv', expected a name that ends in .parquet",
        ),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "nothing.jsonl"], "no file or folder"),
        (["judge", "--judge", "python:own_judges:broken", "--pairs", "pairs.jsonl"], "expected a win probability"),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl", "--out", "."], "is a folder"),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl", "--max_group", "2"], "at least 3"),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl", "--ouput", "x"], "'output'|out"),
        (
            ["judge", "--judge", "panel", "--pairs", "pairs.jsonl", "--out", "a.parquet", "--cache", "a.parquet"],
            "also an output",
        ),
        (
            ["judge", "--judge", "python:own_judges:score", "--pairs", "pairs.jsonl", "--cache", "./pairs.jsonl"],
            "cache './pairs.jsonl' is also the data of this command",
        ),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "groups.jsonl", "--html", "x"], "are for pairs"),
        (["judge", "--judge", "python:own_judges:score", "--pairs", "lonely.jsonl"], "row 0: 1 responses"),
        (["agreement", "--judge", "labels", "--pairs", "pairs.jsonl"], "expected a judge"),
        (["agreement", "--judge", "python:own_judges:score", "--pairs", "plain.jsonl"], "has no labels"),
        (["agreement", "--judge", "python:own_judges:score", "--pairs", "groups.jsonl"], "expected pairs"),
    ],
)
def test_mistakes_are_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("groups.jsonl", [{"prompt": "p", "responses": ["a", "b"]}])
    write("lonely.jsonl", [{"prompt": "p", "responses": ["a"]}])
    write("plain.jsonl", [{"prompt": "p", "first": "a", "second": "b"}])
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("magnetar ")]
    (line,) = lines
    assert any(part in line for part in told.split("|"))
