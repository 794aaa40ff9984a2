"""Resuming a run gives exactly the run that was never interrupted."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from tiny_runs import (
    GAME,
    assert_identical,
    lora,
    make_trainer,
    metrics_without_times,
    read_lines,
    scoring_judge,
    snapshot,
)

from magnetar.errors import CheckpointError

# name: (settings, the steps to resume from)
RUNS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    # Step 1 is in the middle of a magnet period, step 2 just after a move, step 5 near the end.
    "magnet every 2 updates": ({"magnet_every": 2}, (1, 2, 5)),
    # Odd steps are in the middle of an update: the batch and the behaviour role must come back too.
    "inner epochs with exact KL": ({"inner_epochs": 2, "kl_estimator": "exact", "max_steps": 8}, (1, 3, 4)),
    "moving average": ({"magnet_schedule": "ema", "magnet_ema_rate": 0.3}, (3,)),
    "rounds": ({"magnet_schedule": "round", "num_rounds": 3}, (2, 3)),
    "accumulation and reward transformation": ({"method": "mpo_rt", "gradient_accumulation_steps": 2}, (3,)),
    "opponents from the magnet": ({"opponent": "magnet", "num_opponents": 3}, (3,)),
    # Whether the magnet moves depends on the step after its last move, which may be before the checkpoint.
    "adaptive magnet": ({"magnet_schedule": "adaptive", "magnet_shrink": 0.9, "max_steps": 8}, (2, 3, 5)),
    "samples from the start of a round": ({"sample_from": "round_start", "num_rounds": 2}, (2, 3, 4)),
}


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("run", RUNS)
def test_resuming_is_bit_identical_to_never_stopping(tmp_path: Path, run: str, with_lora: bool) -> None:
    settings, steps = RUNS[run]
    settings = {"save_strategy": "steps", "save_steps": 1, "sample_steps": 1, "with_lora": with_lora} | settings
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    expected = snapshot(whole)
    assert whole.roles.same("magnet", "reference") is False  # else a forgotten role would not show
    for step in steps:
        folder = tmp_path / f"resumed-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        resumed = make_trainer(folder, **settings)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert_identical(snapshot(resumed), expected)
        assert resumed.magnet_moves == whole.magnet_moves
        assert metrics_without_times(folder) == metrics_without_times(tmp_path / "whole")
        assert read_lines(folder / "samples.jsonl") == read_lines(tmp_path / "whole" / "samples.jsonl")


def test_a_checkpoint_between_two_log_lines_loses_no_metrics(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 3, "logging_steps": 2, "max_steps": 6}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    folder = tmp_path / "resumed"
    shutil.copytree(tmp_path / "whole", folder)
    make_trainer(folder, **settings).train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert metrics_without_times(folder) == metrics_without_times(tmp_path / "whole")


def test_true_resumes_from_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path, **settings)
    whole.train()
    (tmp_path / "checkpoint-6" / "magnetar_state.json").unlink()  # as if its writing had been cut short
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(resumed), snapshot(whole))


PREDICTIONS = {
    # One step a half, and a checkpoint between the halves.
    "egpo": ({"method": "egpo", "step_size": 1.0, "magnet_every": None, "max_steps": 6}, (1, 2, 3)),
    # Two steps a half: inside the first half, between the halves, inside the second.
    "extragradient": (
        {"method": "extragradient", "magnet_every": None, "magnet_strength": None, "inner_epochs": 2, "max_steps": 12},
        (5, 6, 7),
    ),
    "omwu": ({"method": "omwu", "magnet_every": None, "magnet_strength": None, "num_opponents": 3}, (1, 4)),
    "nash_md": ({"method": "nash_md", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}, (3,)),
}


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("run", PREDICTIONS)
def test_resuming_inside_a_prediction_is_bit_identical(tmp_path: Path, run: str, with_lora: bool) -> None:
    settings, steps = PREDICTIONS[run]
    settings = {"save_strategy": "steps", "save_steps": 1, "with_lora": with_lora} | settings
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    expected = snapshot(whole)
    for step in steps:
        folder = tmp_path / f"resumed-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        resumed = make_trainer(folder, **settings)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert_identical(snapshot(resumed), expected)


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
def test_resuming_with_a_critic_is_bit_identical(tmp_path: Path, with_lora: bool) -> None:
    settings: dict[str, Any] = {"method": "ppo", "inner_epochs": 2, "critic_learning_rate": 1e-2, "max_steps": 8}
    settings |= {"save_strategy": "steps", "save_steps": 1, "with_lora": with_lora}
    whole = make_trainer(tmp_path / "whole", judge=scoring_judge(), **settings)
    whole.train()
    expected = snapshot(whole)
    assert any(float(t.abs().max()) > 0 for name, t in expected.items() if "linear" in name), "the value head learnt"
    for step in (1, 4, 5):
        folder = tmp_path / f"resumed-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        resumed = make_trainer(folder, judge=scoring_judge(), **settings)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert_identical(snapshot(resumed), expected)


@pytest.mark.parametrize("change", ["base", "adapter"])
def test_a_run_is_not_continued_on_another_model(tmp_path: Path, change: str) -> None:
    make_trainer(tmp_path, with_lora=True, save_strategy="steps", save_steps=1, max_steps=2).train()
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    if change == "base":
        other = make_trainer(tmp_path, with_lora=True, model=GAME.model(1, dtype=torch.float32), **settings)
    else:
        adapted = get_peft_model(GAME.model(0, dtype=torch.float32), replace(lora(), lora_alpha=16))
        other = make_trainer(tmp_path, model=adapted, **settings)
    with pytest.raises(CheckpointError, match="another model, or with other adapter settings"):
        other.train(resume_from_checkpoint=True)
