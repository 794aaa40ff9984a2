"""How far each policy of a suite is from the reference: KL divergence on the suite's prompts, by its responses."""

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from magnetar.data.splits import prompt_key
from magnetar.evaluation.distance import kl_of_answers
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players import Answer, CheckpointPlayer, GenerationRequest, StreamingPlayer
from magnetar.evaluation.players.rendering import player_tokenizer
from magnetar.evaluation.players.sheets import AnswerSheet
from magnetar.evaluation.suite.answers import file_name
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.costs import mean_over_prompts
from magnetar.evaluation.suite.entrants import Entrants
from magnetar.evaluation.suite.results import PolicyRecord
from magnetar.types import Prompt

__all__ = ["unmeasurable", "with_distances"]

DISTANCES = "distances"


def unmeasurable(config: SuiteConfig, entrants: Entrants) -> dict[str, str]:
    """Which policies have no distance to the reference, and why; only tokenizers are loaded.

    Args:
        config: Of the suite, with distances asked for.
        entrants: Who takes part.

    Returns:
        Policy → reason, in words that follow the policy's name.
    """
    (reference,) = entrants.members[str(config.reference)]
    vocabulary = player_tokenizer(entrants.players[reference]).get_vocab()
    reasons = {}
    for label, runs in entrants.members.items():
        for player in (entrants.players[run] for run in runs):
            if not isinstance(player, CheckpointPlayer):
                reasons[label] = "answers from elsewhere, so that its probabilities are not known"
            elif player_tokenizer(player).get_vocab() != vocabulary:
                reasons[label] = f"has another vocabulary than {config.reference}"
    return reasons


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
    with_reference = _Reference(reference)
    found = dict(records)
    rows = _drawn(config, len(prompts))
    prompts = [prompts[row] for row in rows]
    for label, runs in entrants.members.items():
        if label == config.reference or label in left_out:
            continue
        kl = [
            _run_distance(
                config, run, entrants.players[run], prompts, responses[run].select(rows), request, with_reference
            )
            for run in runs
        ]
        found[label] = replace(found[label], distance=_mean(np.stack(kl), config))
    return found


class _Reference:
    """The reference's model, loaded when it is first needed."""

    def __init__(self, player: CheckpointPlayer) -> None:
        self.identity = player.identity()
        self._player = player
        self._model: Any = None

    def model(self) -> Any:
        if self._model is None:
            self._model, _ = _load(self._player)
        return self._model


def _run_distance(
    config: SuiteConfig,
    run: str,
    player: StreamingPlayer,
    prompts: Sequence[Prompt],
    responses: Responses,
    request: GenerationRequest,
    reference: _Reference,
) -> np.ndarray:
    """Divergences of one run's responses, shape (B, G), kept on disk as they come."""
    assert isinstance(player, CheckpointPlayer)
    folder = config.output_dir / DISTANCES
    folder.mkdir(parents=True, exist_ok=True)
    sampled = {"sampling": vars(request.sampling), "responses": request.responses_per_prompt, "seed": request.seed}
    sheet = AnswerSheet(
        folder / f"{file_name(run)}.jsonl",
        {**player.identity(), "name": run, "reference": dict(reference.identity), **sampled},
    )
    keys = [prompt_key(prompt) for prompt in prompts]
    missing = [row for row, key in enumerate(keys) if key not in sheet.lines]
    if missing:
        answers = [
            Answer(responses.texts[row], None, None if cut is None else [bool(one) for one in cut[row]])
            for cut in [responses.truncated_BG]
            for row in missing
        ]
        model, tokenizer = _load(player)
        try:
            measured = kl_of_answers(
                model,
                reference.model(),
                tokenizer,
                [prompts[row] for row in missing],
                answers,
                label=run,
                progress=request.progress,
            )
            for place, values in measured:
                sheet.add(keys[missing[place]], {"kl": values})
        finally:
            del model
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return np.array([sheet.lines[key]["kl"] for key in keys], dtype=np.float64)


def _drawn(config: SuiteConfig, prompts: int) -> list[int]:
    """Rows of the prompts on which distances are measured."""
    if config.distance is True or config.distance >= prompts:
        return list(range(prompts))
    return sorted(np.random.default_rng(config.prompts.seed).permutation(prompts)[: config.distance].tolist())


def _mean(kl_SBG: np.ndarray, config: SuiteConfig) -> Estimate:
    return mean_over_prompts(kl_SBG.mean(-1), config.intervals, bounds=(0.0, np.inf))


def _load(player: CheckpointPlayer) -> tuple[Any, Any]:
    from magnetar.modeling.loading import load_policy

    model, tokenizer = load_policy(player.spec, dtype=player.dtype)
    return (model.to("cuda") if torch.cuda.is_available() else model), tokenizer
