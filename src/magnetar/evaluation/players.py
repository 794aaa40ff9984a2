"""Who can play a match-up: a loaded model, a role of a running training, a model to be loaded, or a file of answers."""

import gc
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from magnetar.data import render_prompts
from magnetar.errors import DataError, ModelError
from magnetar.evaluation.matchup import Responses
from magnetar.modeling.roles import Roles
from magnetar.rollout import SamplingParams, TransformersEngine
from magnetar.types import Prompt, Role

__all__ = [
    "CheckpointPlayer",
    "FilePlayer",
    "GenerationRequest",
    "ModelPlayer",
    "Player",
    "RolePlayer",
    "check_player_spec",
    "generate_responses",
    "make_player",
]

_FILE_PREFIX = "file:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class GenerationRequest:
    """How responses are to be sampled.

    Attributes:
        sampling: Temperature, nucleus and length limits.
        responses_per_prompt: Responses per prompt, at least 1.
        seed: Seed of this player's sampling; two players need different ones (see `play`).
        first_row: Place of the first prompt in the whole dataset, when this process plays only a share of it: prompt i
            is sampled as row ``first_row + i · row_step``, so that answers do not depend on the number of processes.
        row_step: See ``first_row``.
        batch_size: Prompts per forward batch; changes speed and memory only, each prompt has a seed of its own.
        progress: Show a progress bar on standard error.
    """

    sampling: SamplingParams
    responses_per_prompt: int = 1
    seed: int = 0
    first_row: int = 0
    row_step: int = 1
    batch_size: int = 16
    progress: bool = False


class Player(Protocol):
    """Anything that answers prompts."""

    @property
    def name(self) -> str:
        """What tables call the player."""
        ...

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Answer each prompt ``request.responses_per_prompt`` times."""
        ...


def generate_responses(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], request: GenerationRequest, *, label: str = "model"
) -> Responses:
    """Sample responses from a model.

    Prompts are batched by length, the longest first, so that padding is little and a lack of memory shows at once.

    Args:
        model: A causal language model; its training mode is restored afterwards.
        tokenizer: Its tokenizer, with a chat template if the prompts are conversational.
        prompts: At least one prompt.
        request: How to sample.
        label: What the progress bar calls the model.

    Returns:
        The responses in the order of the prompts.
    """
    rendered = render_prompts(list(prompts), tokenizer)
    end = request.first_row + len(rendered) * request.row_step
    seeds = np.random.SeedSequence(request.seed).generate_state(end)[request.first_row :: request.row_step].tolist()
    order = sorted(range(len(rendered)), key=lambda row: -len(rendered[row]))
    engine = TransformersEngine(tokenizer, request.sampling)
    texts: list[list[str]] = [[] for _ in rendered]
    shape = (len(rendered), request.responses_per_prompt)
    tokens, truncated = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    bar = tqdm(total=len(order), desc=f"{label} answers", unit="prompt", disable=not request.progress, leave=False)
    with bar:
        for start in range(0, len(order), request.batch_size):
            rows = order[start : start + request.batch_size]
            rollouts = engine.generate(
                model,
                [rendered[row] for row in rows],
                request.responses_per_prompt,
                [int(seeds[row]) for row in rows],
            )
            for position, row in enumerate(rows):
                texts[row] = list(rollouts.texts[position])
                tokens[row] = [len(ids) for ids in rollouts.response_ids[position]]
                truncated[row] = rollouts.truncated_BG[position]
            bar.update(len(rows))
    return Responses(texts, tokens, truncated)


@dataclass(frozen=True)
class ModelPlayer:
    """A model that is already loaded.

    Attributes:
        name: What tables call it.
        model: The model.
        tokenizer: Its tokenizer; players may have different ones.
    """

    name: str
    model: nn.Module
    tokenizer: Any

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Sample from the model."""
        return generate_responses(self.model, self.tokenizer, prompts, request, label=self.name)


