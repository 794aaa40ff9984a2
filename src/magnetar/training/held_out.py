"""Playing the policy in training against where it started, on held-out prompts, with all processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate.utils import gather_object

from magnetar.evaluation.matchup import Matchup, Responses
from magnetar.evaluation.play import play
from magnetar.evaluation.players import GenerationRequest, RolePlayer
from magnetar.judges import Judge
from magnetar.modeling.sharding import WholeWeights
from magnetar.rollout import HoldingEngine, SamplingParams, holding
from magnetar.types import Role

if TYPE_CHECKING:
    from magnetar.training.trainer import NashTrainer

__all__ = ["play_against_reference"]


def play_against_reference(
    trainer: "NashTrainer", *, judge: Judge | None = None, progress: bool = False
) -> Matchup | None:
    """Let the current policy and the reference answer the held-out prompts, each process its share.

    Args:
        trainer: With an ``eval_dataset``.
        judge: Another judge than the training judge.
        progress: Show progress bars on standard error (first process only).

    Returns:
        The match-up over all prompts on every process; None when a single process had no prompt at all.

    Raises:
        ValueError: The trainer has no held-out prompts.
    """
    dataset = trainer.eval_prompts
    if dataset is None:
        raise ValueError("no eval_dataset was given, expected held-out prompts; pass eval_dataset to NashTrainer")
    args = trainer.settings
    prompts = list(dataset["prompt"])
    categories = list(dataset["category"]) if "category" in dataset.column_names else None
    mine = list(range(args.process_index, len(prompts), args.world_size))
    request = GenerationRequest(
        SamplingParams(args.max_completion_length, args.temperature, args.top_p, args.top_k),
        responses_per_prompt=args.eval_responses,
        seed=args.seed,
        first_row=args.process_index,
        row_step=args.world_size,
        progress=progress and args.process_index == 0,
    )
    with _engine(trainer) as engine:
        share = _play_share(trainer, engine, prompts, categories, mine, judge or trainer.judge, request)
    if args.world_size == 1:
        return share
    merged = _merge([part for part in gather_object([share]) if part is not None])
    # Shares come process by process; the dataset's order is that of one process.
    rows = np.concatenate([np.arange(rank, len(prompts), args.world_size) for rank in range(args.world_size)])
    return merged.select(np.argsort(rows).tolist())


@contextmanager
def _engine(trainer: "NashTrainer") -> Iterator[HoldingEngine | None]:
    """The run's engine if it has weights of its own; one that was not running is closed again."""
    engine = holding(trainer.rollout_engine)
    was_running = engine is not None and engine.running
    try:
        yield engine
    finally:
        if engine is not None and not was_running:
            engine.close()


def _play_share(
    trainer: "NashTrainer",
    engine: HoldingEngine | None,
    prompts: list[Any],
    categories: list[str] | None,
    mine: list[int],
    judge: Judge,
    request: GenerationRequest,
) -> Matchup | None:
    """This process's prompts; without any, it takes part where others need it."""
    autocast: Any = trainer.accelerator.autocast

    def player(name: str, role: Role) -> RolePlayer:
        return RolePlayer(name, trainer.roles, role, trainer.processing_class, autocast, engine)

    policy, reference = player("policy", "current"), player("reference", "reference")
    if not mine:
        if engine is not None or not isinstance(trainer.roles.sharding, WholeWeights):
            policy.accompany()
            reference.accompany()
        return None
    shown = None if categories is None else [categories[row] for row in mine]
    return play(policy, reference, [prompts[row] for row in mine], shown, judge, request=request)


def _merge(parts: list[Matchup]) -> Matchup:
    def side(name: str) -> Responses:
        sides: list[Any] = [getattr(part, name) for part in parts]
        return Responses(
            [group for s in sides for group in s.texts],
            np.concatenate([s.tokens_BG for s in sides]),
            np.concatenate([s.truncated_BG for s in sides]),
        )

    first = parts[0]
    return Matchup(
        prompts=[prompt for part in parts for prompt in part.prompts],
        categories=None if first.categories is None else [c for part in parts for c in part.categories or []],
        policy=side("policy"),
        opponent=side("opponent"),
        win_prob_BGH=np.concatenate([part.win_prob_BGH for part in parts]),
        judge=first.judge,
        policy_name=first.policy_name,
        opponent_name=first.opponent_name,
    )
