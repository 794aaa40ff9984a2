"""`magnetar compare`: trains what is missing, survives interruptions, and compares what is there."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

from magnetar.cli.main import main
from magnetar.judges import ScoreFunctionJudge
from magnetar.rollout import TransformersEngine

RATE = {"kind": "python", "function": "tiny_run_judge:more_scissors", "temperature": 0.5}
OTHER = {"kind": "python", "function": "tiny_run_judge:slow", "temperature": 1.5}

EVALUATION = {"prompts": 4, "responses": 3, "curve_points": 1, "bootstrap": 200}


def config(place: Path, folder: Path, **changes: Any) -> Path:
    """A comparison of two methods on the tiny model, written to a file; changes are of top-level keys."""
    lines = (place / "prompts.jsonl").read_text().splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[:8]))
    (folder / "held_out.jsonl").write_text("".join(lines[8:]))
    keys: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "model": str(place / "model"),
        "dataset": str(folder / "train.jsonl"),
        "judge": RATE,
        "eval_judge": OTHER,
        "eval_prompts": str(folder / "held_out.jsonl"),
        "budget": {"comparisons": 36},
        "seeds": [0],
        "settings": {
            "learning_rate": "1e-2",
            "per_device_train_batch_size": 2,
            "num_generations": 4,
            "max_completion_length": 3,
            "use_cpu": True,
            "report_to": "none",
            "use_peft": True,
            "lora_r": 4,
            "lora_target_modules": ["q_proj", "v_proj"],
            "sample_steps": 0,
            "disable_tqdm": True,
            "save_steps": 2,
        },
        "methods": {"mpo": {"magnet_every": 2}, "no self-play": {"method": "mpo", "opponent": "reference"}},
        "evaluation": EVALUATION,
    }
    path = folder / "comparison.yaml"
    path.write_text(yaml.safe_dump({name: value for name, value in (keys | changes).items() if value is not None}))
    return path


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "comparison.json").read_text())


def weights(folder: Path, run: str) -> bytes:
    return (folder / "out" / "runs" / run / "adapter_model.safetensors").read_bytes()


def test_two_methods_under_one_budget_from_file_to_page(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(at_work, tmp_path, evaluation=EVALUATION | {"curve_points": 2})
    assert main(["compare", "--config", str(path)]) == 0
    console = capfd.readouterr()
    out = tmp_path / "out"
    assert {p.name for p in out.glob("comparison.*")} == {
        f"comparison.{kind}" for kind in ("json", "csv", "md", "html")
    }
    found = result(tmp_path)
    assert [row["label"] for row in found["rows"]] == ["mpo", "no self-play", "reference"]
    spent = {row["label"]: row["spent"] for row in found["rows"][:2]}
    # 2 prompts an update: 6 pairs of a group of 4, or 4 × 4 against the reference.
    assert (spent["mpo"]["updates"], spent["mpo"]["comparisons"]) == (3, 36)
    assert (spent["no self-play"]["updates"], spent["no self-play"]["comparisons"]) == (2, 64)
    assert [len(found["curves"][label]) for label in ("mpo", "no self-play")] == [2, 2]
    assert found["rows"][0]["win_rate"]["value"] == found["curves"]["mpo"][-1]["win_rate"]["value"]
    assert found["matrix"][0][1]["value"] + found["matrix"][1][0]["value"] == pytest.approx(1.0)
    assert sum(row["equilibrium"] for row in found["rows"]) == pytest.approx(1.0)
    assert found["rows"][0]["kl_nats"]["value"] > 0.0 == found["rows"][2]["kl_nats"]["value"]
    assert "| no self-play |" in console.out  # the table is printed
    assert not list(out.glob("runs/*/checkpoint-*"))  # only resuming would need them
    with (out / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [line["label"] for line in table] == ["mpo", "no self-play", "reference", "mpo", "no self-play"]
    assert float(table[0]["win_rate"]) == found["rows"][0]["win_rate"]["value"]

    # A run is an ordinary run, the same that `magnetar train` gives with its settings.
    settings = json.loads((out / "runs" / "mpo-seed0" / "comparison_run.json").read_text())["settings"]
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(settings | {"output_dir": str(tmp_path / "alone")}))
    assert main(["train", "--config", str(tmp_path / "alone.yaml")]) == 0
    assert (tmp_path / "alone" / "adapter_model.safetensors").read_bytes() == weights(tmp_path, "mpo-seed0")


def test_repeating_the_command_does_nothing_twice(
    at_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = config(at_work, tmp_path)
    assert main(["compare", "--config", str(path)]) == 0
    first = result(tmp_path)
    before = {name: weights(tmp_path, name) for name in ("mpo-seed0", "no-self-play-seed0")}
    answers = {p.name: p.read_text() for p in (tmp_path / "out" / "evaluation" / "answers").iterdir()}

    # A further method and a further seed: only they are trained, only their answers are read by the judge.
    read: list[str] = []
    scores = ScoreFunctionJudge._scores

    def noted(judge: ScoreFunctionJudge, prompts: Any, responses: Any) -> Any:
        if judge.name.endswith("slow"):  # the judge of the comparison
            read.extend(responses)
        return scores(judge, prompts, responses)

    monkeypatch.setattr(ScoreFunctionJudge, "_scores", noted)
    methods = {"mpo": {"magnet_every": 2}, "no self-play": {"method": "mpo", "opponent": "reference"}, "sppo": {}}
    config(at_work, tmp_path, methods=methods)
    assert main(["compare", "--config", str(path), "--only", "sppo", "mpo"]) == 0
    assert {name: weights(tmp_path, name) for name in before} == before
    kept = {p.name: p.read_text() for p in (tmp_path / "out" / "evaluation" / "answers").iterdir()}
    assert {name: kept[name] for name in answers} == answers
    new = [json.loads(line) for name in kept if name not in answers for line in kept[name].splitlines()[1:]]
    assert 0 < len(read) <= sum(len(set(line["texts"])) for line in new)
    second = result(tmp_path)
    assert [row["label"] for row in second["rows"]] == ["mpo", "no self-play", "sppo", "reference"]
    assert second["rows"][0]["win_rate"] == first["rows"][0]["win_rate"]
    assert second["matrix"][0][1] == first["matrix"][0][1]

    # And with nothing new, nothing is trained or read at all.
    read.clear()
    assert main(["compare", "--config", str(path), "--evaluate-only"]) == 0
    assert read == []


def test_changed_settings_of_a_finished_run_are_refused_with_what_differs(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(at_work, tmp_path)
    assert main(["compare", "--config", str(path), "--no_evaluation", "--only", "mpo"]) == 0
    config(at_work, tmp_path, methods={"mpo": {"magnet_every": 3}})
    capfd.readouterr()
    assert main(["compare", "--config", str(path)]) == 2
    message = capfd.readouterr().err
    assert "mpo, seed 0 is finished with other settings (magnet_every: 2 → 3)" in message
    assert str(tmp_path / "out" / "runs" / "mpo-seed0") in message
    # Naming a default, or what is only shown, is no change; other prompts are.
    config(at_work, tmp_path, methods={"mpo": {"magnet_every": 2, "temperature": 1.0, "logging_steps": 1}})
    assert main(["compare", "--config", str(path), "--no_evaluation"]) == 0
    (tmp_path / "train.jsonl").write_text('{"prompt": "rock well"}\n{"prompt": "well rock"}\n')
    assert main(["compare", "--config", str(path), "--no_evaluation"]) == 2
    assert "content of the dataset's file" in capfd.readouterr().err


def test_a_run_that_fails_is_reported_and_the_others_go_on(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = {"method": "mpo", "judge": "python:tiny_run_judge:broken"}
    path = config(at_work, tmp_path, methods={"breaks": broken, "mpo": {"magnet_every": 2}})
    assert main(["compare", "--config", str(path)]) == 1
    told = capfd.readouterr()
    assert "missing: breaks, seed 0" in told.err and "Traceback" not in told.err
    found = result(tmp_path)
    assert [row["label"] for row in found["rows"]] == ["mpo", "reference"]
    assert len(found["missing"]) == 1 and found["missing"][0].startswith("breaks, seed 0: failed: ")
    assert "breaks, seed 0" in (tmp_path / "out" / "comparison.md").read_text()
    assert "breaks, seed 0" in (tmp_path / "out" / "comparison.html").read_text()
    # A failed run may be mended: it is tried again, with other settings from its beginning.
    config(at_work, tmp_path, methods={"breaks": broken | {"judge": RATE}, "mpo": {"magnet_every": 2}})
    assert main(["compare", "--config", str(path)]) == 0
    assert result(tmp_path)["missing"] == []


def test_two_commands_share_the_runs_and_leave_each_other_alone(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(at_work, tmp_path)
    runs = tmp_path / "out" / "runs"
    runs.mkdir(parents=True)
    with FileLock(runs / "mpo-seed0.lock"):  # as another command holds it while it trains
        assert main(["compare", "--config", str(path), "--no-evaluation"]) == 1
    assert "mpo, seed 0: another command is training it" in capfd.readouterr().err
    assert not (runs / "mpo-seed0" / "metrics.jsonl").exists()
    assert (runs / "no-self-play-seed0" / "ledger.json").exists()


def test_a_signal_leaves_a_comparison_that_goes_on_to_the_same_end(at_work: Path, tmp_path: Path) -> None:
    changes = {
        "judge": RATE | {"function": "tiny_run_judge:slow"},
        "eval_judge": RATE,
        "budget": {"updates": 8},
        "methods": {"no self-play": {"method": "mpo", "opponent": "reference"}},
    }
    path = config(at_work, tmp_path, **changes)
    slow = at_work / "slow"
    slow.touch()
    script = "import sys; from magnetar.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "compare", "--config", str(path)],
        cwd=at_work,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "out" / "runs" / "no-self-play-seed0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    try:
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        slow.unlink()
    assert process.returncode == 143, err
    assert "no self-play, seed 0 was stopped" in err and "repeat the command to go on" in err
    assert "Traceback" not in err

    assert main(["compare", "--config", str(path)]) == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert main(["compare", "--config", str(config(at_work, whole, **changes))]) == 0
    assert weights(tmp_path, "no-self-play-seed0") == weights(whole, "no-self-play-seed0")
    row, expected = result(tmp_path)["rows"][0], result(whole)["rows"][0]
    assert row["win_rate"] == expected["win_rate"]
    for name in ("comparisons", "tokens", "updates"):
        assert row["spent"][name] == expected["spent"][name]


def test_the_judge_of_training_is_noted_where_there_is_no_other(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(at_work, tmp_path, eval_judge=None, methods={"mpo": {"magnet_every": 2}})
    assert main(["compare", "--config", str(path)]) == 0
    assert "eval_judge is not given" in capfd.readouterr().err
    found = result(tmp_path)
    assert found["same_judge"] and any("learnt from" in note for note in found["notes"])
    assert "weak spots" in (tmp_path / "out" / "comparison.html").read_text()


def test_win_rates_are_those_of_the_answers_that_were_kept(at_work: Path, tmp_path: Path) -> None:
    path = config(at_work, tmp_path, seeds=[0, 1])
    assert main(["compare", "--config", str(path)]) == 0
    folder = tmp_path / "out" / "evaluation" / "answers"

    def scores(name: str) -> dict[str, list[int]]:
        lines = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()[1:]]
        return {line["prompt"]: [text.count("scissors") for text in line["texts"]] for line in lines}

    reference = scores("reference")
    rates = []
    for seed in (0, 1):
        for prompt, own in scores(f"mpo-seed{seed}").items():
            rates += [1 / (1 + np.exp(-(a - b) / 1.5)) for a in own for b in reference[prompt]]
    assert result(tmp_path)["rows"][0]["win_rate"]["value"] == pytest.approx(np.mean(rates))


def test_a_full_model_is_compared_like_an_adapter(at_work: Path, tmp_path: Path) -> None:
    path = config(at_work, tmp_path)
    settings = yaml.safe_load(path.read_text())["settings"]
    settings = {name: value for name, value in settings.items() if not name.startswith("lora")} | {"use_peft": False}
    config(at_work, tmp_path, settings=settings, methods={"mpo": {"magnet_every": 2}})
    assert main(["compare", "--config", str(path)]) == 0
    row = result(tmp_path)["rows"][0]
    assert row["kl_nats"]["value"] > 0
    shutil.rmtree(tmp_path / "out" / "evaluation")
    assert main(["compare", "--config", str(path), "--evaluate-only"]) == 0
    assert result(tmp_path)["rows"][0]["kl_nats"] == row["kl_nats"]


def test_a_signal_while_comparing_keeps_what_was_answered(
    at_work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(at_work, tmp_path)
    assert main(["compare", "--config", str(path), "--no-evaluation"]) == 0
    generate, calls = TransformersEngine.generate, []

    def interrupted(engine: TransformersEngine, *rest: Any) -> Any:
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return generate(engine, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", interrupted)
    assert main(["compare", "--config", str(path)]) == 143
    assert "what was answered and judged so far is kept" in capfd.readouterr().err
    reference = (tmp_path / "out" / "evaluation" / "answers" / "reference.jsonl").read_text()
    assert main(["compare", "--config", str(path)]) == 0
    assert len(calls) == 4  # the reference's answers were there
    assert (tmp_path / "out" / "evaluation" / "answers" / "reference.jsonl").read_text() == reference
