"""The part of the trainer that gathers experience: generated and judged ahead, handed on part by part."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from magnetar.errors import CheckpointError, JudgeError, RolloutError
from magnetar.judges import Judge
from magnetar.methods import Method
from magnetar.modeling.sharding import AnotherProcessFailed, WholeWeights
from magnetar.training.collector import Collector
from magnetar.training.config import NashConfig
from magnetar.training.experience import Experience
from magnetar.training.judging import Judging
from magnetar.training.meeting import check_answered
from magnetar.training.metrics import MeanMetrics
from magnetar.training.pipeline import MicroBatch, Part, StepParts
from magnetar.training.resumable import ResumableTrainer

__all__ = ["PARTS_AHEAD", "GatheringTrainer", "judging_for"]

Rows = list[dict[str, Any]]

PARTS_AHEAD = 8
"""Most parts that are generated and not yet learned from: a judge far away has work for as long as it takes to answer,
and what they hold is small."""


def judging_for(judge: Judge, args: NashConfig, device: torch.device) -> Judging:
    """How a judge is asked: on threads, if the settings say so or the judge leaves the device free."""
    beside = args.judge_in_background
    if beside is None:
        beside = judge.leaves_free(str(device))
    return Judging(min(judge.calls_at_once, PARTS_AHEAD) if beside else 0, device)


class GatheringTrainer(ResumableTrainer):
    """Experience for an optimiser step, in parts: whole groups that are generated, judged and learned from together.

    All parts of a step, over all its micro-batches, are begun ahead of the gradients (`pipeline`), and the judge may be
    asked on threads (`judging`). The order of everything that adds up is fixed, so that threads change no result.
    """

    judge: Judge
    method: Method
    last_experience: Experience
    _collector: Collector
    _metrics: MeanMetrics
    _keeps_behavior: bool
    _micro_batches: list[Rows]
    _step_parts: StepParts[Experience] | None

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of an optimiser step: later ones are generated while the judge reads the earlier ones."""
        self._step_parts = None
        self._micro_batches, items = super().get_batch_samples(*args, **kwargs)
        return self._micro_batches, items

    @property
    def _keeps_experiences(self) -> bool:
        """Whether a batch is looked at again after its first optimiser step."""
        return self.plan.inner_epochs > 1 or self.method.magnet.needs_progress

    @property
    def _passes_are_local(self) -> bool:
        """Whether a process may run passes while others do something else: weights are not in shards."""
        return isinstance(self.roles.sharding, WholeWeights)

    def _parts(self, inputs: Rows) -> Iterator[tuple[Experience, bool]]:
        """The experience of a micro-batch, part by part, each with whether it is the last.

        In the first inner epoch it is fresh; later it is the same again, or meets new opponents.
        """
        positions = _positions(inputs)
        number = None
        if self.inner_epoch > 0:
            kept = [experience.positions for experience in self._experiences]
            if positions not in kept:
                raise CheckpointError(
                    f"the responses of inner epoch {self.inner_epoch} are missing from the checkpoint"
                )
            number = kept.index(positions)
            if not self.prediction.meets_anew(self.inner_epoch):
                self.last_experience = self._experiences[number]
                yield self.last_experience, True
                return
        if self._step_parts is None:
            self._step_parts = self._begin_step(inputs)
        batch = self._step_parts.next_batch
        assert batch.positions == positions
        parts: list[Experience] = []
        for part in self._agreed(self._step_parts):
            parts.append(part)
            yield part, len(parts) == len(batch.parts)
        self._keep(Experience.joined(parts, [part.places for part in batch.parts]), number)

    def _begin_step(self, inputs: Rows) -> StepParts[Experience]:
        """Line up the parts of all micro-batches of an optimiser step; without a training loop, of this one."""
        batches = self._micro_batches or [inputs]
        opponents = self.prediction.opponents(self.update, self.inner_epoch)
        collector, judging = self._collector, self._judging.anew()
        self._judging = judging
        shared = getattr(collector.engine, "sharers", 1) > 1
        stop_early = judging.check if self._passes_are_local and not shared else lambda: None
        if self.inner_epoch == 0:
            self._experiences = []
            if self._keeps_behavior:
                self.roles.move("behavior", "current")
            equal = collector.equal_roles()

            def begin(part: Part) -> Callable[[], Experience]:
                stop_early()
                rows = [batches[part.batch][place] for place in part.places]
                return collector.begin(rows, opponents, equal, judging).finished
        else:
            kept = {tuple(experience.positions): experience for experience in self._experiences}

            def begin(part: Part) -> Callable[[], Experience]:
                stop_early()
                experience = kept[tuple(_positions(batches[part.batch]))].take(part.places)
                return collector.begin_again(experience, opponents, judging).finished

        at_once = self.settings.max_responses_per_pass
        prompts_at_once = None if at_once is None else max(1, at_once // self.settings.num_generations)
        split = [
            MicroBatch.split(number, _positions(rows), [row["prompt_ids"] for row in rows], prompts_at_once)
            for number, rows in enumerate(batches)
        ]
        # Processes that share an engine ask it together: all that they will ask in this step is asked before any of
        # them can meet a judge's failure and leave.
        parts = sum(len(batch.parts) for batch in split)
        return StepParts(split, begin, parts if shared else PARTS_AHEAD)

    def _agreed(self, step: StepParts[Experience]) -> Iterator[Experience]:
        """The parts of the next micro-batch, the last one once all processes have all of theirs.

        All processes stop together when judge or engine of one fails, or one samples from a policy that is broken.
        """
        failure = None
        batch, parts, handed_on = step.next_batch, [], 0
        try:
            for part in step.take():
                parts.append(part)
                if not part.finite:
                    break
                if self._passes_are_local and len(parts) < len(batch.parts):
                    handed_on += 1
                    yield part
            check_answered(self.judge.name, parts)
            self._meet_the_others(parts)
        except (JudgeError, RolloutError) as error:
            failure = error
            self.roles.sharding.report_failure()
        except AnotherProcessFailed:  # it says why in a moment
            pass
        self._check_judge(failure)
        finite = all(part.finite for part in parts)
        self._check_finite(finite, "probabilities of sampled tokens are not finite", batch.positions)
        yield from parts[handed_on:]

    def _meet_the_others(self, parts: list[Experience]) -> None:
        """Where weights are in shards: let processes that still generate know whether this one has all its parts."""
        if all(part.finite for part in parts):
            self.roles.sharding.meet()
        else:
            self.roles.sharding.report_failure()

    def _keep(self, experience: Experience, number: int | None) -> None:
        """Log a micro-batch's experience, and keep it for later optimiser steps; its number if it was kept before."""
        self.last_experience = experience
        self._spending.add(experience.spent)
        if number is None:
            self._metrics.add_experience(experience)
            if self._keeps_experiences:
                self._experiences.append(experience)
        else:
            self._metrics.add_stages(experience)
            weight_BG = experience.response_weight_BG
            payoff = float((weight_BG * experience.payoff_BG).sum())
            self._metrics.add("payoff_lookahead", payoff, float(weight_BG.sum()))
            self._experiences[number] = experience
        if self._step_parts is not None and self._step_parts.done:  # the judge is at rest
            self._metrics.add_counters(self.judge.stats())


def _positions(rows: Rows) -> list[int]:
    return [int(row["position"]) for row in rows]
