"""The part of the trainer that learns: one optimiser step, pass by pass, from experience as it comes in."""

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from magnetar.modeling.sharding import WholeWeights
from magnetar.numerics import masked_sum, sampled_reverse_kl
from magnetar.training.experience import Experience
from magnetar.training.gathering import GatheringTrainer
from magnetar.training.importance import corrected
from magnetar.training.metrics import MeanMetrics
from magnetar.training.passes import PassSettings
from magnetar.training.policy_passes import PolicyPasses
from magnetar.types import Role, RolloutBatch

__all__ = ["LearningTrainer"]


class LearningTrainer(GatheringTrainer):
    """Gradients of an optimiser step: passes of the policy, the objective's loss, and what is logged of both."""

    _policy_passes: PolicyPasses
    _activations: Any
    _sampler: Role

    @property
    def passes(self) -> PassSettings:
        """How log-probability passes run."""
        return self._collector.passes

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Accumulate the gradient of a micro-batch, pass by pass, as soon as its parts are generated and judged."""
        model.train()
        if self.critic is not None:
            self.critic.critic.train()
        total, seconds = self._accumulate(model, inputs)
        self._policy_passes.forget_layers()
        self._metrics.add("seconds_update", seconds, 1.0)
        self._metrics.add("tokens_per_second", 0.0, seconds)
        return total

    def _accumulate(self, model: nn.Module, inputs: list[dict[str, Any]]) -> tuple[Tensor, float]:
        """The loss of a micro-batch, whose gradient is added up, and the time that this took."""
        total, seconds = torch.zeros((), device=self.accelerator.device), 0.0
        sharded = not isinstance(self.roles.sharding, WholeWeights)
        for experience, last in self._parts(inputs):
            started = time.perf_counter()
            passes = self._collector.passes.micro_batches(experience.prompt_ids, experience.response_ids)
            count = self.roles.sharding.most(len(passes))
            for number in range(count):
                # Gradients are exchanged between processes with the last pass only, unless a process holds a share of
                # them: what is not exchanged would be kept whole. DDP's own forward pass may wait for other processes
                # at any time, and they may wait for their judges.
                complete = last and number == count - 1
                policy = model.module if isinstance(model, DistributedDataParallel) and not complete else model
                with nullcontext() if complete or sharded else self.accelerator.no_sync(model), self._activations:
                    # Others may have more passes than this process, which then takes part in them.
                    counts = number < len(passes)
                    places = passes[number] if counts else passes[-1]
                    loss = self._loss_of_part(policy, experience, places, len(inputs), counts=counts)
                    total += loss.detach()
                    if complete:  # before the gradient is: DeepSpeed then takes the step at once
                        positions = [int(row["position"]) for row in inputs]
                        self._check_finite(bool(torch.isfinite(total)), f"loss is {float(total)}", positions)
                    self._backward(loss, last=complete)
            seconds += time.perf_counter() - started
        return total, seconds

    def _backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate a gradient; DeepSpeed takes the optimiser step with the last pass of the last batch."""
        if not self.is_deepspeed_enabled:
            self.accelerator.backward(loss)
            return
        ends_step = self.accelerator.gradient_state.sync_gradients
        self.accelerator.gradient_state._set_sync_gradients(ends_step and last)
        try:
            self.accelerator.backward(loss, scale_wrt_gas=False)  # it is divided already
        finally:
            self.accelerator.gradient_state._set_sync_gradients(ends_step)

    def _loss_of_part(
        self, model: nn.Module, experience: Experience, part: list[int], prompts: int, *, counts: bool = True
    ) -> Tensor:
        """The loss of a pass, in proportion to its share of the prompts; one that does not count gives no gradient."""
        metrics = self._metrics
        if not counts:
            self._metrics = MeanMetrics()
        try:
            with self.compute_loss_context_manager():
                loss = self.compute_loss(model, {"experience": experience, "part": part})
        finally:
            self._metrics = metrics
        share = len(part) / (prompts * self.current_gradient_accumulation_steps)
        return loss * (share if counts else 0.0)

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over prompts of the objective's loss on one pass; everything else happens in the objective.

        Args:
            model: The (wrapped) policy.
            inputs: ``{"experience": Experience, "part": list of prompt indices}``.
            return_outputs: As in `transformers.Trainer`.
            num_items_in_batch: Unused.

        Returns:
            The loss, a scalar; with ``return_outputs`` also the objective's output.
        """
        experience, part = inputs["experience"], inputs["part"]
        batch, entropy_BGT, reference_logp = self._rollout_batch(model, experience, part)
        output = self.method.sampled_objective(batch)
        weight_BG = batch.response_weight_BG
        loss = (weight_BG * output.loss_BG).sum(-1).mean()
        prompts = float(weight_BG.sum())  # those of which the judge answered something
        for name, value_BG in output.metrics.items():
            if name != "payoff":
                self._metrics.add(name, float((weight_BG * value_BG).sum()), prompts)
        if self.inner_epoch == 0:
            logp = batch.logp_BGT.detach()
            tokens_BG = batch.mask_BGT.sum(-1)
            token_weight = float((weight_BG * tokens_BG).sum())
            self._metrics.add(
                "entropy", float((weight_BG * masked_sum(entropy_BGT, batch.mask_BGT)).sum()), token_weight
            )
            kl = sampled_reverse_kl(
                logp, batch.behavior_logp_BGT, reference_logp if reference_logp is not None else logp
            )
            self._metrics.add("kl_reference", float((weight_BG * masked_sum(kl, batch.mask_BGT)).sum()), prompts)
        return (loss, output) if return_outputs else loss

    def _rollout_batch(
        self, model: nn.Module, experience: Experience, part: list[int]
    ) -> tuple[RolloutBatch, Tensor, Tensor | None]:
        """The objective's view of some prompts of an experience, with entropy and the reference's log-probabilities."""
        objective = self.method.sampled_objective
        # Whether the policy is no longer the one that sampled the batch.
        reused = self.inner_epoch > 0 or self._sampler == "behavior"
        against: list[Role] = []
        if objective.needs_magnet_distribution and (reused or not experience.magnet_is_behavior):
            against.append("magnet")
        if objective.needs_behavior_distribution and reused:
            against.append("behavior")
        # The pass of the first step is one of the sampling policy; later steps compare with it.
        first = self._keeps_experiences and not reused
        states = first and self._policy_passes.keeps_states(experience)
        out, divergences = self._policy_passes.run(model, experience, part, against, states=states)
        logp, mask = out.logp_BGT, out.mask_BGT

        def stored(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[part][..., : logp.shape[-1]].to(logp)

        def divergence(role: Role) -> Tensor:
            # To a policy that is still the same, the divergence and its gradient are exactly zero.
            return divergences.get(role, torch.zeros_like(logp, requires_grad=False))

        behavior = None if first else stored(experience.behavior_logp_BGT)
        if behavior is None:
            behavior = logp.detach()
        magnet = None
        if objective.needs_magnet:
            magnet = behavior if experience.magnet_is_behavior else stored(experience.magnet_logp_BGT)
        value = None
        if self.critic is not None:
            # The policy's wrapper brings mixed precision along; the critic has none.
            with self.accelerator.autocast():
                value = self.passes.values(
                    self.critic.critic,
                    [experience.prompt_ids[b] for b in part],
                    [experience.response_ids[b] for b in part],
                )
        behavior_value = None if first else stored(experience.behavior_value_BGT)
        if behavior_value is None and value is not None:
            behavior_value = value.detach()
        if first:
            experience.record(part, logp, value, out.hidden_NH)
        reward = experience.reward_BG
        batch = RolloutBatch(
            logp_BGT=logp,
            behavior_logp_BGT=behavior,
            magnet_logp_BGT=magnet,
            mask_BGT=mask,
            win_prob_BGH=experience.win_prob_BGH[part].to(logp),
            opponent_weight_BGH=experience.opponent_weight_BGH[part].to(logp),
            response_weight_BG=experience.response_weight_BG[part].to(logp),
            magnet_kl_BGT=divergence("magnet") if objective.needs_magnet_distribution else None,
            behavior_kl_BGT=divergence("behavior") if objective.needs_behavior_distribution else None,
            reward_BG=None if reward is None else reward[part].to(logp),
            value_BGT=value,
            behavior_value_BGT=behavior_value,
        )
        reference = behavior if experience.reference_is_behavior else stored(experience.reference_logp_BGT)
        return self._corrected(batch, stored(experience.sampling_logp_BGT)), out.entropy_BGT, reference

    def _corrected(self, batch: RolloutBatch, sampling_logp_BGT: Tensor | None) -> RolloutBatch:
        """The batch as if the trainer's own policy had sampled it; how far the engine was from that is logged."""
        if sampling_logp_BGT is None:
            return batch
        opponents = self.prediction.opponents(self.update, self.inner_epoch)
        own_group = opponents[0].role == "current"
        args = self.settings
        batch, found = corrected(batch, sampling_logp_BGT, args.correction, args.importance_cap, own_group=own_group)
        if self.inner_epoch == 0:
            prompts = float(len(batch.logp_BGT))
            for name, value in found.items():
                self._metrics.add(name, value * prompts, prompts)
        return batch
