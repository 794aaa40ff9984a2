"""The part of the trainer between optimiser steps: what moves when the policy has, and how far it went."""

import math
from typing import Any, cast

import torch
from torch import Tensor

from magnetar.methods import MagnetClock
from magnetar.training.learning import LearningTrainer

__all__ = ["MovingTrainer"]


class MovingTrainer(LearningTrainer):
    """Critic and prediction follow each optimiser step, magnet and behaviour policy each update or round."""

    _magnet_moved: bool

    def before_optimizer_step(self) -> None:
        """Keep what the prediction of the opponent needs of the policy that is about to change."""
        if self.critic is not None:
            norm = self.critic.before_step(self.accelerator, self.args.max_grad_norm)
            # As for the policy: with float16 a scaler skips a step whose gradient overflowed.
            if not math.isfinite(norm) and self.accelerator.scaler is None:
                self._stop_not_finite(f"gradient norm of the critic is {norm}", self.state.global_step + 1)
            self._metrics.add("critic_grad_norm", norm, 1.0)
        self.prediction.before_step(self.inner_epoch, cast(Any, self.optimizer))

    def after_optimizer_step(self) -> None:
        """Check the weights, book what was spent, and move the magnet when an update has ended and it is time."""
        self._check_finite(self._weights_finite(), "its step made weights that are not finite", [], stepped=True)
        if self.critic is not None:
            self.critic.after_step()
        self.prediction.after_step((self.state.global_step - 1) % self.plan.inner_epochs, cast(Any, self.optimizer))
        self._spending.book(self.state.global_step // self.plan.inner_epochs)
        if self.state.global_step % self.plan.inner_epochs:
            return
        update = self.state.global_step // self.plan.inner_epochs
        if self.method.sampled_objective.needs_magnet:
            self._move_magnet(update)
        if self._sampler == "behavior" and self.plan.round_ends_after(update):
            self.roles.move("behavior", "current")
        self._experiences = []

    def _move_magnet(self, update: int) -> None:
        move = None
        if self.method.magnet.needs_progress:
            move = self._measured_move()
            self.first_move = move if self.first_move is None else self.first_move
            self._metrics.add("policy_move", move, 1.0)
        clock = MagnetClock(update, self.plan.round_ends_after(update), move, self.first_move)
        rate = self.method.magnet.rate(clock)
        if rate > 0:
            self.roles.move("magnet", "current", rate)
            self._magnet_moved = True
            self.first_move = None
            if rate == 1.0:
                self.magnet_moves.append(update)

    def _measured_move(self) -> float:
        """How far the update moved the policy: an estimate of the total variation distance, over all processes."""
        total = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        with torch.no_grad(), self.roles.use("current") as model, self.accelerator.autocast():
            for experience in self._experiences:
                total += self._collector.moved(model, experience).to(total)
        if self.accelerator.num_processes > 1:
            total = cast(Tensor, self.accelerator.reduce(total, reduction="sum"))
        return float(total[0] / total[1].clamp(min=1e-300))
