"""Players that are models: loaded, a role of a running training, or loaded when it is their turn."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from tqdm import tqdm

from magnetar.data import render_prompts
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players.base import Answer, GenerationRequest, StreamingPlayer, as_responses
from magnetar.evaluation.players.digests import model_digest
from magnetar.modeling.roles import Roles
from magnetar.rollout import HoldingEngine, TransformersEngine
from magnetar.types import Prompt, Role

__all__ = ["CheckpointPlayer", "ModelPlayer", "RolePlayer", "generate_responses", "model_answers"]


def model_answers(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    request: GenerationRequest,
    *,
    label: str = "model",
    engine: HoldingEngine | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Sample responses from a model, batch by batch.

    Prompts are batched by length, the longest first, so that padding is little and a lack of memory shows at once.

    Args:
        model: A causal language model; its training mode is restored afterwards.
        tokenizer: Its tokenizer, with a chat template if the prompts are conversational.
        prompts: B prompts.
        seeds: One for each prompt.
        request: How to sample.
        label: What the progress bar calls the model.
        engine: Draws in the model's place, all prompts at once; transformers draws without one.

    Yields:
        Index of a prompt and its answer.

    Raises:
        ValueError: The engine draws otherwise than is asked.
    """
    if engine is not None and engine.sampling != request.sampling:
        raise ValueError(f"the engine draws with {engine.sampling}, expected {request.sampling}")
    rendered = render_prompts(list(prompts), tokenizer)
    order = sorted(range(len(rendered)), key=lambda row: -len(rendered[row]))
    at_once = request.batch_size if engine is None else max(1, len(order))
    drawing = engine or TransformersEngine(tokenizer, request.sampling)
    bar = tqdm(total=len(order), desc=f"{label} answers", unit="prompt", disable=not request.progress, leave=False)
    with bar:
        for start in range(0, len(order), at_once):
            rows = order[start : start + at_once]
            rollouts = drawing.generate(
                model,
                [rendered[row] for row in rows],
                request.responses_per_prompt,
                [int(seeds[row]) for row in rows],
            )
            for position, row in enumerate(rows):
                yield (
                    row,
                    Answer(
                        list(rollouts.texts[position]),
                        [len(ids) for ids in rollouts.response_ids[position]],
                        [bool(cut) for cut in rollouts.truncated_BG[position]],
                    ),
                )
            bar.update(len(rows))


def generate_responses(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], request: GenerationRequest, *, label: str = "model"
) -> Responses:
    """Sample responses from a model.

    Args:
        model: A causal language model; its training mode is restored afterwards.
        tokenizer: Its tokenizer, with a chat template if the prompts are conversational.
        prompts: At least one prompt.
        request: How to sample.
        label: What the progress bar calls the model.

    Returns:
        The responses in the order of the prompts.
    """
    found = dict(model_answers(model, tokenizer, prompts, request.seeds(len(prompts)), request, label=label))
    return as_responses([found[row] for row in range(len(prompts))])


@dataclass(frozen=True)
class ModelPlayer(StreamingPlayer):
    """A model that is already loaded.

    Attributes:
        name: What tables call it.
        model: The model.
        tokenizer: Its tokenizer; players may have different ones.
    """

    name: str
    model: nn.Module
    tokenizer: Any

    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Sample from the model."""
        return model_answers(self.model, self.tokenizer, prompts, seeds, request, label=self.name)


@dataclass(frozen=True)
class RolePlayer(StreamingPlayer):
    """A role of a running training, so that current and reference can meet without a second copy of the base.

    Attributes:
        name: What tables call it.
        roles: The trainer's roles.
        role: Which of them plays.
        tokenizer: The trainer's tokenizer.
        autocast: Context of mixed precision, for generation only: judges compute in their own.
        engine: The run's engine, if it has weights of its own; transformers draws without one.
    """

    name: str
    roles: Roles
    role: Role
    tokenizer: Any
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    engine: HoldingEngine | None = None

    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Sample from the role."""
        if self.engine is not None:
            with self.roles.lend(self.role) as model:
                yield from model_answers(
                    model, self.tokenizer, prompts, seeds, request, label=self.name, engine=self.engine
                )
            return
        with self.roles.use(self.role, gather=True) as model, self.autocast():
            yield from model_answers(model, self.tokenizer, prompts, seeds, request, label=self.name)

    def accompany(self) -> None:
        """Take part without prompts where other processes answer: they may need its weights, or share its engine."""
        if self.engine is not None:
            with self.roles.lend(self.role) as model:
                self.engine.generate(model, [], 1, [])
            return
        with self.roles.use(self.role, gather=True):
            pass


@dataclass(frozen=True)
class CheckpointPlayer(StreamingPlayer):
    """A model that is loaded when it is its turn and released afterwards, so that only one is in memory at a time.

    Attributes:
        spec: "demo", a Hub id, a model folder or an adapter folder.
        dtype: Precision of the weights, as `magnetar.modeling.loading.load_policy` takes it.
    """

    spec: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The specification."""
        return self.spec

    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer and template by their content, and the precision."""
        return {"model": model_digest(self.spec), "dtype": self.dtype}

    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Load, sample, release."""
        with self.loaded() as (model, tokenizer):
            try:
                yield from model_answers(model, tokenizer, prompts, seeds, request, label=self.spec)
            finally:
                del model

    @contextmanager
    def loaded(self) -> Iterator[tuple[Any, Any]]:
        """The model, on a GPU if there is one, and its tokenizer.

        Afterwards its memory is given back, also to other processes, if the caller has dropped the model by then.
        """
        from magnetar.modeling.loading import load_policy

        model, tokenizer = cast(tuple[Any, Any], load_policy(self.spec, dtype=self.dtype))
        if torch.cuda.is_available():
            model = model.to("cuda")
        try:
            yield model, tokenizer
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
