"""`magnetar sft`: TRL's loss on the responses alone, exact resumption, and a model that self-play starts from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline_runs import Killed, killed_at, write_place

from magnetar.cli.main import main
from magnetar.modeling.loading import load_policy

FLAGS = ["--use_cpu", "true", "--report_to", "none", "--disable_tqdm", "true", "--learning_rate", "1e-2"]
FLAGS += ["--max_length", "16", "--max_steps", "6", "--logging_steps", "1", "--lr_scheduler_type", "constant"]
LORA = ["--use_peft", "true", "--lora_r", "4", "--lora_target_modules", "q_proj", "v_proj"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("sft"))


@pytest.fixture
def place(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace


def sft(out: Path, *flags: str) -> int:
    return main(["sft", "--model", "model", "--dataset", "pairs.jsonl", "--output_dir", str(out), *FLAGS, *flags])


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_is_that_of_the_preferred_responses_alone(place: Path, tmp_path: Path) -> None:
    """Mean negative log-likelihood over the tokens of the chosen responses, computed anew with the start's weights."""
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["chosen"] != row["rejected"]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept[:8]))
    assert sft(tmp_path / "out", "--dataset", str(tmp_path / "few.jsonl"), "--max_steps", "1") == 0
    model, tokenizer = load_policy("model")
    total, tokens = 0.0, 0
    for row in kept[:8]:
        before = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row["chosen"] + str(tokenizer.eos_token))["input_ids"]
        with torch.no_grad():
            logp = model(torch.tensor([whole])).logits[0].log_softmax(-1)  # type: ignore[operator]
        start = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        for at in range(start, len(whole)):
            total -= float(logp[at - 1, whole[at]])
            tokens += 1
    assert metrics(tmp_path / "out")[0]["loss"] == pytest.approx(total / tokens, rel=1e-4)


@pytest.mark.parametrize(
    "flags", [pytest.param(LORA, id="LoRA"), pytest.param([], id="all weights", marks=pytest.mark.slow)]
)
def test_it_learns_resumes_exactly_and_gives_a_model_to_train(flags: list[str], place: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert sft(whole, *flags, "--num_train_epochs", "3") == 0
    losses = [row["loss"] for row in metrics(whole) if "loss" in row]
    assert len(losses) == 6 and losses[-1] < losses[0] - 0.1
    with killed_at(killed, 5), pytest.raises(Killed):
        sft(killed, *flags, "--save_steps", "2")
    assert sorted(path.name for path in killed.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert sft(killed, *flags, "--save_steps", "2", "--resume_from_checkpoint", "latest") == 0
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    start, _ = load_policy("model")
    model, tokenizer = load_policy(str(whole))
    assert tokenizer.eos_token is not None
    moved = [name for name, weight in model.state_dict().items() if not torch.equal(weight, start.state_dict()[name])]
    assert moved and (not flags or all("q_proj" in name or "v_proj" in name for name in moved))  # merged
    train = [
        "--dataset",
        "pairs.jsonl",
        "--judge",
        "python:pipeline_judge:rock",
        "--max_steps",
        "1",
        "--report",
        "false",
    ]
    train += ["--num_generations", "2", "--per_device_train_batch_size", "2", "--max_completion_length", "2"]
    (place / "pipeline_judge.py").write_text("def rock(p, first, second):\n    return [0.5] * len(first)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        command = ["train", "--model", str(whole), *train, *FLAGS[:6], "--eval_holdout", "0"]
        assert main([*command, "--output_dir", str(tmp_path / "run")]) == 0


BAD: dict[str, tuple[list[str], str]] = {
    "field": (["--learning_rat", "1"], "did you mean 'learning_rate'"),
    "no file": (["--dataset", "./none.jsonl"], "no file or folder"),
    "no model": (["--model", "./nowhere"], "no such folder"),
    "limit": (["--limit", "0"], "limit is 0"),
    "label": (["--label", "best"], "expected 'better' or 'safer'"),
    "whole sequences": (["--completion_only_loss", "false"], "only the responses are demonstrations"),
    "too short": (["--max_length", "4"], "max_length is 4"),
    "evaluation without data": (["--eval_strategy", "steps", "--eval_steps", "1"], "nothing is held out"),
    "trained prompts": (["--eval_dataset", "pairs.jsonl"], "are in the dataset that is trained on"),
    "resume": (["--resume_from_checkpoint", "latest"], "no complete checkpoint"),
    "quantised": (["--load_in_4bit", "true"], "not supported"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_refused_in_one_sentence(
    case: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, message = BAD[case]
    assert sft(tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_checkpoint_of_another_run_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft(tmp_path / "out", "--save_steps", "2", "--limit", "40") == 0
    assert sft(tmp_path / "out") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert sft(tmp_path / "out", "--resume_from_checkpoint", "latest", "--learning_rate", "1e-3") == 2
    assert "written with learning_rate=0.01, this run has learning_rate=0.001" in capsys.readouterr().err
    assert sft(tmp_path / "out", "--resume_from_checkpoint", "latest", "--limit", "50") == 2
    assert "on other demonstrations" in capsys.readouterr().err


def test_chat_turns_need_a_template(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"messages": [{"role": "user", "content": "rock"}, {"role": "assistant", "content": "paper"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(row) + "\n")
    assert sft(tmp_path / "out", "--dataset", str(tmp_path / "chat.jsonl")) == 2
    assert "has no chat template" in capsys.readouterr().err
