"""`magnetar pipeline`: every stage once, again only for a reason, and the same whatever interrupts it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from pipeline_runs import STEPS, Killed, killed_at, manifests, pipeline, products, ran, write_config, write_place

from magnetar.cli.main import main
from magnetar.judges import build_judge
from magnetar.modeling.loading import load_policy

MADE_FROM_SFT = ["train/mpo/seed-0", "train/ppo/seed-0", "evaluate", "report"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a pipeline that ran once."""
    place = write_place(tmp_path_factory.mktemp("pipeline"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert pipeline(write_config(place / "p.yaml")) == 0
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to stand in; copies have other times of modification, and the same bytes."""
    shutil.copytree(finished, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_a_pipeline_goes_from_a_base_model_to_a_page(finished: Path) -> None:
    out = finished / "out"
    made = manifests(out)
    assert set(made) == set(STEPS)
    for name, manifest in made.items():
        assert manifest["step"] == name
        assert manifest["hours"] > 0 and manifest["hardware"]["cores"] and manifest["versions"]["torch"]
    assert made["train/mpo/seed-0"]["seeds"] == {"seed": 0}
    # Parts share no prompt, and what uses a part says so.
    parts = {
        part: (out / "data" / "pairs" / f"{part}.jsonl").read_text().splitlines() for part in ("learn", "evaluate")
    }
    prompts = {part: {json.loads(line)["prompt"] for line in lines} for part, lines in parts.items()}
    assert not prompts["learn"] & prompts["evaluate"]
    assert set(made["preference/cost"]["inputs"]["uses"]) == {"data:pairs/evaluate"}
    # Every product is an ordinary one.
    load_policy(str(out / "sft"))
    build_judge(f"cost:{out / 'preference' / 'cost'}")
    policy, _ = load_policy(str(out / "train" / "mpo" / "seed-0" / "rounds" / "round-1"))
    assert policy.get_base_model().name_or_path == str(out / "sft")  # type: ignore[union-attr]
    suite = json.loads((out / "evaluate" / "suite.json").read_text())
    assert set(suite["policies"]) == {"SFT", "MPO round 1", "MPO round 2", "PPO"}
    assert {record["opponent"] for record in suite["matchups"]} == {"SFT"}
    page = (out / "report" / "report.html").read_text()
    assert "<html" in page and "7 of 7 finished" in page
    assert not re.search(r"report: (waiting|run|under way)", page)  # it does not warn of itself
    overview = json.loads((out / "pipeline.json").read_text())
    assert [step["name"] for step in overview["steps"]] == list(STEPS)
    assert {step["status"] for step in overview["steps"]} == {"finished"}
    assert not list(out.rglob("checkpoint-*"))  # only resuming would need them


def test_a_second_call_does_nothing(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")}
    assert pipeline(place / "p.yaml", "--verify") == 0
    assert ran(capfd.readouterr().err) == []
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.safetensors")} == before


@pytest.mark.parametrize(
    ("changes", "reason", "again"),
    [
        ({"preference.cost.learning_rate": 0.001}, "learning_rate changed from 0.003 to 0.001", ["preference/cost"]),
        ({"train.methods.PPO.kl_coef": 0.2}, "kl_coef changed from None to 0.2", ["train/ppo/seed-0"]),
        ({"sft.logging_steps": 1, "settings.disable_tqdm": False}, "", []),
        ({"sft.weight_decay": 0.0}, "", []),  # naming a default changes nothing
    ],
)
def test_a_changed_setting_is_planned_with_its_reason(
    changes: dict[str, Any], reason: str, again: list[str], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pipeline(write_config(place / "p.yaml", changes), "--dry_run") == 0
    plan = capfd.readouterr().out
    assert reason in plan
    assert [line.split()[0] for line in plan.splitlines() if "would run   " in line] == again
    assert set(manifests(place / "out")) == set(STEPS)  # nothing was touched


@pytest.mark.slow
def test_a_changed_input_runs_again_exactly_what_depends_on_it(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = products(place / "out")
    write_config(place / "p.yaml", {"sft.learning_rate": 0.003})
    assert pipeline(place / "p.yaml", "--dry_run") == 0
    plan = capfd.readouterr().out
    assert "learning_rate changed from 0.01 to 0.003" in plan
    assert plan.count("would run if") == len(MADE_FROM_SFT)
    assert pipeline(place / "p.yaml") == 0
    assert ran(capfd.readouterr().err) == ["sft", *MADE_FROM_SFT]
    after = products(place / "out")
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if name.startswith(("sft/", "train/"))
    }
    # What it gave before was put aside, and is found again when the setting is changed back.
    assert pipeline(write_config(place / "p.yaml")) == 0
    console = capfd.readouterr().err
    assert ran(console) == ["evaluate", "report"]
    assert console.count("made before from the same inputs") == 3
    assert products(place / "out") == before


def test_an_input_that_comes_out_the_same_stops_the_chain(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_config(place / "p.yaml", {"data.pairs.parts": {"held_out": 6, "learn": 0.5, "evaluate": "rest"}})
    with_another = {"held_out": 6, "learn": 0.5, "evaluate": "rest", "prompts": ["learn", "evaluate"], "all": ["learn"]}
    write_config(place / "p.yaml", {"data.pairs.parts": with_another})
    assert pipeline(place / "p.yaml") == 0
    assert ran(capfd.readouterr().err) == ["data/pairs", "report"]


def test_changed_data_is_noticed_by_its_bytes(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = place / "pairs.jsonl"
    text = file.read_text()
    os.utime(file)  # touched, not changed
    assert pipeline(place / "p.yaml", "--dry_run") == 0
    assert "would run" not in capfd.readouterr().out
    file.write_text(text.replace("rock", "well", 1))
    assert pipeline(place / "p.yaml", "--dry_run") == 0
    assert "the content of pairs.jsonl changed" in capfd.readouterr().out


@pytest.mark.parametrize("how", ["changed", pytest.param("removed", marks=pytest.mark.slow)])
def test_a_tampered_output_is_noticed_and_made_again(how: str, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = products(place / "out")
    weights = place / "out" / "preference" / "judge" / "model.safetensors"
    if how == "changed":
        stat = weights.stat()
        damaged = bytearray(weights.read_bytes())
        damaged[-1] ^= 1
        weights.write_bytes(bytes(damaged))
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        # Same size, same time: only reading finds it.
        assert pipeline(place / "p.yaml", "--dry_run", "--verify") == 0
    else:
        weights.unlink()
        assert pipeline(place / "p.yaml", "--dry_run") == 0
    assert f"model.safetensors was {how}" in capfd.readouterr().out
    assert pipeline(place / "p.yaml", "--verify") == 0
    assert ran(capfd.readouterr().err) == ["preference/judge"]  # it comes out the same, so that nothing follows
    assert products(place / "out") == before


def test_a_kill_in_each_stage_costs_nothing_but_time(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("model", "pairs.jsonl", "p.yaml"):
        (shutil.copytree if (finished / name).is_dir() else shutil.copy)(finished / name, place / name)
    monkeypatch.chdir(place)
    out = place / "out"
    for name, step in (("sft", 3), ("preference/judge", 5), ("train/mpo/seed-0", 3), ("train/ppo/seed-0", 1)):
        with killed_at(out / name, step), pytest.raises(Killed):
            pipeline(place / "p.yaml")
        assert not (out / name / "manifest.json").exists()
        capfd.readouterr()
        # A kill never leaves the lock behind, and says nothing: the next command finds the step begun.
        assert pipeline(place / "p.yaml", "--dry_run") == 0
        line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith(name))
        assert "would go on" in line
    assert pipeline(place / "p.yaml", "--only", "train/ppo") == 0
    with monkeypatch.context() as patch:
        from magnetar.rollout import TransformersEngine

        calls = []
        generate = TransformersEngine.generate

        def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise Killed
            return generate(self, *args, **kwargs)

        patch.setattr(TransformersEngine, "generate", killed)
        with pytest.raises(Killed):
            pipeline(place / "p.yaml")
    assert pipeline(place / "p.yaml") == 0
    assert products(out) == products(finished / "out")
    one, other = (json.loads((where / "evaluate" / "suite.json").read_text()) for where in (out, finished / "out"))
    assert one["matchups"] == other["matchups"] and one["costs"] == other["costs"]


def test_a_failing_step_keeps_the_others_and_is_named(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_config(place / "p.yaml", {"train.methods.PPO.max_prompt_length": 1})
    assert pipeline(place / "p.yaml") == 1
    console = capfd.readouterr().err
    assert "train/ppo/seed-0 failed:" in console
    assert "missing: evaluate: train:PPO/seed-0 is needed, and train/ppo/seed-0 failed" in console
    assert "train/mpo/seed-0: finished before" in console
    states = {
        step["name"]: step["status"] for step in json.loads((place / "out" / "pipeline.json").read_text())["steps"]
    }
    assert (states["train/ppo/seed-0"], states["evaluate"]) == ("failed", "blocked")
    # Suites may do with what there is.
    changes = {"train.methods.PPO.max_prompt_length": 1, "evaluate.unfinished": "leave_out"}
    assert pipeline(write_config(place / "p.yaml", changes), "--skip", "train/ppo") == 0
    assert "left out, since it is not finished: PPO" in capfd.readouterr().err
    assert "PPO" not in json.loads((place / "out" / "evaluate" / "suite.json").read_text())["policies"]


def test_two_pipelines_do_not_share_a_folder(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with FileLock(place / "out" / ".pipeline.lock"):
        assert pipeline(place / "p.yaml") == 2
    assert "another pipeline is at work in out" in capfd.readouterr().err


def test_steps_are_chosen_by_stage_and_by_name(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_config(place / "p.yaml", {"sft.learning_rate": 0.003})
    assert pipeline(place / "p.yaml", "--from", "train") == 0
    console = capfd.readouterr().err
    assert ran(console) == []  # what sft made before is used
    assert "sft: skipped, though learning_rate changed from 0.01 to 0.003" in console
    assert pipeline(place / "p.yaml", "--only", "preference/cost", "--dry_run") == 0
    lines = capfd.readouterr().out.splitlines()
    assert sum("skipped" in line for line in lines) == len(STEPS) - 1
    shutil.rmtree(place / "out" / "preference" / "cost")
    assert pipeline(place / "p.yaml", "--skip", "preference") == 2
    assert "preference:cost is needed, and preference/cost is skipped and not finished" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_stops_the_pipeline_and_repeating_goes_on(
    finished: Path, tmp_path: Path, number: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("model", "pairs.jsonl"):
        (shutil.copytree if (finished / name).is_dir() else shutil.copy)(finished / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    write_config(
        tmp_path / "p.yaml", {"sft.max_steps": 400, "sft.save_steps": 5}, report=None, evaluate=None, train=None
    )
    code = "import sys; from magnetar.cli.main import main; sys.exit(main())"
    command = ["pipeline", "--config", "p.yaml", "--only", "data", "sft"]
    process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.PIPE, text=True)
    metrics, deadline = tmp_path / "out" / "sft" / "metrics.jsonl", time.monotonic() + 240
    while not metrics.exists() or metrics.read_text().count("\n") < 8:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, number)
    error = process.communicate(timeout=240)[1]
    assert process.returncode == status, error
    if number != signal.SIGKILL:
        assert "stopped in sft; what is finished is kept: repeat the command to go on" in error
    assert main(command) == 0
    weights = tmp_path / "out" / "sft" / "model.safetensors"
    resumed = weights.read_bytes()
    assert main([*command, "--output_dir", "whole"]) == 0
    assert (tmp_path / "whole" / "sft" / "model.safetensors").read_bytes() == resumed
