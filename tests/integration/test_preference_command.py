"""`magnetar preference` from files to a judge with its report, and what it refuses before any long work."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from tiny_runs import GAME, WORDS

from magnetar.cli.main import main
from magnetar.data import load_preferences
from magnetar.judges import build_judge

SETTINGS = """
model: {model}
dataset: {pairs}
learning_rate: 3e-3
per_device_train_batch_size: 16
num_train_epochs: 3
max_length: 32
logging_steps: 2
eval_holdout: 24
use_cpu: true
report_to: none
disable_tqdm: true
"""


def responses(rng: random.Random) -> tuple[str, str, bool]:
    """Two responses and whether the first says "rock" more often."""
    while True:
        first, second = (" ".join(rng.choices(WORDS, k=3)) for _ in range(2))
        counts = first.count("rock"), second.count("rock")
        if counts[0] != counts[1]:
            return first, second, counts[0] > counts[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preferences")
    GAME.model(0).save_pretrained(folder / "model")
    GAME.tokenizer.save_pretrained(folder / "model")
    rng = random.Random(0)
    hard: list[dict[str, Any]] = []
    cost: list[dict[str, Any]] = []
    for index in range(160):
        prompt = " ".join(rng.sample(WORDS, 3)) + " "
        first, second, more = responses(rng)
        chosen, rejected = (first, second) if more else (second, first)
        hard.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "category": f"kind {index % 2}"})
        cost.append(
            {
                "prompt": prompt,
                "response_0": first,
                "response_1": second,
                "is_response_0_safe": "rock" in first,
                "is_response_1_safe": "rock" in second,
                "better_response_id": int(more),
                "safer_response_id": int(not more),
            }
        )
    for name, rows in (("hard", hard), ("cost", cost)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.yaml").write_text(SETTINGS.format(model=folder / "model", pairs=folder / "hard.jsonl"))
    return folder


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("reward", []),
        ("reward", ["--use_trl", "true"]),
        ("general", ["--use_peft", "true", "--lora_target_modules", "all-linear", "--embedding_dim", "4"]),
        ("pairwise", ["--eval_strategy", "steps", "--eval_steps", "4"]),
        ("cost", ["--dataset", "cost.jsonl"]),
    ],
)
def test_a_judge_is_trained_measured_and_loads(
    kind: str, flags: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    out = tmp_path / "judge"
    assert main(["preference", "--config", "run.yaml", "--kind", kind, "--output_dir", str(out), *flags]) == 0
    held_out = load_preferences(out / "held_out.parquet", signs=kind == "cost")
    assert 24 <= len(held_out) < 160
    source = load_preferences(place / ("cost.jsonl" if kind == "cost" else "hard.jsonl"), signs=kind == "cost")
    assert set(held_out["first"]) < set(source["first"])
    judge = build_judge(f"{kind}:{out}")
    answer = judge.pair_win_prob(held_out["prompt"][:], held_out["first"][:], held_out["second"][:])
    accuracy = float(np.mean((answer > 0.5) == (np.array(held_out["win_prob"]) > 0.5)))
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert evaluation["labels"]["accuracy"]["value"] == pytest.approx(accuracy, abs=1e-9)
    assert evaluation["pairs"] == len(held_out)
    assert "<html" in (out / "report.html").read_text()
    config = json.loads((out / "magnetar_config.json").read_text())
    assert config["preference_model"] == kind
    assert config["pairs"] + len(held_out) == len(source)
    if "--eval_strategy" in flags:
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert any("eval_accuracy" in row for row in rows)


BAD: dict[str, tuple[list[str], str]] = {
    "no kind": ([], "kind is missing"),
    "kind": (["--kind", "rewards"], "unknown kind 'rewards'; did you mean 'reward'"),
    "flag": (["--kind", "reward", "--learning_rat", "1"], "did you mean 'learning_rate'"),
    "no signs": (["--kind", "cost"], "has no signs of safety"),
    "no file": (["--kind", "reward", "--dataset", "./none.jsonl"], "no file or folder"),
    "no model": (["--kind", "reward", "--model", "./nowhere"], "no such folder"),
    "hold-out": (["--kind", "reward", "--eval_holdout", "160"], "keeps back all"),
    "negative hold-out": (["--kind", "reward", "--eval_holdout", "-1"], "eval_holdout is -1"),
    "evaluation without pairs": (
        ["--kind", "reward", "--eval_holdout", "0", "--eval_strategy", "steps", "--eval_steps", "2"],
        "nothing is held out",
    ),
    "resume": (["--kind", "reward", "--resume_from_checkpoint", "true"], "no complete checkpoint"),
    "on_equal": (["--kind", "reward", "--on_equal", "keep"], "expected 'drop' or 'error'"),
    "limit": (["--kind", "reward", "--limit", "0"], "limit is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_in_one_sentence(
    case: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    flags, message = BAD[case]
    assert main(["preference", "--config", "run.yaml", "--output_dir", str(tmp_path / "run"), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_judge_of_another_kind_is_no_start(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["preference", "--config", str(place / "run.yaml"), "--max_steps", "1", "--report", "false"]
    assert main([*common, "--kind", "reward", "--output_dir", str(tmp_path / "a")]) == 0
    again = [*common, "--kind", "pairwise", "--model", str(tmp_path / "a"), "--output_dir", str(tmp_path / "b")]
    assert main(again) == 2
    assert "is a judge of kind 'reward'" in capsys.readouterr().err
    assert main([*common, "--kind", "reward", "--output_dir", str(tmp_path / "a")]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_held_out_pairs_of_their_own_take_their_prompts_out_of_the_training(place: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (place / "hard.jsonl").read_text().splitlines()]
    prompts = {row["prompt"] for row in rows[:20]}
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    flags = ["--eval_pairs", str(tmp_path / "own.jsonl"), "--max_steps", "1", "--report", "false"]
    out = tmp_path / "judge"
    assert (
        main(["preference", "--config", str(place / "run.yaml"), "--kind", "reward", "--output_dir", str(out), *flags])
        == 0
    )
    assert len(Dataset.from_parquet(str(out / "held_out.parquet"))) == 20  # type: ignore[arg-type]
    pairs = json.loads((out / "magnetar_config.json").read_text())["pairs"]
    assert pairs == sum(row["prompt"] not in prompts for row in rows)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_goes_on(place: Path, tmp_path: Path, number: int, status: int) -> None:
    run = tmp_path / "run"
    flags = ["--kind", "pairwise", "--max_steps", "120", "--logging_steps", "1"]
    flags += ["--save_strategy", "no", "--report", "false", "--output_dir", str(run)]
    command = ["preference", "--config", str(place / "run.yaml"), *flags]
    code = "import sys; from magnetar.cli.main import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True)
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, number)
    error = process.communicate(timeout=240)[1]
    assert process.returncode == status, error
    assert "resume_from_checkpoint" in error
    checkpoint = next(run.glob("checkpoint-*"))
    step = int(checkpoint.name.split("-")[1])
    assert step < 120
    before = metrics.read_text()
    resumed = [*command, "--resume_from_checkpoint", "latest"]
    assert main(resumed) == 0
    assert metrics.read_text().startswith(before)
    assert (run / "magnetar_judge.json").is_file()
