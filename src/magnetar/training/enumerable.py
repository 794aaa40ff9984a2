"""The real trainer on a language model whose every response can be listed: exact duality gap after every update."""

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import TrainerCallback

from magnetar.evaluation.enumerable import PROMPT, EnumerableGame
from magnetar.methods import METHODS
from magnetar.training.config import NashConfig
from magnetar.training.trainer import NashTrainer

__all__ = ["EnumerableTrace", "run_enumerable"]


@dataclass(frozen=True)
class EnumerableTrace:
    """How a method fared.

    Attributes:
        method: Its name.
        duality_gap: Exact gap in the original game before training and after each update, shape (updates + 1,).
        average_gap: Gap of the average of the policies so far, same shape.
        magnet_moves: Updates after which the magnet was copied.
        policies: Probabilities of all responses before training and after each update, shape (updates + 1, A).
        score_A: What the judge said of each response, for a method that learns from scores; else None.
    """

    method: str
    duality_gap: NDArray[np.float64]
    average_gap: NDArray[np.float64]
    magnet_moves: list[int]
    policies: NDArray[np.float64]
    score_A: NDArray[np.float64] | None = None

    @property
    def policy(self) -> NDArray[np.float64]:
        """The last iterate, shape (A,)."""
        return self.policies[-1]


class _GapRecorder(TrainerCallback):
    def __init__(self, game: EnumerableGame, steps_per_update: int) -> None:
        self.game = game
        self.policies: list[NDArray[np.float64]] = []
        self.steps_per_update = steps_per_update

    def record(self, model: Any) -> None:
        policy = self.game.policy(model)
        self.policies.append(policy / policy.sum())

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % self.steps_per_update == 0:
            self.record(model)


def run_enumerable(
    game: EnumerableGame,
    *,
    updates: int,
    learning_rate: float = 1e-3,
    inner_epochs: int = 8,
    seed: int = 0,
    sampled: bool = False,
    num_generations: int | None = None,
    **settings: Any,
) -> EnumerableTrace:
    """Train a tiny transformer with `NashTrainer`, unchanged, and measure its exact duality gap.

    A method that learns from scores gets a judge with the Bradley–Terry scores that fit the preferences between
    responses of the untrained model, as a reward model would.

    Args:
        game: The enumerable game.
        updates: Updates of the policy.
        learning_rate: Of Adam.
        inner_epochs: Optimiser steps on each update's batch; several approximate the proximal step that the theory
            takes exactly.
        seed: Of the model's weights and of the sampling.
        sampled: Sample responses, as a large model must, instead of listing them all with their exact weights.
        num_generations: Responses in a group when sampled.
        **settings: Further fields of `NashConfig`, the method among them.

    Returns:
        The trace.
    """
    model = game.model(seed)
    method = str(settings.get("method", "mpo"))
    # An extragradient update takes its optimiser steps twice, once for each half.
    steps = inner_epochs * (2 if METHODS[method]().prediction == "extragradient" else 1)
    recorder = _GapRecorder(game, steps)
    with tempfile.TemporaryDirectory() as folder:
        args = NashConfig(
            output_dir=folder,
            max_steps=updates * steps,
            inner_epochs=inner_epochs,
            learning_rate=learning_rate,
            num_generations=(num_generations or 64) if sampled else len(game.responses),
            max_completion_length=game.max_new_tokens,
            per_device_train_batch_size=1,
            max_tokens_per_pass=100_000,
            max_grad_norm=0.0,
            seed=seed,
            sample_steps=0,
            save_strategy="no",
            logging_steps=steps,
            disable_tqdm=True,
            use_cpu=True,
            report_to="none",
            **settings,
        )
        recorder.record(model)
        score_A = None
        if args.build_method().sampled_objective.needs_reward:
            score_A = game.fitted_scores(recorder.policies[0])
        trainer = NashTrainer(
            model=model,
            judge=game.judge() if score_A is None else game.scoring_judge(score_A),
            args=args,
            # Rounds need a prompt each. Spaces make them different texts of the same tokens.
            train_dataset=Dataset.from_dict({"prompt": [PROMPT + " " * k for k in range(args.num_rounds)]}),
            processing_class=game.tokenizer,
            callbacks=[recorder],
            rollout_engine=None if sampled else game.engine(),
        )
        trainer.train()
        moves = list(trainer.magnet_moves)
    policies = np.array(recorder.policies)
    averages = np.cumsum(policies, axis=0) / np.arange(1, len(policies) + 1)[:, None]
    return EnumerableTrace(
        method=args.method,
        duality_gap=np.array([game.game.duality_gap(p) for p in policies]),
        average_gap=np.array([game.game.duality_gap(p) for p in averages]),
        magnet_moves=moves,
        policies=policies,
        score_A=score_A,
    )
