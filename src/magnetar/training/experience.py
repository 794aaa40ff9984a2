"""One batch of experience: prompts → responses → win probabilities → log-probabilities under the other roles."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from magnetar.errors import JudgeError
from magnetar.judges import Judge, cyclic_triple_share
from magnetar.methods import Method, group_opponent_weights, leave_out_unanswered
from magnetar.modeling.logprobs import TokenLogProbs, response_logprobs, split_micro_batches
from magnetar.modeling.roles import Roles
from magnetar.rollout import RolloutEngine, Rollouts
from magnetar.types import Prompt, Role

__all__ = ["Collector", "Experience", "PassSettings"]

OPPONENT_STREAM = 1  # keeps the opponents' random numbers apart from the responses'


@dataclass(frozen=True)
class PassSettings:
    """How log-probability passes run.

    Attributes:
        temperature: The policy is the model at this temperature.
        layout: "packed" or "padded".
        max_tokens: Token budget of one pass.
        pad_token_id: Of the tokenizer.
    """

    temperature: float
    layout: str
    max_tokens: int
    pad_token_id: int

    def micro_batches(self, prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> list[list[int]]:
        """Split groups into passes within the token budget: lists of prompt indices."""
        return [
            list(part)
            for part in split_micro_batches(prompt_ids, response_ids, self.max_tokens, self.layout)  # type: ignore[arg-type]
        ]

    def run(
        self,
        model: nn.Module,
        prompt_ids: list[list[int]],
        response_ids: list[list[list[int]]],
        *,
        full: bool = False,
        entropy: bool = True,
    ) -> TokenLogProbs:
        """Log-probabilities of responses in one pass; ``full`` keeps the whole next-token distributions."""
        return response_logprobs(
            model,
            prompt_ids,
            response_ids,
            temperature=self.temperature,
            layout=self.layout,  # type: ignore[arg-type]
            full=full,
            entropy=entropy,
            pad_token_id=self.pad_token_id,
        )


@dataclass(frozen=True)
class Experience:
    """What one process learned from its share of an update's prompts, ready for one or more optimiser steps.

    Attributes:
        positions: Place of each prompt in the stream.
        prompts: The prompts as the judge saw them.
        prompt_ids: Their tokens.
        response_ids: Tokens of each response, B × G lists.
        texts: Decoded responses.
        truncated_BG: Whether a response hit the length limit.
        win_prob_BGH: P(response g beats opponent h).
        opponent_weight_BGH: Weights of the opponents; rows sum to one; zero for a pair that the judge left unanswered.
        response_weight_BG: Weights of the responses; rows sum to one, or to zero where nothing was answered.
        cyclic_triples: Share of response triples with a cyclic majority; NaN when there is none to look at, or the
            opponents are another role.
        behavior_logp_BGT: Under the sampling policy; None when it is the policy of the only optimiser step.
        magnet_logp_BGT: Under the magnet; None when not needed or when the magnet is the sampling policy.
        reference_logp_BGT: Under the reference; None when it is the sampling policy.
        magnet_is_behavior: The magnet equals the sampling policy.
        reference_is_behavior: The reference equals the sampling policy.
        finite: Whether the sampling probabilities of all responses were finite; else the responses are meaningless.
        seconds: Time of each stage.
    """

    positions: list[int]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    response_ids: list[list[list[int]]]
    texts: list[list[str]]
    truncated_BG: Tensor
    win_prob_BGH: Tensor
    opponent_weight_BGH: Tensor
    response_weight_BG: Tensor
    cyclic_triples: float
    behavior_logp_BGT: Tensor | None
    magnet_logp_BGT: Tensor | None
    reference_logp_BGT: Tensor | None
    magnet_is_behavior: bool
    reference_is_behavior: bool
    finite: bool
    seconds: dict[str, float]

    def to_state(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Experience":
        """Inverse of `to_state`."""
        return cls(**state)


class _Autocast(Protocol):
    def __call__(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class Collector:
    """Plays one batch of prompts with the policy as it is now.

    Attributes:
        roles: The policy's parts.
        engine: Generates responses.
        judge: Compares them.
        method: Names the opponent and what the objective needs.
        passes: How log-probability passes run.
        group_size: Responses to each prompt.
        num_opponents: Responses of the opponent role to each prompt, when it is not the group itself.
        seed: Of the run; with a prompt's position it seeds that prompt's responses.
        record_behavior: Whether the sampling policy's log-probabilities are needed later (several inner epochs).
        autocast: Context of mixed precision.
    """

    roles: Roles
    engine: RolloutEngine
    judge: Judge
    method: Method
    passes: PassSettings
    group_size: int
    num_opponents: int
    seed: int
    record_behavior: bool
    autocast: _Autocast

    def collect(self, rows: Sequence[dict[str, Any]]) -> Experience:
        """Generate, judge, and measure log-probabilities.

        Args:
            rows: Rows of a `PromptStream`.

        Returns:
            The experience, tensors on the CPU in float64 where they are weights or win probabilities.

        Raises:
            JudgeError: The judge's answer is not a matrix of win probabilities.
        """
        prompts = [row["prompt"] for row in rows]
        prompt_ids = [row["prompt_ids"] for row in rows]
        positions = [int(row["position"]) for row in rows]
        seconds: dict[str, float] = {}

        started = time.perf_counter()
        rollouts = self._generate("current", prompt_ids, self.group_size, positions, stream=0)
        opponents = None
        if not self.method.opponent.is_self_play:
            role = self.method.opponent.role
            assert role != "mixture"  # the configuration refuses it
            opponents = self._generate(role, prompt_ids, self.num_opponents, positions, stream=OPPONENT_STREAM)
        seconds["rollout"] = time.perf_counter() - started

        started = time.perf_counter()
        win_prob_BGH = self._judge(prompts, rollouts, opponents)
        seconds["judge"] = time.perf_counter() - started

        started = time.perf_counter()
        magnet_is_behavior = self.method.sampled_objective.needs_magnet and self.roles.same("magnet", "current")
        reference_is_behavior = self.roles.same("reference", "current")
        behavior_logp = self._role_logp("current", rollouts) if self.record_behavior else None
        magnet_logp = None
        if self.method.sampled_objective.needs_magnet and not magnet_is_behavior:
            magnet_logp = self._role_logp("magnet", rollouts)
        reference_logp = None
        if not reference_is_behavior:
            shared = magnet_logp is not None and self.roles.same("reference", "magnet")
            reference_logp = magnet_logp if shared else self._role_logp("reference", rollouts)
        seconds["logprobs"] = time.perf_counter() - started

        b, g = len(prompts), len(rollouts.response_ids[0])
        exact = None if rollouts.weight_BG is None else torch.as_tensor(rollouts.weight_BG, dtype=torch.float64)
        if opponents is None:
            opponent_weight = group_opponent_weights(exact, (b, g))
        else:
            h = win_prob_BGH.shape[-1]
            weight_BH = opponents.weight_BG if opponents.weight_BG is not None else np.full((b, h), 1.0 / h)
            opponent_weight = torch.as_tensor(weight_BH, dtype=torch.float64)[:, None, :].expand(b, g, h)
        cyclic = float(cyclic_triple_share(win_prob_BGH)) if opponents is None and g >= 3 else float("nan")
        win_prob, opponent_weight, response_weight = leave_out_unanswered(
            torch.as_tensor(win_prob_BGH, dtype=torch.float64),
            opponent_weight,
            exact if exact is not None else torch.full((b, g), 1.0 / g, dtype=torch.float64),
        )
        return Experience(
            positions=positions,
            prompts=prompts,
            prompt_ids=prompt_ids,
            response_ids=rollouts.response_ids,
            texts=rollouts.texts,
            truncated_BG=torch.as_tensor(rollouts.truncated_BG),
            win_prob_BGH=win_prob,
            opponent_weight_BGH=opponent_weight,
            response_weight_BG=response_weight,
            cyclic_triples=cyclic,
            behavior_logp_BGT=behavior_logp,
            magnet_logp_BGT=magnet_logp,
            reference_logp_BGT=reference_logp,
            magnet_is_behavior=magnet_is_behavior,
            reference_is_behavior=reference_is_behavior,
            finite=all(math.isfinite(v) for group in rollouts.sampling_logp for values in group for v in values),
            seconds=seconds,
        )

    def _generate(
        self, role: Role, prompt_ids: list[list[int]], count: int, positions: list[int], *, stream: int
    ) -> Rollouts:
        seeds = [_seed(self.seed, position, stream) for position in positions]
        with torch.no_grad(), self.roles.use(role) as model, self.autocast():
            return self.engine.generate(model, prompt_ids, count, seeds)

    def _judge(self, prompts: list[Prompt], rollouts: Rollouts, opponents: Rollouts | None) -> np.ndarray:
        against = rollouts if opponents is None else opponents
        expected = (len(prompts), len(rollouts.texts[0]), len(against.texts[0]))
        try:
            if opponents is None:
                win_prob = self.judge.group_win_prob(prompts, rollouts.texts)
            else:
                win_prob = self.judge.cross_win_prob(prompts, rollouts.texts, opponents.texts)
        except JudgeError:
            raise
        except Exception as error:  # a user's function may fail in any way, and the run must still be saved
            raise JudgeError(f"judge {self.judge.name!r} failed: {type(error).__name__}: {error}") from error
        if win_prob.shape != expected:
            raise JudgeError(
                f"judge {self.judge.name!r} answered with shape {win_prob.shape}, expected {expected} "
                "(prompts, responses, opponents); return one win probability per pair"
            )
        if win_prob.size and not _compared(win_prob, opponents is None).any():
            raise JudgeError(
                f"judge {self.judge.name!r} answered none of the pairs of {len(prompts)} prompts, so there is nothing "
                "to learn from; look at its answers with `magnetar judge`"
            )
        return win_prob

    def _role_logp(self, role: Role, rollouts: Rollouts) -> Tensor:
        """Log-probabilities of the responses under a role, (B, G, T) on the CPU, zero at padding."""
        longest = max(len(tokens) for group in rollouts.response_ids for tokens in group)
        result: Tensor | None = None
        with torch.no_grad(), self.roles.use(role) as model, self.autocast():
            for part in self.passes.micro_batches(rollouts.prompt_ids, rollouts.response_ids):
                out = self.passes.run(
                    model,
                    [rollouts.prompt_ids[b] for b in part],
                    [rollouts.response_ids[b] for b in part],
                    entropy=False,
                )
                logp = pad(out.logp_BGT, (0, longest - out.logp_BGT.shape[-1])).cpu()
                if result is None:
                    result = logp.new_zeros(len(rollouts.prompt_ids), *logp.shape[1:])
                result[part] = logp
        assert result is not None
        return result


def _compared(win_prob_BGH: np.ndarray, self_play: bool) -> np.ndarray:
    """The win probabilities of pairs that were answered; a response is not compared with itself."""
    if self_play:
        win_prob_BGH = win_prob_BGH[:, ~np.eye(win_prob_BGH.shape[-1], dtype=bool)]
    return ~np.isnan(win_prob_BGH)


def _seed(run_seed: int, position: int, stream: int) -> int:
    """A seed of 63 bits for one prompt's responses, well mixed and the same on every machine."""
    return int(np.random.SeedSequence([run_seed, position, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
