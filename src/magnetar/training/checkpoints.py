"""What a Magnetar checkpoint adds to transformers', and how it is found, checked and cleaned up.

A checkpoint folder is complete when it holds `magnetar_state.json`, which is written last; a folder without it was cut
short and is never resumed from.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import safetensors.torch
import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict
from transformers import TrainerState, TrainingArguments
from transformers.trainer import FSDP_MODEL_NAME, SCHEDULER_NAME
from transformers.trainer_utils import load_sharded_checkpoint, rotate_checkpoints
from transformers.utils import SAFE_WEIGHTS_NAME

from magnetar.errors import CheckpointError, ConfigError
from magnetar.modeling.roles import Roles
from magnetar.training.config import NashConfig
from magnetar.training.experience import Experience
from magnetar.training.stream import StreamPlan

__all__ = [
    "check_weights",
    "complete_checkpoints",
    "give_up_saving",
    "has_shards",
    "innermost",
    "latest_checkpoint",
    "load_experiences",
    "load_optimizer_by_name",
    "load_prediction",
    "load_roles",
    "load_schedule",
    "load_whole_policy",
    "mark_incomplete",
    "played",
    "read_state",
    "refuse_other_run",
    "remove_all",
    "remove_incomplete",
    "save_experiences",
    "save_prediction",
    "save_roles",
    "state_file",
    "whole_checkpoint",
    "write_mark",
    "write_state",
]

STATE_FILE = "magnetar_state.json"
FSDP_OPTIMIZER_FILE = "optimizer.bin"
ROLES_FILE = "roles.safetensors"
PREDICTION_FILE = "prediction.pt"
SEPARATOR = "|"  # between role and tensor name; module names use dots

# A run resumed with another value of one of these would not be the same run.
CORRECTION = "importance_correction"
FINGERPRINT = (
    "method",
    "opponent",
    "num_opponents",
    "num_generations",
    "num_rounds",
    "inner_epochs",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "critic_model",
)


def fingerprint(args: NashConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with its checkpoint."""
    method = args.build_method()
    return {name: getattr(args, name) for name in FINGERPRINT} | {
        "prompts_per_update": args.prompts_per_update,
        "magnet schedule": method.magnet.describe(),
        "objective": repr(method.objective),
        "sample_from": method.sample_from,
        "opponent's reference weight": method.opponent.reference_weight,
        CORRECTION: args.correction if args.correction == "off" else f"{args.correction}, cap {args.importance_cap:g}",
    }


def played(plan: StreamPlan, updates: int) -> str:
    """Digest of the prompts played in the first updates: another dataset or order has another one."""
    rows = np.ascontiguousarray(plan.rows[: updates * plan.prompts_per_update], dtype=np.int64)
    return hashlib.sha256(rows.tobytes()).hexdigest()[:16]


def write_state(folder: Path, args: NashConfig, counters: dict[str, Any]) -> None:
    """Mark a checkpoint as complete, with the run's fingerprint and counters."""
    write_mark(folder, {"settings": fingerprint(args), **counters})


def write_mark(folder: Path, state: dict[str, Any]) -> None:
    """Mark a checkpoint as complete, with plain values that tell of which run it is."""
    unfinished = folder / f"{STATE_FILE}.part"
    unfinished.write_text(json.dumps({"format": 1, **state}, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / STATE_FILE)  # at once: half a mark would be a mark


def mark_incomplete(folder: Path) -> None:
    """Take the mark off a checkpoint that is about to be written again."""
    (folder / STATE_FILE).unlink(missing_ok=True)


def read_state(folder: Path, args: NashConfig) -> dict[str, Any]:
    """Read a checkpoint's state and check that it belongs to this run.

    Raises:
        CheckpointError: Not a complete Magnetar checkpoint, or one of a run with other settings.
    """
    path = state_file(folder)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        saved = state["settings"]
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); resume from an older checkpoint") from error
    for name, value in fingerprint(args).items():
        older = value if name == CORRECTION else None  # checkpoints from before there was one do not say
        if saved.get(name, older) != value:
            raise CheckpointError(
                f"{folder} was written with {name}={saved.get(name)!r}, this run has {name}={value!r}; resume with the "
                "same setting, or start a new run in another output_dir"
            )
    return state


