"""`NashTrainer`: self-play on language models, on top of `transformers.Trainer`.

The trainer owns no mathematics. It moves data one way: prompts → responses → win probabilities → log-probabilities →
objective → optimiser step → magnet. No stage reaches back.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch.utils.data import SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from magnetar.data import limit_prompt_length, load_prompts, render_prompts
from magnetar.errors import ConfigError
from magnetar.evaluation import Matchup, package_versions, summarize
from magnetar.judges import Judge, build_judge, require_scores
from magnetar.methods import PolicyGradient
from magnetar.modeling.roles import make_roles
from magnetar.modeling.sharding import WholeWeights
from magnetar.rollout import RolloutEngine
from magnetar.training.activations import activation_context, checkpoint_activations
from magnetar.training.callbacks import ConsoleCallback, RunFilesCallback, StopSignals
from magnetar.training.collector import Collector
from magnetar.training.config import NashConfig
from magnetar.training.critic import critic_for
from magnetar.training.engines import make_engine
from magnetar.training.gathering import judging_for
from magnetar.training.held_out import play_against_reference
from magnetar.training.metrics import MeanMetrics
from magnetar.training.moving import MovingTrainer
from magnetar.training.passes import PassSettings
from magnetar.training.policy_passes import PolicyPasses
from magnetar.training.prediction import OpponentPrediction
from magnetar.training.preparation import choose_chunking, choose_layout, model_and_tokenizer, prepare_model
from magnetar.training.sharding import (
    agreed,
    check_sharding,
    keep_outputs_precise,
    loading_whole_models,
    will_be_sharded,
)
from magnetar.training.spending import Spending, end_training
from magnetar.training.starting_point import digest_of_start
from magnetar.training.stream import PromptStream, plan_stream
from magnetar.types import Role

__all__ = ["NashTrainer"]


class NashTrainer(MovingTrainer):
    """Train a language model towards the Nash equilibrium of a preference game by self-play.

    Args:
        model: A causal language model, a `PeftModel`, or a Hub id, folder or "demo".
        judge: A `Judge`, or a spec such as "panel" or "reward:MODEL"; see `magnetar.judges.build_judge`.
        args: Settings; the method is one of them.
        train_dataset: Prompts in TRL's prompt-only form, standard or conversational.
        eval_dataset: Held-out prompts on which `evaluate` plays the policy against the reference.
        processing_class: The tokenizer; loaded with the model when that is a name.
        peft_config: Trains an adapter of this form instead of all weights.
        callbacks: Further callbacks.
        rollout_engine: Generates responses; transformers' own generation by default.
        optimizers: As in `transformers.Trainer`.

    Raises:
        ConfigError: Settings that cannot work together.
        DataError: Prompts that are missing, empty or too long.
        JudgeError: A judge that cannot be built.
        ModelError: A model or tokenizer that cannot be used as asked.

    Source: arXiv:2410.16714, Algorithms 1 and 2.
    """

    _tag_names = ["magnetar", "nash-learning"]  # noqa: RUF012 - the name that transformers reads

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        judge: str | Judge | dict[str, Any] | Callable[..., Any],
        args: NashConfig,
        train_dataset: str | Dataset,
        eval_dataset: str | Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        rollout_engine: RolloutEngine | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ) -> None:
        args.check_held_out(eval_dataset is not None)
        if rollout_engine is None:
            args.check_engine()
        if args.n_gpu > 1:
            # torch's DataParallel, which one process would use, cannot split lists of prompts.
            print(f"one process uses 1 of the {args.n_gpu} visible GPUs; run with `accelerate launch` to use them all")
            args._n_gpu = 1
        self.method = args.build_method()
        with loading_whole_models():
            self.judge = build_judge(judge)
        if self.method.sampled_objective.needs_reward:
            require_scores(self.judge, f"method {self.method.name!r}")
        prompts = load_prompts(train_dataset)
        self.eval_prompts = load_prompts(eval_dataset) if eval_dataset is not None else None
        model, tokenizer = model_and_tokenizer(model, processing_class)
        if self.eval_prompts is not None:
            self.eval_prompts, _ = limit_prompt_length(self.eval_prompts, tokenizer, args.max_prompt_length, "drop")
        prompts, self.dropped_prompts = limit_prompt_length(
            prompts,
            tokenizer,
            args.max_prompt_length,
            args.on_long_prompt,  # type: ignore[arg-type]
        )
        # In nash_md the step also sets the opponent.
        proximal = isinstance(self.method.objective, PolicyGradient) and self.method.name != "nash_md"
        if args.inner_epochs == 1 and args.step_size is not None and proximal and args.process_index == 0:
            print(
                f"note: step_size={args.step_size:g} has no effect with inner_epochs=1: on its first step a batch's "
                "policy is still the one that sampled it, and the proximal term has no gradient there"
            )
        if self.dropped_prompts and args.process_index == 0:
            print(
                f"dropped {self.dropped_prompts} prompts longer than max_prompt_length={args.max_prompt_length} tokens"
            )

        plan = plan_stream(
            len(prompts),
            num_rounds=args.num_rounds,
            prompts_per_update=args.prompts_per_update,
            num_train_epochs=args.num_train_epochs,
            max_updates=args.max_steps // args.steps_per_update if args.max_steps > 0 else None,
            inner_epochs=args.steps_per_update,
            seed=args.seed,
        )
        args.max_steps = plan.optimizer_steps
        self.plan = plan
        # What a reader should see in place of a path or an object: "model", "dataset".
        self.labels: dict[str, str] = {}
        self.magnet_moves: list[int] = []
        self.first_move: float | None = None

        set_seed(args.seed)  # an adapter's random start belongs to the run's seed too
        model = prepare_model(model, peft_config, args)
        self.start_digest = agreed(digest_of_start(model), args.world_size)  # before roles are further adapters of it
        self.critic = critic_for(self.method, model, args)
        if self.critic is not None and optimizers[1] is not None:
            raise ConfigError(
                f"a learning-rate scheduler was given, but method {self.method.name!r} adds the critic's weights to "
                "the optimizer, of which it knows nothing; give the optimizer alone (optimizers=(optimizer, None)) and "
                "set lr_scheduler_type"
            )
        self.roles = make_roles(model, keep_on_cpu=args.frozen_roles_on_cpu, will_be_sharded=will_be_sharded(args))
        if self.method.sampled_objective.needs_magnet:
            self.roles.add("magnet")
        self.prediction = OpponentPrediction(self.method, self.roles, args.inner_epochs)
        self._sampler: Role = "current" if self.method.sample_from == "current" else "behavior"
        later_steps = self.method.sampled_objective.needs_behavior_distribution and plan.inner_epochs > 1
        self._keeps_behavior = later_steps and self._sampler == "current"
        if self._keeps_behavior or self._sampler == "behavior":
            self.roles.add("behavior")
        if self._sampler == "behavior" and args.num_rounds == 1 and args.process_index == 0:
            print(
                f"note: method {self.method.name!r} draws responses from the policy at the start of a round, and with "
                "num_rounds=1 that is the starting model throughout; set num_rounds, or sample_from='current'"
            )

        prompt_ids = render_prompts(prompts["prompt"], tokenizer)
        self._longest_prompt = max(map(len, prompt_ids))
        super().__init__(
            model=model,
            args=args,
            data_collator=cast(Any, _rows_as_they_are),
            train_dataset=PromptStream(plan, prompts["prompt"], prompt_ids),
            # `evaluate` plays whole match-ups; transformers only asks that a dataset exists.
            eval_dataset=self.eval_prompts,
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        check_sharding(
            self.accelerator,
            args,
            self.method,
            has_critic=self.critic is not None,
            has_adapter=isinstance(model, PeftModel),
        )
        keep_outputs_precise(self.accelerator)
        generation = getattr(self.roles.current, "generation_config", None)
        if generation is not None:
            # The policy is the model at this temperature: whoever loads it should sample it so.
            generation.do_sample, generation.temperature = True, args.temperature
            generation.top_p, generation.top_k = args.top_p, args.top_k
        self.model_accepts_loss_kwargs = False  # the objective's loss is a mean over prompts, not over tokens
        self._metrics = MeanMetrics()
        self._experiences = []
        self._micro_batches = []
        self._step_parts = None
        self._magnet_moved = False
        self._saved_step = -1
        self._optimizer_given = optimizers[0] is not None
        if self.critic is not None:
            if not will_be_sharded(args):
                self.critic.critic.to(self.accelerator.device)
            checkpoint_activations(self.critic.critic.model, args)
        self._activations = activation_context(model, None if self.critic is None else self.critic.critic, args)
        self._spending = Spending(self.accelerator)
        self._collector = self._make_collector(tokenizer, rollout_engine)
        self._judging = judging_for(self.judge, args, self.accelerator.device)
        self._policy_passes = PolicyPasses(self.roles, self.passes, cast(Any, self.accelerator.autocast))
        self._set_up_callbacks()

    # ---- set-up ------------------------------------------------------------------------------------------------

    def _make_collector(self, tokenizer: PreTrainedTokenizerBase, engine: RolloutEngine | None) -> Collector:
        args = self.settings
        engine = engine or make_engine(args, self.roles.current, tokenizer)
        return Collector(
            roles=self.roles,
            engine=engine,
            judge=self.judge,
            method=self.method,
            passes=PassSettings(
                args.temperature,
                self._layout(),
                args.max_tokens_per_pass,
                cast(int, tokenizer.pad_token_id),
                self._chunked(),
            ),
            group_size=args.num_generations,
            num_opponents=args.num_opponents or args.num_generations,
            seed=args.seed,
            record_behavior=self._keeps_experiences,
            autocast=cast(Any, self.accelerator.autocast),
            reused=self.plan.inner_epochs > 1 or self._sampler != "current",
            sampler=self._sampler,
            critic=None if self.critic is None else self.critic.critic,
        )

    def _layout(self) -> str:
        """How rows are laid out; found out by a pass, and so not before sharded weights are in place."""
        args = self.settings
        if will_be_sharded(args) and isinstance(self.roles.sharding, WholeWeights):
            return "padded"
        with torch.no_grad(), self.roles.use("current") as model:
            obstacle = None if self.critic is None else self.critic.obstacle
            return choose_layout(args.logprob_layout, model, args.process_index, obstacle)

    def _chunked(self) -> bool:
        """Whether the output layer is applied to a few tokens at a time; found out by a pass, as the layout is."""
        args = self.settings
        if will_be_sharded(args) and isinstance(self.roles.sharding, WholeWeights):
            return False
        with torch.no_grad(), self.roles.use("current") as model:
            return choose_chunking(model, args.process_index)

    def _shard_roles(self) -> None:
        if not isinstance(self.roles.sharding, WholeWeights):
            return
        super()._shard_roles()
        if not isinstance(self.roles.sharding, WholeWeights):
            passes = replace(self.passes, layout=self._layout(), chunked=self._chunked())
            self._collector = replace(self._collector, passes=passes)
            self._policy_passes = PolicyPasses(self.roles, self.passes, cast(Any, self.accelerator.autocast))

    def start_engine(self) -> None:
        """Start the rollout engine if it is one that has to be started: what cannot work is told before any step."""
        start = getattr(self._collector.engine, "start", None)
        if start is not None:
            tokenizer = cast(Any, self.processing_class)
            held_out = [] if self.eval_prompts is None else render_prompts(self.eval_prompts["prompt"], tokenizer)
            start(self.roles.current, max([self._longest_prompt, *map(len, held_out)]))

    @property
    def rollout_engine(self) -> RolloutEngine:
        """What generates the responses."""
        return self._collector.engine

    def close_engine(self) -> None:
        """Give back what the rollout engine holds."""
        close = getattr(self._collector.engine, "close", None)
        if close is not None:
            close()

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The policy's optimiser, with the critic's weights as a group of their own."""
        self._optimizer_given = self._optimizer_given or self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        if not will_be_sharded(self.settings):
            self._add_critic(optimizer)
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """The schedule of all learning rates; weights in shards reach the optimiser only now, the critic's included."""
        if self.critic is not None and self.is_fsdp_enabled:
            self._shard_roles()
            self.critic.shard(self.roles.sharding, self.accelerator)
            self._add_critic(cast(Any, self.optimizer))
        return super().create_scheduler(*args, **kwargs)

    def _add_critic(self, optimizer: torch.optim.Optimizer) -> None:
        if self.critic is None:
            return
        decayed = () if self._optimizer_given else self.get_decay_parameter_names(self.critic.critic.model)
        self.critic.add_to(optimizer, None if self._optimizer_given else self.args.weight_decay, decayed)

    def _set_up_callbacks(self) -> None:
        # Ours print one line an update and keep the bar; transformers' print dictionaries.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.signals = StopSignals(self.accelerator)
        self.add_callback(_MagnetCallback(self))
        self.add_callback(self.signals)
        self.add_callback(RunFilesCallback(self))
        if not self.args.disable_tqdm and self.args.process_index == 0:
            self.add_callback(ConsoleCallback())

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        """The stream is already in order."""
        return SequentialSampler(cast(Any, train_dataset if train_dataset is not None else self.train_dataset))

    def floating_point_ops(self, inputs: Any) -> int:
        """Not estimated: generation dominates, and transformers' estimate does not know of it."""
        return 0

    def run_settings(self) -> dict[str, Any]:
        """What a reader needs to know of the run, as plain values; written to `magnetar_config.json`."""
        return {
            "method": self.method.name,
            "method_source": self.method.source,
            "objective": dict(vars(self.method.sampled_objective)),
            "magnet": self.method.magnet.describe() if self.method.sampled_objective.needs_magnet else "none",
            "opponent": self.method.opponent.role,
            "sample_from": self.method.sample_from,
            "judge": self.judge.name,
            "model": getattr(self.roles.current, "name_or_path", None) or type(self.roles.current).__name__,
            "dataset": None,
            **self.labels,
            "prompts": len(set(self.plan.rows.tolist())),
            "dropped_prompts": self.dropped_prompts,
            "updates_per_round": list(self.plan.updates_per_round),
            "prompts_per_update": self.plan.prompts_per_update,
            "logprob_layout": self.passes.layout,
            "processes": self.args.world_size,
            "versions": package_versions(),
            "arguments": self.settings.in_effect(),
        }

    # ---- metrics -----------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means since the last line, over all processes; see the class of metrics in the docs."""
        if "loss" in logs:
            means = self._metrics.reduce(self.accelerator)
            micro = self.args.gradient_accumulation_steps
            for name in means:
                if name.startswith("seconds_"):
                    means[name] *= micro
            speed = means.pop("tokens_per_second", 0.0)
            if speed > 0:  # later inner epochs generate nothing
                means["tokens_per_second"] = speed * self.accelerator.num_processes
            done = self.state.global_step
            update = -(-done // self.plan.inner_epochs)
            logs = {
                "update": update,
                "round": self.plan.round_of(update) + 1,
                **logs,
                **means,
                "magnet_moved": int(self._magnet_moved),
                "total_comparisons": self.ledger.comparisons,
                "total_tokens": self.ledger.generated_tokens,
            }
            self._magnet_moved = False
        super().log(logs, start_time)

    # ---- evaluation --------------------------------------------------------------------------------------------

    def play_against_reference(self, judge: Judge | None = None, progress: bool = False) -> Matchup:
        """Play the policy against where it started; see `magnetar.training.held_out.play_against_reference`."""
        matchup = play_against_reference(self, judge=judge, progress=progress)
        assert matchup is not None  # the dataset is not empty
        return matchup

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Win rate of the policy against the reference on held-out prompts.

        Args:
            eval_dataset: Other prompts than those given to the trainer.
            ignore_keys: Unused.
            metric_key_prefix: Put before each name.

        Returns:
            ``eval_win_rate`` with the ends of its 95% interval, share of ties, lengths and truncated shares.
        """
        if eval_dataset is not None and eval_dataset is not self.eval_prompts:
            self.eval_prompts = load_prompts(eval_dataset)
        summary = summarize(self.play_against_reference())
        self.judge.stats()  # its counts of this match-up are not those of the next update
        values = {
            "win_rate": summary.win_rate.value,
            "win_rate_low": summary.win_rate.low,
            "win_rate_high": summary.win_rate.high,
            "ties": summary.ties,
            "response_tokens": summary.policy.tokens,
            "reference_tokens": summary.opponent.tokens,
            "truncated": summary.policy.truncated,
        }
        metrics = {f"{metric_key_prefix}_{k}": float(v) for k, v in values.items() if v is not None}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _MagnetCallback(TrainerCallback):
    """Tells the trainer that an optimiser step is over, before anything is logged or saved."""

    def __init__(self, trainer: NashTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._trainer.start_engine()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._trainer.before_optimizer_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer.after_optimizer_step()
        if self._trainer.budget_reached:
            end_training(args, state, control)


def _rows_as_they_are(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows stay a list: lengths differ, and the passes do their own padding."""
    return list(rows)
