"""Training a best response: a policy whose one aim is to beat another one, which stays as it is.

What it wins against the frozen policy is a lower bound of what any policy could win. It is trained by `NashTrainer` as
every policy is: its opponent is the reference, which is where its training started, the frozen policy itself.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from magnetar.data.splits import prompt_key
from magnetar.errors import CheckpointError, ConfigError, checked_integer
from magnetar.judges import Judge
from magnetar.rollout import RolloutEngine, SamplingParams
from magnetar.training.checkpoints import complete_checkpoints, remove_all
from magnetar.training.config import NashConfig
from magnetar.training.ledger import Budget, Ledger, read_ledger
from magnetar.training.snapshots import PolicySnapshots, snapshots
from magnetar.training.trainer import NashTrainer
from magnetar.types import Prompt

__all__ = ["BestResponse", "BestResponseSettings", "best_response_config", "finished_response", "train_best_response"]

RECORD_FILE = "best_response.json"


@dataclass(frozen=True)
class BestResponseSettings:
    """How hard an attacker tries.

    Attributes:
        max_updates: Updates, each with fresh responses of both sides.
        prompts_per_update: Prompts in an update.
        num_generations: Responses of the attacker to each prompt of an update, at least 2.
        num_opponents: Responses of the policy to each prompt of an update.
        learning_rate: Of Adam on the adapter's weights.
        kl_strength: α, win probability that a nat of KL to the frozen policy costs; positive and tiny. It keeps the
            attacker's responses texts that a judge can read.
        lora_r: Rank of the adapter that is trained on all linear layers; a policy that is an adapter itself is trained
            on in its own form.
        curve_points: Points of the curve over training, evenly spaced, the last at the end.
        sampling: Temperature, truncation and length of the responses, those of the policy.
        max_prompt_length: Longest prompt in tokens; longer ones are not trained on.
        seed: Of the adapter, the order of the prompts and the sampling.
    """

    max_updates: int = 60
    prompts_per_update: int = 8
    num_generations: int = 8
    num_opponents: int = 4
    learning_rate: float = 3e-4
    kl_strength: float = 0.002
    lora_r: int = 16
    curve_points: int = 4
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_prompt_length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"max_updates": 1, "prompts_per_update": 1, "num_generations": 2, "num_opponents": 1, "lora_r": 1}
        for name, low in {**least, "curve_points": 1, "max_prompt_length": 1, "seed": 0}.items():
            checked_integer(name, getattr(self, name), low)
        for name in ("learning_rate", "kl_strength"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected a positive number, for instance 0.001")
        if self.sampling.min_p:
            raise ConfigError(f"min_p is {self.sampling.min_p}, but training draws without it; expected 0")


@dataclass(frozen=True)
class BestResponse:
    """A trained attacker.

    Attributes:
        folder: What `magnetar.modeling.loading.load_policy` loads.
        ledger: What its training spent.
        curve: Attackers along the way, in order, each with what had been spent until then.
    """

    folder: Path
    ledger: Ledger
    curve: Sequence[tuple[Path, Ledger]] = ()


def best_response_config(folder: Path, settings: BestResponseSettings, **changes: Any) -> NashConfig:
    r"""Settings of the trainer with which a best response is trained.

    The objective is ``max_π' E_{y~π', y'~π} P(y ≻ y') − α KL(π'‖π)``, taken by magnetic mirror descent with the frozen
    policy as opponent and as magnet, in its regression form: log-ratios of two responses are regressed on the
    difference of what they win, so that a group is its own baseline. The policy gradient's baseline is the value of the
    game, one half, which is far from what an attacker wins once it has learned something.

    Args:
        folder: Of the run.
        settings: How hard the attacker tries.
        **changes: Further fields of `NashConfig`, such as ``use_cpu``.

    Returns:
        The configuration.

    Raises:
        ConfigError: Values that cannot work.
    """
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "method": "mmd",
        "loss": "regression",
        "opponent": "reference",
        "magnet_strength": settings.kl_strength,
        "max_steps": settings.max_updates,
        "per_device_train_batch_size": settings.prompts_per_update,
        "num_generations": settings.num_generations,
        "num_opponents": settings.num_opponents,
        "learning_rate": settings.learning_rate,
        "max_completion_length": settings.sampling.max_new_tokens,
        "temperature": settings.sampling.temperature,
        "top_p": settings.sampling.top_p,
        "top_k": settings.sampling.top_k,
        "max_prompt_length": settings.max_prompt_length,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": max(1, min(10, settings.max_updates // 4)),
        "save_total_limit": 1,
        "sample_steps": 0,
        "report_to": "none",
    }
    return NashConfig(**(values | changes))


def finished_response(folder: Path, inputs: Mapping[str, Any]) -> BestResponse | None:
    """The attacker that a folder holds, if it is finished and was trained from the same inputs.

    Args:
        folder: Of the run.
        inputs: As `train_best_response` takes them, complete.

    Returns:
        The attacker; None where there is none yet.

    Raises:
        CheckpointError: The record is damaged.
        ConfigError: The folder holds an attacker of other inputs; names what differs.
    """
    record = _read_record(folder)
    if record is None:
        return None
    _refuse_other(folder, record["inputs"], inputs)
    return BestResponse(folder, read_ledger(folder), snapshots(folder)) if record["finished"] else None


def train_best_response(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    judge: Judge,
    prompts: Sequence[Prompt],
    folder: Path,
    settings: BestResponseSettings,
    *,
    inputs: Mapping[str, Any] | None = None,
    engine: RolloutEngine | None = None,
    progress: bool = False,
    **changes: Any,
) -> BestResponse:
    """Train an attacker of a policy, or go on with one that was interrupted.

    Args:
        model: The policy, frozen; it is trained in place, so give one that nothing else uses. An adapter is trained on,
            a model without one gets a LoRA adapter.
        tokenizer: Its tokenizer.
        judge: Whose preferences the attacker learns to satisfy; the one that measures it, for the bound is one under
            a judge.
        prompts: To train on; keep them apart from those that the attacker is measured on.
        folder: Of the run.
        settings: How hard the attacker tries.
        inputs: What else decides the result, such as a digest of the policy's weights; a folder with other inputs is
            refused.
        engine: Generates responses; transformers' own generation by default.
        progress: Show a bar with the rewards on standard error.
        **changes: Further fields of `NashConfig`.

    Returns:
        The attacker.

    Raises:
        ConfigError: The folder holds an attacker of other inputs, or settings that cannot work.
        CheckpointError: What the folder holds is damaged.
        TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is written; the same call goes on.
    """
    whole = response_inputs(judge, prompts, settings, inputs)
    found = finished_response(folder, whole)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = complete_checkpoints(folder)
    args = best_response_config(folder, settings, **{"disable_tqdm": not progress, **changes})
    args.overwrite_output_dir = not checkpoints  # what is there was cut short before its first checkpoint
    _write_record(folder, whole, finished=False)
    trainer = NashTrainer(
        model=model,
        judge=judge,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else _adapter(settings),
        rollout_engine=engine,
    )
    trainer.add_callback(PolicySnapshots(trainer, Budget("updates", settings.max_updates), settings.curve_points))
    trainer.train(resume_from_checkpoint=str(checkpoints[-1]) if checkpoints else None)
    trainer.save_model(str(folder))
    _write_record(folder, whole, finished=True)
    remove_all(folder)
    return BestResponse(folder, read_ledger(folder), snapshots(folder))


def response_inputs(
    judge: Judge, prompts: Sequence[Prompt], settings: BestResponseSettings, inputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that decides an attacker, as plain values.

    Args:
        judge: Who judges; its name stands for it where it cannot tell its identity.
        prompts: To train on.
        settings: How hard the attacker tries.
        inputs: What else decides the result.

    Returns:
        Values by name, as JSON gives them back.
    """
    digest = hashlib.blake2b("".join(map(prompt_key, prompts)).encode(), digest_size=16).hexdigest()
    values = {"judge": judge.name, "prompts": digest, **asdict(settings), **(inputs or {})}
    return json.loads(json.dumps(values))


def _adapter(settings: BestResponseSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=2 * settings.lora_r,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"inputs": dict(record["inputs"]), "finished": bool(record["finished"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove its folder to train the attacker again") from error


def _write_record(folder: Path, inputs: Mapping[str, Any], *, finished: bool) -> None:
    unfinished = folder / f"{RECORD_FILE}.part"
    unfinished.write_text(json.dumps({"finished": finished, "inputs": dict(inputs)}, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / RECORD_FILE)


def _refuse_other(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differ = [
        f"{name}: {before.get(name)!r} → {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differ:
        raise ConfigError(
            f"{folder} holds an attacker that was trained otherwise ({'; '.join(differ)}); restore that, choose "
            "another output_dir, or remove the folder to train it again"
        )
