"""Who takes part in a comparison, and what each one answered: kept on disk as soon as it exists."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from tqdm import tqdm

from magnetar.data import render_prompts
from magnetar.data.splits import prompt_key
from magnetar.evaluation.distance import common_layout, response_divergences
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players.digests import WEIGHTS, folder_digest
from magnetar.evaluation.players.sheets import AnswerSheet, answer_seed
from magnetar.modeling.loading import load_policy, locate_model
from magnetar.modeling.packing import LayoutName
from magnetar.rollout import SamplingParams, TransformersEngine
from magnetar.types import Prompt

__all__ = ["REFERENCE", "AnswerSettings", "Answers", "Contestant", "collect_answers"]

REFERENCE = "reference"
LARGE = 10_000_000  # weights of a model whose memory is wanted back before the next one is loaded


@dataclass(frozen=True)
class Contestant:
    """A policy that answers.

    Attributes:
        name: Unique, and part of a file's name.
        spec: What `load_policy` loads: a run's folder, or the model that training started from.
        measure_kl: Whether its KL to the reference is wanted, which costs two more passes over its responses.
    """

    name: str
    spec: str
    measure_kl: bool = True


@dataclass(frozen=True)
class AnswerSettings:
    """How every contestant is sampled.

    Attributes:
        sampling: Temperature, truncation and length limits, the same for all.
        responses: To each prompt, at least 1.
        seed: Of the sampling. Contestants have seeds of their own, made from it and their names: with equal ones equal
            policies would give equal answers, and nothing would be compared.
        dtype: Precision of the weights.
        batch_size: Prompts at a time; changes speed and memory only.
        progress: Show bars on standard error.
    """

    sampling: SamplingParams
    responses: int
    seed: int = 0
    dtype: str = "float32"
    batch_size: int = 16
    progress: bool = False


@dataclass(frozen=True)
class Answers:
    """What one contestant answered.

    Attributes:
        responses: Texts, lengths and truncation, B prompts × G responses.
        kl_nats_BG: For each response the KL to the reference along its tokens; zero for the reference,
            NaN where it was not wanted.
    """

    responses: Responses
    kl_nats_BG: NDArray[np.float64]

    def first(self, count: int) -> "Answers":
        """Those to the first prompts."""
        return Answers(self.responses.select(range(count)), self.kl_nats_BG[:count])


def collect_answers(
    contestants: Sequence[Contestant],
    prompts: Sequence[Prompt],
    reference: str,
    folder: Path,
    settings: AnswerSettings,
) -> dict[str, Answers]:
    """Let contestants answer what they have not answered yet, and read back all of it.

    Answers are found by prompt, so that more prompts or further contestants cost only what is new; a contestant whose
    weights have changed, or who is sampled otherwise, answers again. Each batch is written when it is finished.

    Args:
        contestants: With different names.
        prompts: At least one; rendered with each contestant's tokenizer.
        reference: Model that training started from, to which the KL is measured.
        folder: Where answers are kept, one file for each contestant.
        settings: How they are sampled.

    Returns:
        Name → answers, in the order of the prompts.

    Raises:
        ModelError: A model that cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [prompt_key(prompt) for prompt in prompts]
    found: dict[str, Answers] = {}
    base: list[Any] = []  # the reference model, loaded when it is first needed

    def reference_model() -> Any:
        if not base:
            base.append(_on_device(load_policy(reference, dtype=settings.dtype)[0]))
        return base[0]

    for contestant in contestants:
        sheet = AnswerSheet(folder / f"{contestant.name}.jsonl", _fingerprint(contestant, reference, settings))
        missing = [row for row, key in enumerate(keys) if key not in sheet.lines]
        if missing:
            _answer(contestant, [prompts[row] for row in missing], reference, reference_model, sheet, settings)
        found[contestant.name] = _read(sheet, keys)
    return found


