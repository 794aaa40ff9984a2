"""Small runs of the real trainer, for tests that compare them with each other."""

import inspect
import json
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from torch import Tensor

from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.judges import ScoreFunctionJudge
from magnetar.methods import METHODS, PUBLISHED_NAMES
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import VllmEngine
from magnetar.training import NashConfig, NashTrainer
from vllm_reference import ReferenceBackend

GAME = EnumerableGame.build(num_words=4, max_new_tokens=3)
WORDS = ("rock", "paper", "scissors", "well")
PROMPTS = [f"{a} {b}" for a in WORDS for b in WORDS if a != b]
TRAINABLE = tuple(name for name, make in METHODS.items() if make().games_only_because is None)
# Wall-clock times and what is computed from them.
TIMES = ("seconds_", "tokens_per_second", "train_runtime", "train_samples_per_second", "train_steps_per_second")


def updates_of(method: str, updates: int, inner_epochs: int = 1) -> dict[str, int]:
    """Optimiser steps of some updates; an extragradient method takes twice as many."""
    halves = 2 if METHODS[method]().prediction == "extragradient" else 1
    return {"inner_epochs": inner_epochs, "max_steps": updates * inner_epochs * halves}


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")


def scoring_judge() -> ScoreFunctionJudge:
    """Scores each response by its words, for methods that maximise a reward."""

    def score(prompts: list[Any], responses: list[str]) -> list[float]:
        return [sum(WORDS.index(word) - 1.5 for word in response.split()) for response in responses]

    return ScoreFunctionJudge(score, name="words", version="1")


def make_config(folder: Path, **settings: Any) -> NashConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "method": "mpo",
        "max_steps": 6,
        "magnet_every": 2,
        "magnet_strength": 0.3,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "num_generations": 4,
        "max_completion_length": 3,
        "save_strategy": "no",
        "sample_steps": 0,
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
    }
    name = str(settings.get("method", "mpo"))
    accepted = inspect.signature(METHODS[PUBLISHED_NAMES.get(name, name)]).parameters
    if "magnet_schedule" in settings or "magnet_every" not in accepted:
        del defaults["magnet_every"]
    if "magnet_strength" not in accepted:
        del defaults["magnet_strength"]
    return NashConfig(**(defaults | settings))


def make_trainer(
    folder: Path,
    *,
    with_lora: bool = False,
    model: Any = None,
    judge: Any = None,
    prompts: list[Any] | None = None,
    eval_prompts: list[Any] | None = None,
    callbacks: list[Any] | None = None,
    rollout_engine: Any = None,
    sent_weights: bool = False,
    **settings: Any,
) -> NashTrainer:
    """A run; with ``sent_weights`` by an engine with weights of its own, which it is sent."""
    args = make_config(folder, **settings)
    if sent_weights:
        rollout_engine = served([])
    if judge is None:
        judge = scoring_judge() if args.build_method().sampled_objective.needs_reward else GAME.judge()
    return NashTrainer(
        model=model if model is not None else GAME.model(0, dtype=torch.float32),
        judge=judge,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": prompts or PROMPTS}),
        eval_dataset=Dataset.from_dict({"prompt": eval_prompts}) if eval_prompts else None,
        processing_class=GAME.tokenizer,
        peft_config=lora() if with_lora else None,
        callbacks=callbacks,
        rollout_engine=rollout_engine,
    )


def served(backends: list[ReferenceBackend], **facts: Any) -> VllmEngine:
    """An engine that is sent weights, as vLLM is; `backends` gets what stands in for vLLM when it starts."""

    def start(model: Any) -> ReferenceBackend:
        backends.append(ReferenceBackend(model.config, **facts))
        return backends[-1]

    return VllmEngine(GAME.tokenizer, SamplingParams(3), start)


def snapshot(trainer: NashTrainer) -> dict[str, Tensor]:
    """Every tensor that the rest of a run depends on: policy, frozen roles, optimiser."""
    tensors = {f"policy.{name}": t.detach().clone() for name, t in trainer.roles.current.state_dict().items()}
    for role, state in trainer.roles.state_dict().items():
        tensors |= {f"{role}.{name}": t for name, t in state.items()}
    if trainer.critic is not None:
        tensors |= {f"critic.{name}": t.detach().clone() for name, t in trainer.critic.critic.trained().items()}
    for index, state in cast(Any, trainer.optimizer).state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t.clone() for name, t in state.items() if isinstance(t, Tensor)}
    return tensors


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, f"{len(different)} of {len(a)} tensors differ, for instance {different[0]}"


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    assert a.keys() == b.keys()
    worst = max(a, key=lambda name: float((a[name].double() - b[name].double()).abs().max()))
    gap = float((a[worst].double() - b[worst].double()).abs().max())
    assert gap <= tolerance, f"{worst} differs by {gap:.2e}"


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics_without_times(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if not name.startswith(TIMES)}
        for row in read_lines(folder / "metrics.jsonl")
    ]