def state_file(folder: Path) -> Path:
    """The file that marks a checkpoint as complete.

    Raises:
        CheckpointError: It is not there; the message names checkpoints inside the folder, or else beside it.
    """
    path = folder / STATE_FILE
    if path.is_file():
        return path
    inside = ", ".join(str(p) for p in complete_checkpoints(folder))
    if inside:
        raise CheckpointError(
            f"{folder} is the folder of a run, not a checkpoint; resume from a complete checkpoint inside it: {inside}"
        )
    others = ", ".join(str(p) for p in complete_checkpoints(folder.parent)) or "none"
    raise CheckpointError(
        f"{folder} holds no {STATE_FILE}: it is no Magnetar checkpoint, or its writing was cut short; "
        f"complete checkpoints beside it: {others}"
    )


@contextmanager
def whole_checkpoint(args: TrainingArguments, state: TrainerState) -> Iterator[Path]:
    """Around the writing of a checkpoint: incomplete until its end, and only then are older ones removed.

    transformers would remove older ones first, and a save that fails would leave nothing to resume from.

    Args:
        args: The trainer's settings; its limit of checkpoints is out of force within.
        state: The trainer's state.

    Yields:
        The checkpoint's folder.

    Raises:
        CheckpointError: Writing failed; what it left behind is removed.
    """
    run_dir = Path(cast(str, args.output_dir))
    folder = run_dir / f"checkpoint-{state.global_step}"
    if args.should_save:
        mark_incomplete(folder)
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        yield folder
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        give_up_saving(folder, error)
    finally:
        args.save_total_limit = limit
    if args.should_save:
        best = state.best_model_checkpoint
        rotate_checkpoints(output_dir=str(run_dir), save_total_limit=limit, best_model_checkpoint=best, use_mtime=False)


def give_up_saving(folder: Path, error: Exception) -> NoReturn:
    """Remove what a failed save left behind, and say what is still there."""
    remove_incomplete(folder)
    survivors = complete_checkpoints(folder.parent)
    kept = f"the newest complete checkpoint is {survivors[-1]}" if survivors else "no earlier checkpoint exists"
    raise CheckpointError(
        f"saving {folder} failed ({error}); {kept}. Free disk space or choose another output_dir, then resume with "
        "resume_from_checkpoint"
    ) from error


def complete_checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [p.parent for p in run_dir.glob(f"checkpoint-*/{STATE_FILE}") if p.parent.name.split("-")[-1].isdigit()]
    return sorted(found, key=lambda p: int(p.name.split("-")[-1]))


