"""Parts of a batch of experience: prompts → responses → log-probabilities under the other roles, beside the judge."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from magnetar.errors import ConfigError
from magnetar.judges import Judge
from magnetar.methods import Method
from magnetar.modeling.critic import Critic
from magnetar.modeling.modes import eval_mode
from magnetar.modeling.roles import Roles
from magnetar.rollout import MixtureMember, RolloutEngine, Rollouts, holding
from magnetar.training.experience import Experience
from magnetar.training.judging import Judging
from magnetar.training.ledger import Ledger, counted_responses
from magnetar.training.meeting import OPPONENT_ROLES, Answer, Meeting, OpponentRole, OpponentShare, Questions
from magnetar.training.passes import PassSettings
from magnetar.types import Role

__all__ = ["Collector", "PendingExperience"]

MISSING_MIXTURE = (
    "the rollout engine {engine} has no generate_mixture, which method {method!r} needs to draw its opponents; use the "
    "transformers engine"
)


class _Autocast(Protocol):
    def __call__(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class PendingExperience:
    """Experience that lacks only what the judge is being asked.

    Attributes:
        known: All other fields of `Experience`.
        meeting: What the judge is asked.
        answers: Its answers to come.
        judging: Who asks it.
    """

    known: dict[str, Any]
    meeting: Meeting
    answers: Future[list[Answer]]
    judging: Judging

    def finished(self) -> Experience:
        """The experience, once the judge has answered.

        Raises:
            JudgeError: As `Meeting.ask`.
        """
        outcome = self.meeting.outcome(self.judging.wait(self.answers))
        seconds = self.known["seconds"] | self.judging.take_seconds()
        spent = self.known["spent"] + outcome["spent"]
        return Experience(**self.known | outcome | {"seconds": seconds, "spent": spent})


@dataclass(frozen=True)
class EqualRoles:
    """Which roles have the weights of another while the parts of an update are collected, so that a pass is saved."""

    magnet_is_sampler: bool
    reference_is_sampler: bool
    reference_is_magnet: bool


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
        record_behavior: Whether the sampling policy's log-probabilities are needed later (several optimiser steps);
            where it is the current policy, the pass of the first step fills them in.
        reused: Whether a batch is learned from when the policy is no longer the one that sampled it.
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
    reused: bool = False
    sampler: Role = "current"
    critic: Critic | None = None

    def equal_roles(self) -> EqualRoles:
        """Compare the roles' weights; they hold until the next optimiser step or move."""
        needs_magnet = self.method.sampled_objective.needs_magnet
        magnet_is_sampler = needs_magnet and self.roles.same("magnet", self.sampler)
        reference_is_sampler = self.roles.same("reference", self.sampler)
        measured_apart = needs_magnet and not magnet_is_sampler and not reference_is_sampler
        return EqualRoles(
            magnet_is_sampler, reference_is_sampler, measured_apart and self.roles.same("reference", "magnet")
        )

    def begin(
        self, rows: Sequence[dict[str, Any]], opponents: Sequence[OpponentShare], equal: EqualRoles, judging: Judging
    ) -> PendingExperience:
        """Generate responses to some prompts, hand them to the judge, and measure log-probabilities meanwhile.

        Args:
            rows: Rows of a `PromptStream`.
            opponents: Whom the responses meet.
            equal: As `equal_roles` returned it.
            judging: Asks the judge.

        Returns:
            The experience but for the judge's answers, tensors on the CPU, in float64 where they are weights.

        Raises:
            ConfigError: The engine cannot draw from a mixture.
        """
        positions = [int(row["position"]) for row in rows]
        prompt_ids = [row["prompt_ids"] for row in rows]
        seconds: dict[str, float] = {}
        with _timed(seconds, "rollout"):
            rollouts = self._generate(self.sampler, prompt_ids, self.group_size, positions, stream=0)
        exact = None if rollouts.weight_BG is None else torch.as_tensor(rollouts.weight_BG, dtype=torch.float64)
        questions = Questions(positions, [row["prompt"] for row in rows], prompt_ids, rollouts.texts, exact)
        meeting = self._meeting(questions, opponents, seconds)
        answers = self._ask(meeting, judging)
        with _timed(seconds, "logprobs"):
            logp = self._role_logps(rollouts, equal)
        known = {
            "positions": positions,
            "prompts": questions.prompts,
            "prompt_ids": prompt_ids,
            "response_ids": rollouts.response_ids,
            "texts": rollouts.texts,
            "truncated_BG": torch.as_tensor(rollouts.truncated_BG),
            "exact_weight_BG": exact,
            **logp,
            "sampling_logp_BGT": None if exact is not None else _sampling_logp(rollouts),
            "magnet_is_behavior": equal.magnet_is_sampler,
            "reference_is_behavior": equal.reference_is_sampler,
            "finite": all(math.isfinite(v) for group in rollouts.sampling_logp for values in group for v in values),
            "seconds": seconds,
            "spent": counted_responses(rollouts.response_ids) + Ledger(prompts=len(rows)),
        }
        return PendingExperience(known, meeting, answers, judging)

    def begin_again(
        self, experience: Experience, opponents: Sequence[OpponentShare], judging: Judging
    ) -> PendingExperience:
        """Let the same responses meet other opponents.

        Args:
            experience: As `begin` led to.
            opponents: Whom the responses meet now.
            judging: Asks the judge.

        Returns:
            The experience but for its new win probabilities and weights.
        """
        seconds: dict[str, float] = {}
        questions = Questions(
            experience.positions,
            experience.prompts,
            experience.prompt_ids,
            experience.texts,
            experience.exact_weight_BG,
        )
        meeting = self._meeting(questions, opponents, seconds)
        known = {field.name: getattr(experience, field.name) for field in fields(experience)}
        known |= {"seconds": seconds, "spent": Ledger()}
        return PendingExperience(known, meeting, self._ask(meeting, judging), judging)

    def _ask(self, meeting: Meeting, judging: Judging) -> Future[list[Answer]]:
        return judging.ask(lambda: meeting.ask(self.judge, self.method), meeting.questions.prompts)

    def _meeting(self, questions: Questions, opponents: Sequence[OpponentShare], seconds: dict[str, float]) -> Meeting:
        """Draw the opponents' responses."""
        with _timed(seconds, "rollout"):
            drawn = [self._draw_opponents(s.role, questions) if s.role != "current" else None for s in opponents]
        return Meeting(questions, list(zip(opponents, drawn, strict=True)))

    def _role_logps(self, rollouts: Rollouts, equal: EqualRoles) -> dict[str, Any]:
        """Fields of `Experience`: what passes of the roles that differ, and of the critic, say of the responses."""
        by_behavior, by_magnet = self._needs_states(equal.magnet_is_sampler)
        shared = by_magnet and equal.magnet_is_sampler
        behavior_logp = states = values = None
        if self.sampler != "current":
            behavior_logp, states = self._role_pass(self.sampler, rollouts, states=by_behavior or shared)
            values = self._values(rollouts) if self.critic is not None else None
        elif self.record_behavior:  # the first optimiser step's pass fills these in
            behavior_logp, states = _unknown(rollouts), [torch.empty(0)] * len(rollouts.prompt_ids)
            values = _unknown(rollouts) if self.critic is not None else None
        magnet_logp, magnet_states = None, states if shared else None
        if self.method.sampled_objective.needs_magnet and not equal.magnet_is_sampler:
            magnet_logp, magnet_states = self._role_pass("magnet", rollouts, states=by_magnet)
        reference_logp = None
        if not equal.reference_is_sampler:
            alike = equal.reference_is_magnet and magnet_logp is not None
            reference_logp = magnet_logp if alike else self._role_pass("reference", rollouts)[0]
        return {
            "behavior_logp_BGT": behavior_logp,
            "magnet_logp_BGT": magnet_logp,
            "reference_logp_BGT": reference_logp,
            "behavior_value_BGT": values,
            "behavior_states": states if by_behavior else None,
            "magnet_states": magnet_states,
        }

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

        with eval_mode(model):
            log_ratio_BG = (self._in_passes(*rollouts, logp) - experience.behavior_logp_BGT).sum(-1).double()
        weight_BG = experience.response_weight_BG
        return torch.stack([(weight_BG * (1.0 - log_ratio_BG.exp()).clamp(min=0.0)).sum(), weight_BG.sum()])

    def _draw_opponents(self, role: OpponentRole, questions: Questions) -> Rollouts:
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
        # An engine with weights of its own is given the policy's one by one; any other runs the policy itself.
        policy = self.roles.lend(role) if holding(self.engine) else self.roles.use(role, gather=True)
        with torch.no_grad(), policy as model, self.autocast():
            return self.engine.generate(model, prompt_ids, count, seeds)

    def _needs_states(self, magnet_is_behavior: bool) -> tuple[bool, bool]:
        """Whether exact KL divergences to the sampling policy and to the magnet will need what their passes read."""
        objective = self.method.sampled_objective
        # To a policy that is still the same the divergence is zero, and so is its gradient.
        behavior = objective.needs_behavior_distribution and self.reused
        magnet = objective.needs_magnet_distribution and (self.reused or not magnet_is_behavior)
        return behavior and self.passes.chunked, magnet and self.passes.chunked

    def _role_pass(self, role: Role, rollouts: Rollouts, *, states: bool = False) -> tuple[Tensor, list[Tensor] | None]:
        """Log-probabilities of the responses under a role, (B, G, T) on the CPU, zero at padding.

        With ``states`` also what the output layer read, for each prompt, on the CPU.
        """
        read: list[Tensor] = []

        def logp(prompt_ids: list[list[int]], response_ids: list[list[list[int]]]) -> Tensor:
            out = self.passes.run(model, prompt_ids, response_ids, entropy=False, states=states)
            if out.hidden_NH is not None:
                read.extend(
                    part.cpu() for part in out.hidden_NH.split([sum(map(len, group)) for group in response_ids])
                )
            return out.logp_BGT

        with torch.no_grad(), self.roles.use(role) as model, self.autocast():
            values = self._in_passes(rollouts.prompt_ids, rollouts.response_ids, logp)
        if not states:
            return values, None
        order = [b for part in self.passes.micro_batches(rollouts.prompt_ids, rollouts.response_ids) for b in part]
        return values, [read[order.index(b)] for b in range(len(order))]

    def _values(self, rollouts: Rollouts) -> Tensor:
        """The critic's values of the responses' states, (B, G, T) on the CPU, zero at padding."""
        critic = self.critic
        assert critic is not None
        in_step = critic.sharding.passes((critic.model,), gather=False)
        with torch.no_grad(), eval_mode(critic), in_step, self.autocast():
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


def _sampling_logp(rollouts: Rollouts) -> Tensor:
    """Log-probabilities of the response tokens as the engine computed them, (B, G, T), zero at padding."""
    whole = _unknown(rollouts)
    for b, group in enumerate(rollouts.sampling_logp):
        for g, values in enumerate(group):
            whole[b, g, : len(values)] = torch.tensor(values, dtype=whole.dtype)
    return whole


def _unknown(rollouts: Rollouts) -> Tensor:
    """A place for one number for each response token, (B, G, T)."""
    longest = max(len(tokens) for group in rollouts.response_ids for tokens in group)
    return torch.zeros(len(rollouts.response_ids), len(rollouts.response_ids[0]), longest, dtype=torch.float64)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


def _seed(run_seed: int, position: int, stream: int) -> int:
    """A seed of 63 bits for one prompt's responses, well mixed and the same on every machine."""
    return int(np.random.SeedSequence([run_seed, position, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
