"""When saving fails or the loss breaks, the last good state is kept and found."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_runs import assert_identical, make_trainer, snapshot
from transformers import TrainerCallback

from magnetar.errors import CheckpointError, NonFiniteLossError
from magnetar.modeling.loading import load_policy
from magnetar.training import checkpoints


def full_disk(target: Any, name: str, patch: pytest.MonkeyPatch, where: Callable[[str], bool]) -> None:
    """Make a function that writes fail, half-way through its file, wherever ``where`` holds for its path."""
    real = getattr(target, name)

    def write(*args: Any, **kwargs: Any) -> Any:
        path = next((a for a in (*args, *kwargs.values()) if isinstance(a, str | Path) and where(str(a))), None)
        if path is None:
            return real(*args, **kwargs)
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    patch.setattr(target, name, write)


# What fails: module and function, and the file (of checkpoint-9) that it was writing.
POINTS = {
    "weights": (safetensors.torch, "save_file", "model.safetensors"),
    "adapter": (None, "", "adapter_model.safetensors"),
    "optimiser": (torch, "save", "optimizer.pt"),
    "random states": (torch, "save", "rng_state.pth"),
    "roles": (safetensors.torch, "save_file", "roles.safetensors"),
    "batch of the update": (torch, "save", "experience-0.pt"),
    "trainer state": (Path, "write_text", "trainer_state.json"),
    "mark of completeness": (Path, "write_text", "magnetar_state.json.part"),
}


# Steps 3 and 9 are in the middle of an update.
SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3, "inner_epochs": 2, "max_steps": 10}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, torch.Tensor]]:
    """What the run with and without LoRA ends in when nothing fails."""
    ends = {}
    for with_lora in (False, True):
        trainer = make_trainer(tmp_path_factory.mktemp("whole"), with_lora=with_lora, **SAVING)
        trainer.train()
        ends[with_lora] = snapshot(trainer)
    return ends


@pytest.mark.parametrize("limit", [None, 1], ids=["all kept", "save_total_limit=1"])
@pytest.mark.parametrize("point", POINTS)
def test_disk_full_while_saving_leaves_the_previous_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: dict[bool, dict[str, torch.Tensor]],
    point: str,
    limit: int | None,
) -> None:
    target, name, file = POINTS[point]
    settings = SAVING | {"save_total_limit": limit, "with_lora": point == "adapter"}
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:

        def hit(path: str) -> bool:
            return f"checkpoint-9/{file}" in path

        if target is None:
            import peft.peft_model as peft_model

            full_disk(peft_model, "safe_save_file", patch, hit)
        elif target is safetensors.torch:
            import transformers.modeling_utils as modeling_utils

            full_disk(modeling_utils, "safe_save_file", patch, hit)
            full_disk(safetensors.torch, "save_file", patch, hit)
        elif file == "trainer_state.json":
            from transformers import TrainerState

            full_disk(TrainerState, "save_to_json", patch, hit)
        else:
            full_disk(target, name, patch, hit)
        with pytest.raises(CheckpointError, match="No space left") as caught:
            make_trainer(folder, **settings).train()
    assert str(folder / "checkpoint-6") in str(caught.value)
    assert "resume_from_checkpoint" in str(caught.value)
    assert not (folder / "checkpoint-9").exists()
    assert checkpoints.latest_checkpoint(folder) == folder / "checkpoint-6"
    assert (folder / "checkpoint-3").exists() == (limit is None)
    resumed = make_trainer(folder, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(resumed), uninterrupted[point == "adapter"])


def test_saving_over_an_older_checkpoint_that_fails_does_not_leave_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path, **settings).train()
    full_disk(torch, "save", monkeypatch, lambda path: "checkpoint-4/optimizer.pt" in path)
    with pytest.raises(CheckpointError):
        make_trainer(tmp_path, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert not (tmp_path / "checkpoint-4").exists()


def test_overwriting_a_run_leaves_none_of_its_checkpoints(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path, **settings).train()
    make_trainer(tmp_path, overwrite_output_dir=True, max_steps=2, save_strategy="steps", save_steps=2).train()
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-2"
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 2


class SpoilWeights(TrainerCallback):
    """Breaks a weight within an optimiser step, as a learning rate that is far too high does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            with torch.no_grad():
                model.lm_head.weight[0, 0] = float("nan")


def nan_gradient(model: torch.nn.Module) -> None:
    parameter = next(p for p in model.parameters() if p.grad is not None)
    parameter.grad[0, 0] = float("nan")  # type: ignore[index]


def nan_loss_after(model: torch.nn.Module, passes: int) -> None:
    """Make logits NaN from a training pass on, with weights that stay healthy."""
    done = [0]

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return output
        done[0] += 1
        return output * float("nan") if done[0] > passes else output

    model.lm_head.register_forward_hook(hook)  # type: ignore[union-attr]


@pytest.mark.parametrize("inner_epochs", [1, 2])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(tmp_path: Path, inner_epochs: int) -> None:
    settings: dict[str, Any] = {"inner_epochs": inner_epochs, "max_steps": 6}
    trainer = make_trainer(tmp_path / "broken", logprob_layout="padded", **settings)
    nan_loss_after(trainer.model, passes=2)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    update = 3 if inner_epochs == 1 else 2
    assert f"update {update}, optimiser step 3: loss is nan" in str(caught.value)
    assert str(tmp_path / "broken" / "checkpoint-2") in str(caught.value)
    assert checkpoints.latest_checkpoint(tmp_path / "broken").name == "checkpoint-2"
    saved = safetensors.torch.load_file(tmp_path / "broken" / "checkpoint-2" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path: Path, max_grad_norm: float) -> None:
    settings: dict[str, Any] = {"max_grad_norm": max_grad_norm, "max_steps": 6}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    spoil = {"step": 2}

    trainer = make_trainer(tmp_path / "broken", **settings)
    real = trainer.accelerator.clip_grad_norm_

    def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.state.global_step == spoil["step"]:
            nan_gradient(trainer.model)  # type: ignore[arg-type]
        return real(parameters, *args, **kwargs)

    trainer.accelerator.clip_grad_norm_ = clip  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match="update 3, optimiser step 3: gradient norm is nan"):
        trainer.train()
    policy, _ = load_policy(str(tmp_path / "broken" / "checkpoint-2"))
    assert all(bool(torch.isfinite(p).all()) for p in policy.parameters())
    # The checkpoint is a good one: with the trouble gone the run ends where it would have.
    resumed = make_trainer(tmp_path / "broken", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(resumed), snapshot(whole))


@pytest.mark.parametrize("step", [3, 4])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, step: int) -> None:
    spoil = SpoilWeights(step)
    trainer = make_trainer(tmp_path, callbacks=[spoil], save_strategy="steps", save_steps=2, save_total_limit=1)
    with pytest.raises(NonFiniteLossError, match=rf"update {step}, optimiser step {step}: .*not saved.*checkpoint-2"):
        trainer.train()
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    saved = safetensors.torch.load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in saved.values())


def test_a_policy_that_cannot_be_sampled_from_stops_the_run(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output if trainer.state.global_step < 2 else output * float("nan")

    trainer.model.lm_head.register_forward_hook(hook)  # type: ignore[union-attr]
    with pytest.raises(NonFiniteLossError, match=r"update 3, optimiser step 3: probabilities .*checkpoint-2"):
        trainer.train()