@dataclass(frozen=True)
class RolePlayer:
    """A role of a running training, so that current and reference can meet without a second copy of the base.

    Attributes:
        name: What tables call it.
        roles: The trainer's roles.
        role: Which of them plays.
        tokenizer: The trainer's tokenizer.
        autocast: Context of mixed precision, for generation only: judges compute in their own.
    """

    name: str
    roles: Roles
    role: Role
    tokenizer: Any
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Sample from the role."""
        with self.roles.use(self.role, gather=True) as model, self.autocast():
            return generate_responses(model, self.tokenizer, prompts, request, label=self.name)


@dataclass(frozen=True)
class CheckpointPlayer:
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

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Load, sample, release."""
        from magnetar.modeling.loading import load_policy

        loaded, tokenizer = load_policy(self.spec, dtype=self.dtype)
        model: Any = loaded
        del loaded  # so that the last reference goes with `model`
        if torch.cuda.is_available():
            model = model.to("cuda")
        try:
            return generate_responses(model, tokenizer, prompts, request, label=self.spec)
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@dataclass(frozen=True)
class FilePlayer:
    """Answers read from a JSON-lines file of objects with ``prompt`` and ``response``; a prompt may occur repeatedly.

    Lengths in tokens and truncation are unknown, and reported so.

    Attributes:
        path: The file, ``.jsonl`` or ``.jsonl.gz``.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Look the prompts up; the first ``responses_per_prompt`` answers of each count, in the file's order.

        Raises:
            DataError: If a prompt has too few answers or a line is not as described.
        """
        answers: dict[str, list[str]] = {}
        for prompt, response in self._lines():
            answers.setdefault(_key(prompt), []).append(response)
        count = request.responses_per_prompt
        short = [prompt for prompt in prompts if len(answers.get(_key(prompt), [])) < count]
        if short:
            found = len(answers.get(_key(short[0]), []))
            raise DataError(
                f"{self.path} has too few answers for {len(short)} of {len(prompts)} prompts; the first, "
                f"{json.dumps(short[0], ensure_ascii=False)[:80]}, has {found}, expected {count}. Prompts must equal "
                "the dataset's exactly; use --limit or --responses_per_prompt to ask for fewer"
            )
        return Responses([answers[_key(prompt)][:count] for prompt in prompts])

    def _lines(self) -> Iterator[tuple[Prompt, str]]:
        opener = gzip.open if self.path.suffix == ".gz" else open
        with opener(self.path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    prompt, response = record["prompt"], record["response"]
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self.path}, line {number}: {type(error).__name__}: {error}; expected an object like "
                        '{"prompt": "...", "response": "..."}'
                    ) from error
                if not isinstance(response, str):
                    raise DataError(f"{self.path}, line {number}: response is {response!r}, expected a string")
                yield prompt, response


def check_player_spec(spec: str) -> None:
    """Check what can be checked about a player without loading it.

    Args:
        spec: "demo", a Hub id, a model folder, an adapter folder, or ``file:RESPONSES.jsonl``.

    Raises:
        DataError: If the file of responses does not exist.
        ModelError: If a folder holds no model, or the text can be neither a folder nor a Hub id.
    """
    if spec.startswith(_FILE_PREFIX):
        path = Path(spec.removeprefix(_FILE_PREFIX))
        if not path.is_file():
            raise DataError(
                f"no file {str(path)!r}; expected file:RESPONSES.jsonl with prompt and response on each line"
            )
        return
    path = Path(spec).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"folder {spec!r} has neither config.json nor adapter_config.json; is it a run's checkpoint?"
            )
        return
    local = spec.startswith((".", "/", "~")) or ("/" in spec and path.parent.is_dir())
    if local or not _HUB_ID.fullmatch(spec):
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if local and path.parent.is_dir() else []
        nearest = get_close_matches(path.name, beside, n=1, cutoff=0.5)
        hint = f"did you mean {str(path.parent / nearest[0])!r}? " if nearest else ""
        raise ModelError(
            f"no folder {spec!r}, and it is no Hub id; {hint}expected 'demo', OWNER/NAME, a model or adapter "
            "folder, or file:RESPONSES.jsonl"
        )


def make_player(spec: str, *, dtype: str = "float32") -> Player:
    """The player that a specification names; models are loaded when they answer.

    Args:
        spec: As for `check_player_spec`, which is called first.
        dtype: Precision of a model's weights.

    Returns:
        The player.
    """
    check_player_spec(spec)
    if spec.startswith(_FILE_PREFIX):
        return FilePlayer(Path(spec.removeprefix(_FILE_PREFIX)))
    return CheckpointPlayer(spec, dtype)


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False)
