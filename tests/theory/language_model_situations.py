"""Live trainers on the enumerable model in the middle of an update, every role with weights of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from enumerable_setup import GAME, flat_gradient, next_token_tables, perturb, row
from language_model_exact import Formula, Situation, Tables
from torch import Tensor

from magnetar.evaluation.enumerable import PROMPT
from magnetar.training import NashConfig, NashTrainer
from magnetar.training.collector import OpponentShare
from magnetar.training.experience import Experience

UPDATE = 2  # the second: an optimistic method has a previous policy only then
OTHER_ROLES = ("magnet", "previous", "lookahead")


@dataclass
class Scene:
    """A trainer between the first and the second optimiser step on a batch, and what the exact formulas need.

    Attributes:
        trainer: Its current policy is π_θ.
        behavior: Weights of π_k.
        current: Weights of π_θ.
        situation: The same policies as tables; without gradient.
    """

    trainer: NashTrainer
    behavior: list[Tensor]
    current: list[Tensor]
    situation: Situation

    @property
    def opponents(self) -> list[OpponentShare]:
        """Whom the responses of this step meet."""
        return self.trainer.prediction.opponents(UPDATE, _step(self.trainer) - 1)

    def experience(self, positions: Sequence[int]) -> Experience:
        """Fresh experience with π_k; the policy is π_θ again afterwards."""
        _load(self.trainer, self.behavior)
        rows = [row(self.trainer, position) for position in positions]
        if self.trainer._needs_behavior_role:
            self.trainer.roles.move("behavior", "current")
        experience = self.trainer._collector.collect(rows, self.opponents)
        _load(self.trainer, self.current)
        return experience

    def gradient(self, experience: Experience) -> Tensor:
        """Of the trainer's loss, the mean over the prompts of an experience."""
        model = self.trainer.roles.current
        model.zero_grad()
        part = list(range(len(experience.prompts)))
        self.trainer.compute_loss(model, {"experience": experience, "part": part}).backward()
        return flat_gradient(self.trainer)

    def exact_gradient(self, formula: Formula) -> Tensor:
        """Of a formula over every response."""
        self.trainer.roles.current.zero_grad()
        at = Situation(next_token_tables(self.trainer.roles.current), self.situation.behavior, self.situation.others)
        formula(at).backward()
        return flat_gradient(self.trainer)

    def go_to_first_step(self) -> None:
        """Make π_θ the policy that sampled the batch."""
        _load(self.trainer, self.behavior)
        self.current = self.behavior


def scene(folder: Path, *, sampled: bool = False, group: int = 8, **settings: Any) -> Scene:
    """Reference, magnet, previous, look-ahead, behaviour and current policies all different, at the second update."""
    trainer = make_trainer(folder, sampled=sampled, group=group, inner_epochs=2, **settings)
    others: dict[str, Tables] = {"reference": _tables(trainer)}
    for seed, role in enumerate(OTHER_ROLES, start=11):
        if trainer.roles.has(role):  # type: ignore[arg-type]
            perturb(trainer, seed=seed)
            trainer.roles.move(role)  # type: ignore[arg-type]
            others[role] = _tables(trainer)
    perturb(trainer, seed=2)
    behavior, tables = _weights(trainer), _tables(trainer)
    perturb(trainer, seed=3)  # θ ≠ θ_k: importance ratios matter
    trainer.state.global_step = (UPDATE - 1) * trainer.plan.inner_epochs + _step(trainer)
    return Scene(trainer, behavior, _weights(trainer), Situation(_tables(trainer), tables, others))


def make_trainer(folder: Path, *, sampled: bool, group: int, **settings: Any) -> NashTrainer:
    """A trainer on the small enumerable model in float64."""
    args = NashConfig(
        output_dir=str(folder),
        num_generations=group if sampled else len(GAME.responses),
        max_completion_length=GAME.max_new_tokens,
        per_device_train_batch_size=1,
        max_tokens_per_pass=100_000,
        disable_tqdm=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    return NashTrainer(
        model=GAME.model(seed=1, skew=1.0, dtype=torch.float64),
        judge=GAME.judge(),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [PROMPT]}),
        processing_class=GAME.tokenizer,
        rollout_engine=None if sampled else GAME.engine(),
    )


def _step(trainer: NashTrainer) -> int:
    """The optimiser step (from 0) of the update that the scene is in: the last one."""
    return trainer.plan.inner_epochs - 1


def _tables(trainer: NashTrainer) -> Tables:
    with torch.no_grad():
        return next_token_tables(trainer.roles.current)


def _weights(trainer: NashTrainer) -> list[Tensor]:
    return [p.detach().clone() for p in trainer.roles.current.parameters()]


def _load(trainer: NashTrainer, weights: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(trainer.roles.current.parameters(), weights, strict=True):
            parameter.copy_(value)