def latest_checkpoint(run_dir: Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        CheckpointError: There is none.
    """
    found = complete_checkpoints(run_dir)
    if not found:
        raise CheckpointError(f"no complete checkpoint in {run_dir}; start without resume_from_checkpoint")
    return found[-1]


def remove_incomplete(folder: Path) -> None:
    """Remove what a failed save left behind, so that nobody resumes from it."""
    if folder.is_dir() and not (folder / STATE_FILE).is_file():
        shutil.rmtree(folder, ignore_errors=True)


def remove_all(run_dir: Path) -> None:
    """Remove every checkpoint of a run that is to be replaced, or its steps would be taken for the new run's."""
    for folder in run_dir.glob("checkpoint-*"):
        if folder.is_dir() and folder.name.split("-")[-1].isdigit():
            shutil.rmtree(folder)


def refuse_other_run(run_dir: Path) -> None:
    """Refuse an output folder that holds a run.

    Raises:
        ConfigError: It does.
    """
    for name in ("metrics.jsonl", "magnetar_config.json"):
        if (run_dir / name).exists():
            raise ConfigError(
                f"output_dir {run_dir} already holds a run ({name}); continue it with "
                "resume_from_checkpoint=True (--resume_from_checkpoint latest on the command line), choose another "
                "output_dir, or set overwrite_output_dir to replace it"
            )


def save_roles(folder: Path, roles: Roles, *, writes: bool = True) -> None:
    """Write every frozen role; where weights are sharded every process takes part and one writes."""
    flat: dict[str, Tensor] = {}
    for role, tensors in roles.state_dict(keep=writes).items():
        for name, tensor in tensors.items():
            flat[f"{role}{SEPARATOR}{name}"] = tensor.contiguous()
    if not writes:
        return
    safetensors.torch.save_file(flat, folder / ROLES_FILE)


def load_roles(folder: Path, roles: Roles) -> None:
    """Restore every frozen role bit for bit.

    Raises:
        CheckpointError: The file is missing, damaged or lacks a role.
    """
    path = folder / ROLES_FILE
    try:
        flat = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); resume from an older checkpoint") from error
    state: dict[str, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        role, name = key.split(SEPARATOR, 1)
        state.setdefault(role, {})[name] = tensor
    roles.load_state_dict(state)


def has_shards(folder: Path) -> bool:
    """Whether a checkpoint was written by processes that share the weights (FSDP)."""
    return any(folder.glob(f"{FSDP_MODEL_NAME}*"))


def check_weights(folder: Path, *, sharded: bool) -> None:
    """Check that a run whose weights are sharded or not can continue from a checkpoint.

    Raises:
        CheckpointError: It cannot.
    """
    if sharded and not has_shards(folder):
        raise CheckpointError(
            f"{folder} was written by processes that each had whole weights, and FSDP cannot continue from it; resume "
            "without FSDP, or start a new run from the model in it"
        )
    if not sharded and has_shards(folder) and not (folder / f"{FSDP_MODEL_NAME}.bin").is_file():
        raise CheckpointError(
            f"{folder} holds one file for each process (fsdp_state_dict_type: SHARDED_STATE_DICT); resume with FSDP, "
            "with any number of processes"
        )


def load_whole_policy(folder: Path, model: nn.Module) -> None:
    """Read the policy of a checkpoint that FSDP wrote into a model that is not sharded."""
    if isinstance(model, PeftModel):
        weights = load_peft_weights(str(folder), device="cpu")
        set_peft_model_state_dict(model, weights, adapter_name=model.active_adapters[0])
    elif (folder / SAFE_WEIGHTS_NAME).is_file():
        model.load_state_dict(safetensors.torch.load_file(folder / SAFE_WEIGHTS_NAME), strict=False)
    else:
        load_sharded_checkpoint(model, str(folder), strict=False)


def load_optimizer_by_name(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read the optimiser's state of a checkpoint that FSDP wrote into the optimiser of a model that is not sharded."""
    state = torch.load(folder / FSDP_OPTIMIZER_FILE, weights_only=True)
    set_optimizer_state_dict(model, innermost(optimizer), state, options=StateDictOptions(full_state_dict=True))


def load_schedule(folder: Path, scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Read where the schedule of learning rates was, for an optimiser whose groups may be other ones by now.

    Where weights are in shards, a critic's value head has a group of its own.
    """
    saved = torch.load(folder / SCHEDULER_NAME, weights_only=True)
    own = scheduler.state_dict()
    by_group = {name: own[name] for name in ("base_lrs", "lr_lambdas") if name in own}
    rates = {"_last_lr": [group["lr"] for group in scheduler.optimizer.param_groups]}
    scheduler.load_state_dict(saved | by_group | rates)


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser within accelerate's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer


def save_prediction(folder: Path, state: dict[str, Any]) -> None:
    """Write what the first half of an extragradient update must go back to; nothing elsewhere."""
    if state:
        torch.save(state, folder / PREDICTION_FILE)


def load_prediction(folder: Path) -> dict[str, Any]:
    """Read what `save_prediction` wrote; empty when it wrote nothing."""
    path = folder / PREDICTION_FILE
    return torch.load(path, weights_only=True) if path.is_file() else {}


def save_experiences(folder: Path, experiences: list[Experience], rank: int) -> None:
    """Write the batch that later inner epochs still need; nothing between updates."""
    if experiences:
        torch.save([e.to_state() for e in experiences], folder / f"experience-{rank}.pt")


def load_experiences(folder: Path, rank: int) -> list[Experience]:
    """Read what `save_experiences` wrote; empty when it wrote nothing."""
    path = folder / f"experience-{rank}.pt"
    if not path.is_file():
        return []
    return [Experience.from_state(state) for state in torch.load(path, weights_only=True)]
