"""Live trainers on the enumerable model in the middle of an update, every role with weights of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from enumerable_setup import GAME, flat_gradient, next_token_tables, perturb, row
from language_model_exact import SCORE, Formula, Situation, Tables, Values
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
        behavior: Weights of π_k, and of the critic then.
        current: Weights of π_θ, and of the critic now.
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
        if self.trainer.roles.has("behavior"):
            self.trainer.roles.move("behavior", "current")
        collector, judging = self.trainer._collector, self.trainer._judging.anew()
        experience = collector.begin(rows, self.opponents, collector.equal_roles(), judging).finished()
        self._first_pass(experience)
        _load(self.trainer, self.current)
        return experience

    def _first_pass(self, experience: Experience) -> None:
        """What π_k and its critic say of the responses is written down by the pass of the first optimiser step."""
        state, part = self.trainer.state, list(range(len(experience.prompts)))
        now = state.global_step
        state.global_step -= _step(self.trainer)
        with torch.no_grad():
            self.trainer._rollout_batch(self.trainer.roles.current, experience, part)
        state.global_step = now

    def gradient(self, experience: Experience) -> Tensor:
        """Of the trainer's loss, the mean over the prompts of an experience."""
        model = self.trainer.roles.current
        model.zero_grad()
        part = list(range(len(experience.prompts)))
        self.trainer.compute_loss(model, {"experience": experience, "part": part}).backward()
        return self._flat_gradient()

    def _flat_gradient(self) -> Tensor:
        """Of the policy and, if there is one, of the critic."""
        own = [flat_gradient(self.trainer)]
        if self.trainer.critic is not None:
            zero = torch.zeros((), dtype=torch.float64)
            for p in self.trainer.critic.critic.trained().values():
                own.append((p.grad if p.grad is not None else zero.expand(p.shape)).flatten().double())
            self.trainer.critic.after_step()
        return torch.cat(own)

    def exact_gradient(self, formula: Formula) -> Tensor:
        """Of a formula over every response."""
        self.trainer.roles.current.zero_grad()
        at = replace(
            self.situation, current=next_token_tables(self.trainer.roles.current), value=_critic_values(self.trainer)
        )
        formula(at).backward()
        return self._flat_gradient()

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
    _perturb_all(trainer, seed=2)
    behavior, tables, values = _weights(trainer), _tables(trainer), _detached_values(trainer)
    _perturb_all(trainer, seed=3)  # θ ≠ θ_k: importance ratios matter
    trainer.state.global_step = (UPDATE - 1) * trainer.plan.inner_epochs + _step(trainer)
    situation = Situation(_tables(trainer), tables, others, _detached_values(trainer), values)
    return Scene(trainer, behavior, _weights(trainer), situation)


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
        judge=GAME.scoring_judge(SCORE.numpy()) if args.build_method().sampled_objective.needs_reward else GAME.judge(),
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


def _critic_values(trainer: NashTrainer) -> Values:
    """The critic's value of every prefix that can be continued, one plain forward pass each."""
    if trainer.critic is None:
        return {}
    prompt = GAME.tokenizer(PROMPT)["input_ids"]
    prefixes = {tuple(response[:t]) for response in GAME.responses for t in range(len(response))}
    model: Any = trainer.critic.critic.model
    return {prefix: model(torch.tensor([[*prompt, *prefix]])).logits[0, -1, 0] for prefix in prefixes}


def _detached_values(trainer: NashTrainer) -> Values:
    with torch.no_grad():
        return _critic_values(trainer)


def _all_parameters(trainer: NashTrainer) -> list[Tensor]:
    critic = [] if trainer.critic is None else list(trainer.critic.critic.trained().values())
    return [*trainer.roles.current.parameters(), *critic]


def _perturb_all(trainer: NashTrainer, seed: int) -> None:
    perturb(trainer, seed=seed)
    if trainer.critic is not None:
        generator = torch.Generator().manual_seed(100 + seed)
        with torch.no_grad():
            for p in trainer.critic.critic.trained().values():
                p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype), alpha=0.05)


def _weights(trainer: NashTrainer) -> list[Tensor]:
    return [p.detach().clone() for p in _all_parameters(trainer)]


def _load(trainer: NashTrainer, weights: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(_all_parameters(trainer), weights, strict=True):
            parameter.copy_(value)
