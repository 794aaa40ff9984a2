"""One batch of experience: prompts → responses → win probabilities → log-probabilities under the other roles."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from magnetar.errors import ConfigError, JudgeError
from magnetar.judges import Judge, cyclic_triple_share, group_scores, require_scores
from magnetar.methods import Method, group_opponent_weights, leave_out_unanswered
from magnetar.modeling.critic import Critic
from magnetar.modeling.roles import Roles
from magnetar.rollout import MixtureMember, RolloutEngine, Rollouts
from magnetar.training.experience import Experience
from magnetar.training.ledger import Ledger, counted_answers, counted_responses
from magnetar.training.passes import PassSettings
from magnetar.types import Prompt, Role

__all__ = ["Collector", "OpponentShare"]

OpponentRole = Role | Literal["mixture"]
OPPONENT_ROLES: tuple[OpponentRole, ...] = (*get_args(Role), "mixture")
MISSING_MIXTURE = (
    "the rollout engine {engine} has no generate_mixture, which method {method!r} needs to draw its opponents; use the "
    "transformers engine"
)


@dataclass(frozen=True)
class OpponentShare:
    """One opponent of the responses and the weight of the payoff against it; weights of one update sum to one.

    Attributes:
        weight: Negative for an opponent that an optimistic prediction leads away from.
        role: "current" is the group itself; other roles and the mixture draw responses of their own.
    """

    weight: float
    role: OpponentRole


class _Autocast(Protocol):
    def __call__(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class _Questions:
    """What the judge is asked about: prompts and a group of responses to each, with exact weights if enumerated."""

    positions: list[int]
    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    texts: list[list[str]]
    weight_BG: Tensor | None


@dataclass(frozen=True)
class Collector:
    """Plays one batch of prompts with the policy as it is now.

    Attributes:
        roles: The policy's parts.
        engine: Generates responses.
        judge: Compares them.
        method: Names what the objective needs, and the mixture.
        passes: How log-probability passes run.
        group_size: Responses to each prompt.
        num_opponents: Responses of each opponent role to each prompt, when it is not the group itself.
        seed: Of the run; with a prompt's position it seeds that prompt's responses.
        record_behavior: Whether the sampling policy's log-probabilities are needed later (several optimiser steps).
        sampler: The role that responses are drawn from: "current", or "behavior" where that lasts a round.
        critic: Values the states; None for a method without one.
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
    sampler: Role = "current"
    critic: Critic | None = None

    def collect(self, rows: Sequence[dict[str, Any]], opponents: Sequence[OpponentShare]) -> Experience:
        """Generate, judge, and measure log-probabilities.

        Args:
            rows: Rows of a `PromptStream`.
            opponents: Whom the responses meet.

        Returns:
            The experience, tensors on the CPU in float64 where they are weights or win probabilities.

        Raises:
            JudgeError: The judge failed, or its answer is not a matrix of win probabilities.
            ConfigError: The engine cannot draw from a mixture.
        """
        positions = [int(row["position"]) for row in rows]
        prompt_ids = [row["prompt_ids"] for row in rows]
        seconds: dict[str, float] = {}
        with _timed(seconds, "rollout"):
            rollouts = self._generate(self.sampler, prompt_ids, self.group_size, positions, stream=0)
        exact = None if rollouts.weight_BG is None else torch.as_tensor(rollouts.weight_BG, dtype=torch.float64)
        questions = _Questions(positions, [row["prompt"] for row in rows], prompt_ids, rollouts.texts, exact)
        answers = self._meet(questions, opponents, seconds)
        spent = answers.pop("spent") + counted_responses(rollouts.response_ids) + Ledger(prompts=len(rows))

        with _timed(seconds, "logprobs"):
            objective = self.method.sampled_objective
            magnet_is_behavior = objective.needs_magnet and self.roles.same("magnet", self.sampler)
            reference_is_behavior = self.roles.same("reference", self.sampler)
            recorded = self.record_behavior or self.sampler != "current"
            behavior_logp = self._role_logp(self.sampler, rollouts) if recorded else None
            magnet_logp = None
            if objective.needs_magnet and not magnet_is_behavior:
                magnet_logp = self._role_logp("magnet", rollouts)
            reference_logp = None
            if not reference_is_behavior:
                shared = magnet_logp is not None and self.roles.same("reference", "magnet")
                reference_logp = magnet_logp if shared else self._role_logp("reference", rollouts)
            values = self._values(rollouts) if self.critic is not None else None
        return Experience(
            positions=positions,
            prompts=questions.prompts,
            prompt_ids=prompt_ids,
            response_ids=rollouts.response_ids,
            texts=rollouts.texts,
            truncated_BG=torch.as_tensor(rollouts.truncated_BG),
            exact_weight_BG=exact,
            behavior_logp_BGT=behavior_logp,
            magnet_logp_BGT=magnet_logp,
            reference_logp_BGT=reference_logp,
            behavior_value_BGT=values,
            magnet_is_behavior=magnet_is_behavior,
            reference_is_behavior=reference_is_behavior,
            finite=all(math.isfinite(v) for group in rollouts.sampling_logp for values in group for v in values),
            seconds=seconds,
            spent=spent,
            **answers,
        )

    def meet_again(self, experience: Experience, opponents: Sequence[OpponentShare]) -> Experience:
        """The same responses against other opponents.

        Args:
            experience: What `collect` returned.
            opponents: Whom the responses meet now.

        Returns:
            The experience with new win probabilities and weights.

        Raises:
            JudgeError: As `collect`.
        """
        seconds: dict[str, float] = {}
        questions = _Questions(
            experience.positions,
            experience.prompts,
            experience.prompt_ids,
            experience.texts,
            experience.exact_weight_BG,
        )
        answers = self._meet(questions, opponents, seconds)
        return replace(experience, seconds=seconds, **answers)

    def moved(self, model: nn.Module, experience: Experience) -> Tensor:
        """How far a policy is from the one that sampled an experience.

        The total variation distance is ``E_{y~π_k} max(0, 1 − π_θ(y)/π_k(y))``, of which each sampled response gives a
        value in [0, 1].

        Args:
            model: π_θ.
            experience: With the log-probabilities under π_k.

        Returns:
            The sum over prompts, and their number: shape (2,).
        """
        assert experience.behavior_logp_BGT is not None
        rollouts = (experience.prompt_ids, experience.response_ids)

        def logp(prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> Tensor:
            return self.passes.run(model, prompt_ids, response_ids, entropy=False).logp_BGT

        log_ratio_BG = (self._in_passes(*rollouts, logp) - experience.behavior_logp_BGT).sum(-1).double()
        weight_BG = experience.response_weight_BG
        return torch.stack([(weight_BG * (1.0 - log_ratio_BG.exp()).clamp(min=0.0)).sum(), weight_BG.sum()])

    def _meet(
        self, questions: _Questions, opponents: Sequence[OpponentShare], seconds: dict[str, float]
    ) -> dict[str, Any]:
        """Draw the opponents' responses and ask the judge; fields of `Experience`."""
        b, g = len(questions.prompts), len(questions.texts[0])
        win_probs, weights, response_weights = [], [], []
        cyclic, reward, spent = float("nan"), None, Ledger()
        own = questions.weight_BG
        response_weight = own if own is not None else torch.full((b, g), 1.0 / g, dtype=torch.float64)
        for share in opponents:
            rollouts = None
            if share.role != "current":
                with _timed(seconds, "rollout"):
                    rollouts = self._draw_opponents(share.role, questions)
            with _timed(seconds, "judge"):
                if self.method.sampled_objective.needs_reward:
                    reward, win_prob = self._scored(questions)
                else:
                    win_prob = self._judge(questions.prompts, questions.texts, rollouts)
            if rollouts is None:
                spent += Ledger(comparisons=counted_answers(b, g, None, rewards_only=reward is not None))
                cyclic = float(cyclic_triple_share(win_prob)) if g >= 3 else float("nan")
                # With a critic a response may be alone, and then ties with itself.
                alone = g == 1 and own is None
                weight = torch.ones(b, 1, 1, dtype=torch.float64) if alone else group_opponent_weights(own, (b, g))
            else:
                h = win_prob.shape[-1]
                spent += Ledger(comparisons=counted_answers(b, g, h)) + counted_responses(rollouts.response_ids)
                weight_BH = rollouts.weight_BG if rollouts.weight_BG is not None else np.full((b, h), 1.0 / h)
                weight = torch.as_tensor(weight_BH, dtype=torch.float64)[:, None, :].expand(b, g, h)
            filled, weight, heard = leave_out_unanswered(
                torch.as_tensor(win_prob, dtype=torch.float64), weight, response_weight
            )
            win_probs.append(filled)
            weights.append(share.weight * weight)
            response_weights.append(heard)
        return {
            "win_prob_BGH": torch.cat(win_probs, dim=-1),
            "opponent_weight_BGH": torch.cat(weights, dim=-1),
            "response_weight_BG": _heard_by_all(response_weights, response_weight),
            "cyclic_triples": cyclic,
            "reward_BG": None if reward is None else torch.as_tensor(reward, dtype=torch.float64),
            "spent": spent,
        }

    def _draw_opponents(self, role: OpponentRole, questions: _Questions) -> Rollouts:
        count = self.num_opponents if questions.weight_BG is None else self.group_size
        # Two opponents of one update must not share random numbers, nor share the responses'.
        stream = 1 + OPPONENT_ROLES.index(role)
        if role != "mixture":
            return self._generate(role, questions.prompt_ids, count, questions.positions, stream=stream)
        generate = getattr(self.engine, "generate_mixture", None)
        if generate is None:
            raise ConfigError(MISSING_MIXTURE.format(engine=type(self.engine).__name__, method=self.method.name))
        share = self.method.opponent.reference_weight
        members = [
            MixtureMember(lambda: self.roles.use("current"), 1.0 - share),
            MixtureMember(lambda: self.roles.use("reference"), share),
        ]
        seeds = [_seed(self.seed, position, stream) for position in questions.positions]
        with torch.no_grad(), self.roles.together(("current", "reference")), self.autocast():
            return generate(members, questions.prompt_ids, count, seeds)

    def _generate(
        self, role: Role, prompt_ids: list[list[int]], count: int, positions: list[int], *, stream: int
    ) -> Rollouts:
        seeds = [_seed(self.seed, position, stream) for position in positions]
        with torch.no_grad(), self.roles.use(role, gather=True) as model, self.autocast():
            return self.engine.generate(model, prompt_ids, count, seeds)

    def _scored(self, questions: _Questions) -> tuple[np.ndarray, np.ndarray]:
        with self._failing_as_judge():
            return group_scores(require_scores(self.judge, self.method.name), questions.prompts, questions.texts)

    @contextmanager
    def _failing_as_judge(self) -> Iterator[None]:
        try:
            yield
        except JudgeError:
            raise
        except Exception as error:  # a user's function may fail in any way, and the run must still be saved
            raise JudgeError(f"judge {self.judge.name!r} failed: {type(error).__name__}: {error}") from error

    def _judge(self, prompts: list[Prompt], texts: list[list[str]], opponents: Rollouts | None) -> np.ndarray:
        against = texts if opponents is None else opponents.texts
        expected = (len(prompts), len(texts[0]), len(against[0]))
        with self._failing_as_judge():
            if opponents is None:
                win_prob = self.judge.group_win_prob(prompts, texts)
            else:
                win_prob = self.judge.cross_win_prob(prompts, texts, opponents.texts)
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
        with torch.no_grad(), self.roles.use(role) as model, self.autocast():

            def logp(prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> Tensor:
                return self.passes.run(model, prompt_ids, response_ids, entropy=False).logp_BGT

            return self._in_passes(rollouts.prompt_ids, rollouts.response_ids, logp)

    def _values(self, rollouts: Rollouts) -> Tensor:
        """The critic's values of the responses' states, (B, G, T) on the CPU, zero at padding."""
        critic = self.critic
        assert critic is not None
        with torch.no_grad(), self.autocast():
            return self._in_passes(
                rollouts.prompt_ids, rollouts.response_ids, lambda p, r: self.passes.values(critic, p, r)
            )

    def _in_passes(
        self,
        prompt_ids: list[list[int]],
        response_ids: list[list[list[int]]],
        measure: Callable[[list[list[int]], list[list[list[int]]]], Tensor],
    ) -> Tensor:
        """Measure tokens pass by pass; (B, G, T) on the CPU, zero at padding."""
        longest = max(len(tokens) for group in response_ids for tokens in group)
        result: Tensor | None = None
        for part in self.passes.micro_batches(prompt_ids, response_ids):
            values = measure([prompt_ids[b] for b in part], [response_ids[b] for b in part])
            values = pad(values, (0, longest - values.shape[-1])).cpu()
            if result is None:
                result = values.new_zeros(len(prompt_ids), *values.shape[1:])
            result[part] = values
        assert result is not None
        return result


def _compared(win_prob_BGH: np.ndarray, self_play: bool) -> np.ndarray:
    """The win probabilities of pairs that were answered; a response is not compared with itself."""
    if self_play:
        win_prob_BGH = win_prob_BGH[:, ~np.eye(win_prob_BGH.shape[-1], dtype=bool)]
    return ~np.isnan(win_prob_BGH)


def _heard_by_all(weights: list[Tensor], whole: Tensor) -> Tensor:
    """Weights of the responses that every opponent's part of the payoff has an answer for."""
    heard = torch.stack([weight > 0 for weight in weights]).all(0)
    kept = torch.where(heard, whole, 0.0)
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(kept.dtype).tiny), 0.0)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


def _seed(run_seed: int, position: int, stream: int) -> int:
    """A seed of 63 bits for one prompt's responses, well mixed and the same on every machine."""
    return int(np.random.SeedSequence([run_seed, position, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
