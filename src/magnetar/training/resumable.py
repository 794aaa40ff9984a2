"""The part of the trainer that saves, resumes and stops: everything that keeps a run from being lost."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Subset
from transformers import Trainer

from magnetar.errors import CheckpointError, JudgeError, NonFiniteLossError, RolloutError
from magnetar.modeling.roles import Roles
from magnetar.modeling.sharding import WholeWeights, plain_name
from magnetar.training import checkpoints
from magnetar.training.callbacks import StopSignals, TrainingInterrupted
from magnetar.training.config import NashConfig
from magnetar.training.critic import CriticTraining
from magnetar.training.experience import Experience
from magnetar.training.judging import Judging
from magnetar.training.ledger import LEDGER_FILE, Ledger, write_ledger
from magnetar.training.prediction import OpponentPrediction
from magnetar.training.sharding import shard_roles
from magnetar.training.spending import Spending
from magnetar.training.stream import StreamPlan

__all__ = ["ResumableTrainer"]


class ResumableTrainer(Trainer):
    """Checkpoints that hold every role, resumption from any step, and a stop before bad weights are kept.

    It computes nothing of the method; `NashTrainer` sets the attributes below and does the rest.
    """

    roles: Roles
    plan: StreamPlan
    start_digest: str
    signals: StopSignals
    prediction: OpponentPrediction
    magnet_moves: list[int]
    critic: CriticTraining | None
    first_move: float | None
    _experiences: list[Experience]
    _saved_step: int
    _spending: Spending
    _judging: Judging

    @property
    def ledger(self) -> Ledger:
        """What the run has spent, over all processes, up to its last optimiser step."""
        return self._spending.total

    @property
    def budget_reached(self) -> bool:
        """Whether a whole number of updates is done and a budget is used up."""
        return self.inner_epoch == 0 and any(budget.reached(self.ledger) for budget in self.settings.budgets)

    @property
    def settings(self) -> NashConfig:
        """The settings, by their own type."""
        return cast(NashConfig, self.args)

    @property
    def update(self) -> int:
        """Number (from 1) of the update that is under way or, between steps, comes next."""
        return self.state.global_step // self.plan.inner_epochs + 1

    @property
    def inner_epoch(self) -> int:
        """Inner epoch (from 0) of the optimiser step that is under way or comes next."""
        return self.state.global_step % self.plan.inner_epochs

    def _weights_finite(self) -> bool:
        part = self.roles.sharding.part
        return all(bool(torch.isfinite(part(p)).all()) for p in self.roles.current.parameters() if p.requires_grad)

    def _check_finite(self, finite: bool, what: str, positions: list[int], *, stepped: bool = False) -> None:
        bad = torch.tensor(float(not finite), device=self.accelerator.device)
        if self.accelerator.num_processes > 1:  # all stop together, since they save together
            bad = cast(Tensor, self.accelerator.reduce(bad, reduction="sum"))
        if float(bad) > 0:
            where = f" (on this process: prompts at stream positions {positions})" if positions else ""
            self._stop_not_finite(what + where, self.state.global_step + (not stepped))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm before clipping, measured even if nothing is clipped; a bad one never reaches the weights."""
        norm = cast(Any, super()._get_grad_norm(model, grad_norm=grad_norm))
        # With float16 a scaler looks for its scale by trial: it skips a step whose gradient overflowed.
        if not math.isfinite(float(norm)) and self.accelerator.scaler is None:
            # DeepSpeed's backward pass includes the step.
            stepped = self.is_deepspeed_enabled
            self._stop_not_finite(f"gradient norm is {float(norm)}", self.state.global_step + 1, stepped=stepped)
        return norm

    def _stop_not_finite(self, what: str, bad_step: int, *, stepped: bool = False) -> None:
        """Save the last good weights, if this process still has them, and say where the trouble began."""
        if bad_step == 1:
            where = "nothing was saved: it was the first step"
        elif self.state.global_step < bad_step and not stepped:
            where = f"the weights before it are in {self._save_last_step()}"
        else:
            kept = checkpoints.complete_checkpoints(Path(cast(str, self.args.output_dir)))
            where = f"they were not saved; the newest checkpoint is {kept[-1] if kept else 'none'}"
        update = (bad_step - 1) // self.plan.inner_epochs + 1
        raise NonFiniteLossError(
            f"update {update}, optimiser step {bad_step}: {what}; {where}. Lower learning_rate or step_size, raise "
            "magnet_strength, or train in float32 (bf16=False)"
        )

    def _check_judge(self, failure: JudgeError | RolloutError | None) -> None:
        """Stop, on all processes together, if judge or engine failed on any; what was trained so far is saved."""
        failures = [failure]
        if self.accelerator.num_processes > 1:  # all stop together, since they save together
            failures = gather_object([failure])
        first = next((error for error in failures if error is not None), None)
        if first is None:
            return
        where = "nothing was saved: it was the first update"
        if self.state.global_step > 0:
            folder = self._save_last_step()
            culprit = "rollout engine" if isinstance(first, RolloutError) else "judge"
            where = f"the run up to it is in {folder}: mend the {culprit}, then go on with resume_from_checkpoint"
        kind = RolloutError if isinstance(first, RolloutError) else JudgeError
        raise kind(f"update {self.update}: {first}; {where}") from failure

    def _save_last_step(self) -> Path:
        """Save the run as it was after its last finished optimiser step; returns the checkpoint's folder."""
        step = self.state.global_step
        cast(Any, self.optimizer).zero_grad()
        if self.inner_epoch == 0:
            self._experiences = []  # of the update that failed; the checkpoint is of the one before
        if self._saved_step != step:
            self._save_checkpoint(cast(nn.Module, self.model), None)
        return Path(cast(str, self.args.output_dir)) / f"checkpoint-{step}"

    # ---- checkpoints -------------------------------------------------------------------------------------------

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]  # the rest goes through as it is
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train; see `transformers.Trainer.train`.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the newest complete one of ``output_dir``.
            **kwargs: Passed on.

        Returns:
            The result of `transformers.Trainer.train`.

        Raises:
            CheckpointError: The checkpoint is incomplete, damaged or of another run, or was written with weights that
                are sharded in another way; or saving failed.
            JudgeError: The judge failed; a checkpoint of the run up to the update before is written first.
            ConfigError: The output folder holds another run.
            NonFiniteLossError: The loss or its gradient is infinite or NaN.
            TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is written.
        """
        run_dir = Path(cast(str, self.args.output_dir))
        if resume_from_checkpoint:
            folder = _checkpoint_named(run_dir, resume_from_checkpoint)
            state = checkpoints.read_state(folder, self.settings)
            if state["played"] != checkpoints.played(self.plan, state["update"]):
                raise CheckpointError(
                    f"{folder} was written after playing other prompts than this run would have played by update "
                    f"{state['update']}; resume with the same dataset, num_train_epochs and max_steps, or start a new "
                    "run in another output_dir"
                )
            if state.get("start", self.start_digest) != self.start_digest:  # older checkpoints do not say
                raise CheckpointError(
                    f"{folder} was written while training another model, or with other adapter settings; resume with "
                    "the same model and peft_config, or start a new run in another output_dir"
                )
            self.magnet_moves = list(state["magnet_moves"])
            self.first_move = state.get("first_move")
            if folder.resolve() == (run_dir / f"checkpoint-{state['step']}").resolve():
                self._saved_step = state["step"]
            self._spending.total = Ledger(**state.get("ledger", {}))  # older checkpoints have none
            if any(budget.reached(self.ledger) for budget in self.settings.budgets):
                self._play_no_more_than(state["step"])
            checkpoints.check_weights(folder, sharded=self.is_fsdp_enabled)
            resume_from_checkpoint = str(folder)
        elif not self.settings.overwrite_output_dir:
            checkpoints.refuse_other_run(run_dir)
        elif self.args.should_save:
            checkpoints.remove_all(run_dir)
        if self.args.should_save:
            (run_dir / LEDGER_FILE).unlink(missing_ok=True)  # it says that a run is finished
        self._spending.start()
        try:
            with self.signals.installed(), self._judge_at_rest():
                result = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        finally:
            self.close_engine()
        ended = self.budget_reached or self.state.global_step >= self.state.max_steps
        if ended and self.args.should_save:
            reason = "budget" if self.budget_reached else "max_steps or end of data"
            write_ledger(run_dir, self.ledger, finished=True, reason=reason)
        if self.signals.received is not None and not ended:
            raise TrainingInterrupted(self.signals.received, run_dir / f"checkpoint-{self.state.global_step}")
        return result

    def close_engine(self) -> None:
        """Give back what a rollout engine holds."""

    @contextmanager
    def _judge_at_rest(self) -> Iterator[None]:
        """Leave no question to the judge behind when training stops in the middle of a step."""
        try:
            yield
        except BaseException as error:
            # Who stops the program from outside does not wait for answers.
            self._judging.stop(wait=isinstance(error, Exception))
            raise

    def _play_no_more_than(self, steps: int) -> None:
        """Cut the stream after the first optimiser steps, since a budget is used up by them."""
        self.args.max_steps = steps
        self.train_dataset = Subset(cast(Any, self.train_dataset), range(steps * self.plan.prompts_per_update))

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Wrap the model; then the roles follow it, if its weights have been sharded."""
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._shard_roles()
        return prepared

    def _shard_roles(self) -> None:
        if isinstance(self.roles.sharding, WholeWeights):
            shard_roles(self.roles, self.accelerator, self.deepspeed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        if checkpoints.has_shards(folder) and not self.is_fsdp_enabled:
            checkpoints.load_whole_policy(folder, self.roles.current)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_what_else_there_is(folder)

    def _load_what_else_there_is(self, folder: Path) -> None:
        """Roles, the open batch, the prediction and the critic of a checkpoint."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:  # the policy has been sharded just before
            self._shard_roles()
        checkpoints.load_roles(folder, self.roles)
        self._experiences = checkpoints.load_experiences(folder, self.args.process_index)
        self.prediction.load_state_dict(checkpoints.load_prediction(folder), cast(Any, self.optimizer))
        if self.critic is not None:
            self.critic.load(folder)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the optimiser's state; that of FSDP is by the names of weights, and fits whole ones too."""
        if checkpoint is not None and self.is_deepspeed_enabled:  # which loads the policy without asking us
            self._load_what_else_there_is(Path(checkpoint))
        if checkpoint is None or not checkpoints.has_shards(Path(checkpoint)):
            return super()._load_optimizer_and_scheduler(checkpoint)
        folder, optimizer = Path(checkpoint), cast(Any, self.optimizer)
        with self._without_critic():
            if self.is_fsdp_enabled:
                super()._load_optimizer_and_scheduler(checkpoint)
            else:
                checkpoints.load_optimizer_by_name(folder, self.roles.current, optimizer)
        if self.critic is not None:
            self.critic.load_optimizer(folder, optimizer)
        if not self.is_fsdp_enabled:
            checkpoints.load_schedule(folder, cast(Any, self.lr_scheduler))
        return None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the optimiser's state; FSDP's, by the names of the policy's weights, without the critic's part."""
        with self._without_critic() if self.is_fsdp_enabled else nullcontext():
            super()._save_optimizer_and_scheduler(output_dir)

    def _without_critic(self) -> AbstractContextManager[None]:
        """Within it the optimiser is that of the policy alone."""
        return nullcontext() if self.critic is None else self.critic.out_of(cast(Any, self.optimizer))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save everything, mark the checkpoint as complete, and only then remove older ones."""
        with checkpoints.whole_checkpoint(self.args, self.state) as folder:
            super()._save_checkpoint(model, trial)
            checkpoints.save_experiences(folder, self._experiences, self.args.process_index)
            checkpoints.save_roles(folder, self.roles, writes=self.args.should_save)
            if self.critic is not None:
                self.critic.save(folder, cast(Any, self.optimizer), writes=self.args.should_save)
            prediction = self.prediction.state_dict()
            if self.args.should_save:
                checkpoints.save_prediction(folder, prediction)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                counters = {
                    "step": self.state.global_step,
                    "update": self.state.global_step // self.plan.inner_epochs,
                    "magnet_moves": self.magnet_moves,
                    "first_move": self.first_move,
                    "start": self.start_digest,
                    "ledger": self.ledger.to_dict(),
                    "played": checkpoints.played(self.plan, self.state.global_step // self.plan.inner_epochs),
                }
                checkpoints.write_state(folder, self.settings, counters)
            self._saved_step = self.state.global_step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy as a whole, so that anything can load it; see `transformers.Trainer.save_model`."""
        if isinstance(self.roles.sharding, WholeWeights):
            return super().save_model(output_dir, _internal_call)
        self._save(output_dir, self._whole_policy())
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _whole_policy(self) -> dict[str, Tensor]:
        """The weights to save, gathered one by one; empty on processes that save nothing."""
        model, sharding = self.roles.current, self.roles.sharding
        sharding.settle(model)
        adapter = isinstance(model, PeftModel)
        saved: dict[int, Tensor] = {}  # tied weights stay one
        state: dict[str, Tensor] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if adapter and not tensor.requires_grad:  # the base is not saved, nor are the frozen roles
                continue
            if id(tensor) not in saved:
                whole = sharding.whole(tensor)
                saved[id(tensor)] = whole.detach().to("cpu", copy=True) if self.args.should_save else whole.new_empty(0)
            state[plain_name(name)] = saved[id(tensor)]
        return state if self.args.should_save else {}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the policy alone: the other roles are not part of the result (checkpoints keep them apart)."""
        if not isinstance(self.model, PeftModel):
            return super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return None
        folder = cast(str, output_dir if output_dir is not None else self.args.output_dir)
        Path(folder).mkdir(parents=True, exist_ok=True)
        adapters = list(self.model.active_adapters)
        self.model.save_pretrained(folder, state_dict=state_dict, selected_adapters=adapters)
        generation = getattr(self.roles.current, "generation_config", None)
        if generation is not None:
            generation.save_pretrained(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)  # type: ignore[union-attr]
        return None


def _checkpoint_named(run_dir: Path, resume: str | bool) -> Path:
    """The checkpoint that ``resume`` names: True is the newest complete one of the run."""
    return checkpoints.latest_checkpoint(run_dir) if resume is True else Path(str(resume))