def _answer(
    contestant: Contestant,
    prompts: Sequence[Prompt],
    reference: str,
    reference_model: Callable[[], Any],
    sheet: AnswerSheet,
    settings: AnswerSettings,
) -> None:
    loaded, tokenizer = load_policy(contestant.spec, dtype=settings.dtype)
    model = _on_device(loaded)
    del loaded
    try:
        engine = TransformersEngine(cast(Any, tokenizer), settings.sampling)
        rendered = render_prompts(list(prompts), tokenizer)
        measure = _kl_measure(contestant, model, reference, reference_model, tokenizer, settings)
        # Long prompts first, so that batches are of like length and a lack of memory shows at once.
        order = sorted(range(len(prompts)), key=lambda row: -len(rendered[row]))
        bar = tqdm(
            total=len(order),
            desc=f"{contestant.name} answers",
            unit="prompt",
            disable=not settings.progress,
            leave=False,
        )
        with bar:
            for start in range(0, len(order), settings.batch_size):
                rows = order[start : start + settings.batch_size]
                ids = [rendered[row] for row in rows]
                seeds = [answer_seed(settings.seed, contestant.name, prompts[row]) for row in rows]
                rollouts = engine.generate(model, ids, settings.responses, seeds)
                kl_nats = measure(ids, rollouts.response_ids)
                for place, row in enumerate(rows):
                    sheet.add(
                        prompt_key(prompts[row]),
                        {
                            "texts": rollouts.texts[place],
                            "tokens": [len(tokens) for tokens in rollouts.response_ids[place]],
                            "truncated": [bool(cut) for cut in rollouts.truncated_BG[place]],
                            "kl_nats": kl_nats[place],
                        },
                    )
                bar.update(len(rows))
    finally:
        large = sum(weight.numel() for weight in model.parameters()) > LARGE
        del model
        if large:  # a walk over all objects, which costs more than a small model does
            gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _kl_measure(
    contestant: Contestant,
    model: Any,
    reference: str,
    reference_model: Callable[[], Any],
    tokenizer: Any,
    settings: AnswerSettings,
) -> Callable[[list[list[int]], list[list[list[int]]]], list[list[float]]]:
    """A function from prompts and responses to KL(policy‖reference) of each response, nats."""
    if contestant.spec == reference or not contestant.measure_kl:
        nothing = 0.0 if contestant.spec == reference else float("nan")
        return lambda prompt_ids, response_ids: [[nothing] * len(group) for group in response_ids]
    below = isinstance(model, PeftModel) and _lies_below(reference, contestant.spec)

    def other() -> AbstractContextManager[Any]:
        return _without_adapter(model) if below else nullcontext(reference_model())

    @cache
    def layout() -> LayoutName:
        return common_layout(model, other)

    def measure(prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> list[list[float]]:
        values = dict(
            response_divergences(
                model,
                other,
                prompt_ids,
                response_ids,
                temperature=settings.sampling.temperature,
                pad_token_id=tokenizer.pad_token_id,
                layout=layout(),
            )
        )
        return [values[row] for row in range(len(prompt_ids))]

    return measure


def _lies_below(reference: str, adapter: str) -> bool:
    """Whether a model is the base of an adapter, so that it is at hand with the adapter switched off."""
    start, base = locate_model(reference, None), locate_model(adapter, None).base
    return start.base is None and base is not None and Path(start.place).resolve() == Path(base.place).resolve()


@contextmanager
def _without_adapter(model: Any) -> Iterator[Any]:
    with model.disable_adapter():
        yield model


def _on_device(model: Any) -> Any:
    return model.to("cuda") if torch.cuda.is_available() else model


def _fingerprint(contestant: Contestant, reference: str, settings: AnswerSettings) -> dict[str, Any]:
    """What decides a contestant's answers."""
    return {
        "weights": _weights_digest(contestant.spec),
        "measure_kl": contestant.measure_kl,
        "reference": _weights_digest(reference),
        "sampling": vars(settings.sampling),
        "responses": settings.responses,
        "seed": settings.seed,
        "dtype": settings.dtype,
    }


def _weights_digest(spec: str) -> str:
    """Digest of a folder's weights; a name that is no folder stands for itself."""
    folder = Path(spec)
    return folder_digest(folder, WEIGHTS) if folder.is_dir() else spec


def _read(sheet: AnswerSheet, keys: Sequence[str]) -> Answers:
    """The answers to some prompts."""
    rows = [sheet.lines[key] for key in keys]
    responses = Responses(
        [list(row["texts"]) for row in rows],
        np.array([row["tokens"] for row in rows], dtype=np.int64),
        np.array([row["truncated"] for row in rows], dtype=np.bool_),
    )
    return Answers(responses, np.array([row["kl_nats"] for row in rows], dtype=np.float64))
