"""How far each policy of a suite is from the reference: KL divergence on the suite's prompts, by its responses."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from magnetar.data.splits import prompt_key
from magnetar.evaluation.distance import kl_of_answers
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players import Answer, CheckpointPlayer, GenerationRequest, StreamingPlayer
from magnetar.evaluation.players.rendering import player_tokenizer
from magnetar.evaluation.players.sheets import AnswerSheet
from magnetar.evaluation.suite.answers import file_name
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.costs import FloatArray, mean_over_prompts
from magnetar.evaluation.suite.entrants import Entrants
from magnetar.evaluation.suite.results import PolicyRecord
from magnetar.modeling.loading import locate_model
from magnetar.types import Prompt

__all__ = ["unmeasurable", "with_distances"]

DISTANCES = "distances"
MEASURE = "exact divergence of next tokens along the responses"


def unmeasurable(config: SuiteConfig, entrants: Entrants) -> dict[str, str]:
    """Which policies have no distance to the reference, and why; only tokenizers and configurations are read.

    Args:
        config: Of the suite, with distances asked for.
        entrants: Who takes part.

    Returns:
        Policy → reason, in words that follow the policy's name.
    """
    (name,) = entrants.members[str(config.reference)]
    reference = entrants.players[name]
    assert isinstance(reference, CheckpointPlayer)
    vocabulary, width = player_tokenizer(reference).get_vocab(), _logits(reference)
    reasons = {}
    for label, runs in entrants.members.items():
        for player in (entrants.players[run] for run in runs):
            if not isinstance(player, CheckpointPlayer):
                reasons[label] = "answers from elsewhere, so that its probabilities are not known"
            elif player_tokenizer(player).get_vocab() != vocabulary:
                reasons[label] = f"has another vocabulary than {config.reference}"
            elif _logits(player) != width:
                reasons[label] = f"has {_logits(player)} logits and {config.reference} {width}, padding included"
    return reasons


def _logits(player: CheckpointPlayer) -> int:
    """Width of a model's output layer, by its configuration."""
    from transformers import AutoConfig

    source = locate_model(player.spec, None)
    return AutoConfig.from_pretrained((source.base or source).place).get_text_config().vocab_size


def with_distances(
    config: SuiteConfig,
    records: Mapping[str, PolicyRecord],
    entrants: Entrants,
    prompts: Sequence[Prompt],
    responses: Mapping[str, Responses],
    request: GenerationRequest,
    left_out: Mapping[str, str],
) -> dict[str, PolicyRecord]:
    """Measure the distances, and put them into the records; what was measured before is read back.

    Two models are in memory at a time: the reference, and one policy.

    Args:
        config: Of the suite, with distances asked for.
        records: Of the policies.
        entrants: Who answered.
        prompts: B prompts.
        responses: Run → responses to them.
        request: How they were sampled.
        left_out: Policies that have none; see `unmeasurable`.

    Returns:
        Name → record.
    """
    (name,) = entrants.members[str(config.reference)]
    reference = entrants.players[name]
    assert isinstance(reference, CheckpointPlayer)
    rows = _drawn(config, len(prompts))
    found = dict(records)
    with ExitStack() as stack:

        @cache
        def reference_model() -> Any:
            """Loaded when it is first needed, and kept to the end."""
            return stack.enter_context(reference.loaded())[0]

        for label, runs in entrants.members.items():
            if label == config.reference or label in left_out:
                continue
            kl = []
            for run in runs:
                sheet = _sheet(config, run, entrants.players[run], reference, request)
                asked = _Asked(run, [prompts[row] for row in rows], responses[run].select(rows))
                kl.append(_run_distance(asked, entrants.players[run], reference_model, sheet, request.progress))
            kl_SB = np.stack(kl).mean(-1)
            found[label] = replace(
                found[label],
                distance=mean_over_prompts(kl_SB, config.intervals, bounds=(0.0, np.inf)),
                run_distances=tuple(kl_SB.mean(-1).tolist()),
            )
    return found


@dataclass(frozen=True)
class _Asked:
    """A run, and its responses to the prompts on which distances are measured."""

    run: str
    prompts: Sequence[Prompt]
    responses: Responses


def _sheet(
    config: SuiteConfig, run: str, player: StreamingPlayer, reference: CheckpointPlayer, request: GenerationRequest
) -> AnswerSheet:
    """What is known of a run's distances, by everything that decides them."""
    folder = config.output_dir / DISTANCES
    folder.mkdir(parents=True, exist_ok=True)
    sampled = {"sampling": vars(request.sampling), "responses": request.responses_per_prompt, "seed": request.seed}
    decides = {
        **(player.identity() or {}),
        "name": run,
        "measure": MEASURE,
        "reference": dict(reference.identity()),
        **sampled,
    }
    return AnswerSheet(folder / f"{file_name(run)}.jsonl", decides)


def _run_distance(
    asked: _Asked, player: StreamingPlayer, reference_model: Callable[[], Any], sheet: AnswerSheet, progress: bool
) -> FloatArray:
    """Divergences of one run's responses, shape (B, G), kept on disk as they come."""
    assert isinstance(player, CheckpointPlayer)
    keys = [prompt_key(prompt) for prompt in asked.prompts]
    of = [_answers_digest(asked.responses, row) for row in range(len(keys))]
    missing = [row for row, key in enumerate(keys) if sheet.lines.get(key, {}).get("of") != of[row]]
    if missing:
        cut = asked.responses.truncated_BG
        answers = [
            Answer(asked.responses.texts[row], None, None if cut is None else cut[row].tolist()) for row in missing
        ]
        with player.loaded() as (model, tokenizer):
            measured = kl_of_answers(
                model,
                reference_model(),
                tokenizer,
                [asked.prompts[row] for row in missing],
                answers,
                label=asked.run,
                progress=progress,
            )
            try:
                for place, values in measured:
                    sheet.add(keys[missing[place]], {"kl": values, "of": of[missing[place]]})
            finally:
                del model, measured
    return np.array([sheet.lines[key]["kl"] for key in keys], dtype=np.float64)


def _answers_digest(responses: Responses, row: int) -> str:
    """Of the responses to a prompt: another set of them is at another distance."""
    cut = None if responses.truncated_BG is None else responses.truncated_BG[row].tolist()
    return hashlib.blake2b(json.dumps([responses.texts[row], cut]).encode(), digest_size=8).hexdigest()


def _drawn(config: SuiteConfig, prompts: int) -> list[int]:
    """Rows of the prompts on which distances are measured."""
    if config.distance is True or config.distance >= prompts:
        return list(range(prompts))
    return sorted(np.random.default_rng(config.prompts.seed).permutation(prompts)[: config.distance].tolist())
