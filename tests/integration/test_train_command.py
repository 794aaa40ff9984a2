"""`magnetar train` from a YAML file to a folder that others can use."""

import json
from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from safetensors import safe_open
from tiny_runs import GAME, read_lines

from magnetar.cli.main import main
from magnetar.modeling.loading import load_policy

FILES = (
    *("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "magnetar_config.json"),
    *("metrics.jsonl", "samples.jsonl", "evaluation.json", "report.html", "checkpoint-2", "checkpoint-4"),
)


def test_train_writes_a_folder_that_others_can_use(
    at_work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    status = main(["train", "--config", "run.yaml", "--output_dir", str(run), "--learning_rate", "0.02", "--seed=3"])
    console = capfd.readouterr()
    assert status == 0, console.err
    for noise in (
        "Loading weights",
        "Writing model shards",
        "pin_memory",
        "FutureWarning",
        "is_gradient_checkpointing",
    ):
        assert noise not in console.err + console.out
    assert console.out.count("update ") == 4
    assert console.out.count("magnet moved") == 2
    assert {name for name in FILES if not (run / name).exists()} == set()

    # The policy's adapter alone: no folder of another role, no tensor of one.
    assert not [p.name for p in run.rglob("*") if p.is_dir() and p.name in ("magnet", "reference", "behavior")]
    with safe_open(run / "adapter_model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "magnet" in name or "reference" in name]  # noqa: SIM118
        assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in file.keys())  # noqa: SIM118

    settings = json.loads((run / "magnetar_config.json").read_text())
    assert settings["arguments"]["learning_rate"] == 0.02  # the flag wins over the file
    assert settings["arguments"]["num_generations"] == 8  # the file wins over the default
    assert settings["arguments"]["seed"] == 3
    assert settings["judge"] == "python:tiny_run_judge:more_scissors"
    assert [row["step"] for row in read_lines(run / "metrics.jsonl") if "loss" in row] == [1, 2, 3, 4]
    samples = read_lines(run / "samples.jsonl")
    assert {row["step"] for row in samples} == {1, 2, 4}
    assert all(len(row["responses"]) == len(row["win_prob"]) == 8 for row in samples)
    card = (run / "README.md").read_text()
    assert card.startswith("---\n")
    for fact in ("mpo", "python:tiny_run_judge:more_scissors", str(at_work / "model"), "library_name: peft"):
        assert fact in card
    page = (run / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")

    policy, tokenizer = load_policy(str(run))
    assert isinstance(policy, PeftModel)
    assert not np.allclose(GAME.policy(policy), GAME.policy(GAME.model(0)), atol=1e-4)
    assert tokenizer.decode([1]) == "rock"

    answer = tmp_path / "eval.json"
    command = ["eval", "--policy", str(run), "--opponent", str(at_work / "model"), "--judge"]
    command += [
        "python:tiny_run_judge:more_scissors",
        "--dataset",
        str(at_work / "prompts.jsonl"),
        "--json",
        str(answer),
    ]
    assert main([*command, "--max-new-tokens", "3"]) == 0
    record = json.loads(answer.read_text())
    assert 0 <= record["win_rate"]["value"] <= 1


def test_training_learns_what_the_judge_likes(at_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--max_steps", "60", "--use_peft", "false", "--per_device_train_batch_size", "4", "--save_strategy", "no"]
    flags += ["--learning_rate", "0.003", "--eval_holdout", "4"]
    assert main(["train", "--config", "run.yaml", "--output_dir", str(run), "--eval_responses", "8", *flags]) == 0
    policy, _ = load_policy(str(run))
    scissors = np.array([text.count("scissors") for text in GAME.texts])
    assert GAME.policy(policy) @ scissors > 2 * (GAME.policy(GAME.model(0)) @ scissors)
    win_rate = json.loads((run / "evaluation.json").read_text())["win_rate"]
    assert win_rate["low"] > 0.5


def test_resuming_by_flag_finishes_the_run(at_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["train", "--config", "run.yaml", "--report", "false", "--eval_holdout", "0", "--output_dir"]
    assert main([*flags, str(run)]) == 0
    whole = (run / "adapter_model.safetensors").read_bytes()
    for resume in ("true", str(run / "checkpoint-2")):
        (run / "checkpoint-4" / "magnetar_state.json").unlink(missing_ok=True)
        (run / "adapter_model.safetensors").unlink()
        assert main([*flags, str(run), "--resume_from_checkpoint", resume]) == 0
        assert (run / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("with_lora", [True, False], ids=["lora", "full"])
def test_report_to_reaches_trackers(tmp_path: Path, with_lora: bool) -> None:
    from tiny_runs import make_trainer
    from transformers import TrainerCallback

    class Tracker(TrainerCallback):
        rows: list[dict[str, float]] = []  # noqa: RUF012

        def on_log(self, args: object, state: object, control: object, logs: object = None, **kwargs: object) -> None:
            self.rows.append(dict(logs))  # type: ignore[call-overload]

    tracker = Tracker()
    tracker.rows = []
    make_trainer(tmp_path, callbacks=[tracker], max_steps=2, with_lora=with_lora).train()
    steps = [row for row in tracker.rows if "loss" in row]
    assert len(steps) == 2
    assert {"payoff_std", "kl_magnet", "entropy", "magnet_moved", "grad_norm"} <= set(steps[0])
