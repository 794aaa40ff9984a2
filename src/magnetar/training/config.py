"""Settings of `NashTrainer`: those of `transformers.TrainingArguments`, and what self-play adds."""

from dataclasses import dataclass, replace

from transformers import TrainingArguments

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods import (
    METHODS,
    PUBLISHED_NAMES,
    SAMPLE_FROM,
    AdaptiveMagnet,
    EachRound,
    Ema,
    EveryNUpdates,
    FixedMagnet,
    MagnetSchedule,
    Method,
    Opponent,
    build_method,
)
from magnetar.training.ledger import Budget, counted_answers
from magnetar.training.method_checks import check_combinations, check_ineffective, check_magnet
from magnetar.training.rollout_config import RolloutFields
from magnetar.training.rollout_config import setting as _setting

__all__ = ["CRITIC_LEARNING_RATE", "MAGNET_SCHEDULES", "NashConfig"]

MAGNET_SCHEDULES = ("every", "round", "ema", "adaptive", "fixed")
CRITIC_LEARNING_RATE = 9e-6  # of PPO's critic in arXiv:2410.16714
LAYOUTS = ("auto", "packed", "padded")
ON_LONG_PROMPT = ("drop", "error")


@dataclass
class NashConfig(RolloutFields, TrainingArguments):
    """Settings of a self-play run; every field of `transformers.TrainingArguments` is here too.

    An *update* is one batch of fresh responses and all the optimiser steps taken on it (``inner_epochs`` of them). The
    batch of an update is ``per_device_train_batch_size × gradient_accumulation_steps × processes`` prompts, each with
    ``num_generations`` responses. Fields left at None keep the preset of the method.

    Raises:
        ConfigError: A value, or a combination of values, that cannot work; the message says why and what to do.
    """

    # The method
    method: str = _setting("mpo", "Name of the method; `magnetar methods` lists them.")
    step_size: float | None = _setting(
        None, "Step size η against KL to the behaviour policy; felt when inner_epochs > 1."
    )
    magnet_strength: float | None = _setting(None, "Magnet strength α: win probability per nat of KL to the magnet.")
    kl_coef: float | None = _setting(
        None, "Weight β of KL to the reference: in logits per nat (DPO), or reward per nat (ppo, rloo, grpo)."
    )
    reference_weight: float | None = _setting(None, "Weight of the reference in the opponent of nash_md_pg.")
    loss: str | None = _setting(None, "Form of the magnet's methods: policy_gradient, or regression on payoffs.")
    target: str | None = _setting(None, "What pairs are regressed on: pair (their preference), payoff or winner.")
    pairs: str | None = _setting(None, "Pairs of a group in the DPO loss: best_worst, or all.")
    hard_labels: bool | None = _setting(None, "Pairs are labelled with the winner instead of the win probability.")
    magnet_schedule: str | None = _setting(
        None, "When the magnet moves to the policy: every (magnet_every updates), round, ema, adaptive, or fixed."
    )
    magnet_every: int | None = _setting(None, "Updates between magnet moves; with schedule 'every'.")
    magnet_ema_rate: float | None = _setting(None, "Part of the way that the magnet moves each update; with 'ema'.")
    magnet_shrink: float | None = _setting(
        None, "Length of an update beside the first since the last move at which the magnet moves; with 'adaptive'."
    )
    sample_from: str | None = _setting(
        None, "Policy that responses are drawn from: current, or round_start (the preset of iterative_dpo)."
    )
    opponent: str = _setting("current", "Whose responses are the opponents: current (own group), magnet or reference.")
    num_opponents: int | None = _setting(
        None, "Responses drawn from the opponent per prompt, num_generations by default; not where it is the own group."
    )
    proximal: str | None = _setting(None, "What keeps the policy near the behaviour policy: kl, or clip as in PPO.")
    clip_range: float | None = _setting(None, "Half-width of the clipping interval of the ratio; with proximal 'clip'.")
    kl_estimator: str | None = _setting(None, "KL terms of the loss: exact over the vocabulary, or sampled.")
    scale_rewards: bool | None = _setting(None, "Divide advantages by the group's standard deviation: grpo.")
    token_average: bool | None = _setting(None, "Average a response's loss over its tokens instead of summing.")
    reward_clip: float | None = _setting(None, "Scores and penalties are held within ± this: ppo.")
    value_clip_range: float | None = _setting(None, "How far a value may move before its loss is clipped: ppo.")
    discount: float | None = _setting(None, "Discount γ of later tokens' rewards: ppo.")
    gae_lambda: float | None = _setting(None, "λ of generalised advantage estimation: ppo.")
    critic_learning_rate: float | None = _setting(None, "Learning rate of the critic, 9e-6 by default: ppo.")
    critic_model: str | None = _setting(
        None, "Model that the critic starts from, with the policy's tokenizer; a copy of the policy by default: ppo."
    )
    inner_epochs: int = _setting(1, "Optimiser steps on each batch of responses.")
    num_rounds: int = _setting(1, "Self-play rounds; the prompts are split evenly over them.")
    max_comparisons: int | None = _setting(
        None, "End after the update that reaches this many judge comparisons; max_steps and the data still bound it."
    )
    max_tokens: int | None = _setting(
        None, "End after the update that reaches this many generated tokens, the opponents' included."
    )

    # Responses
    num_generations: int = _setting(8, "Responses to each prompt: the group size G.")
    max_prompt_length: int = _setting(512, "Longest prompt in tokens, the chat template included.")
    on_long_prompt: str = _setting("drop", "What to do with longer prompts: drop (counted) or error.")
    max_completion_length: int = _setting(256, "Longest response in tokens.")
    temperature: float = _setting(1.0, "Sampling temperature; the policy is the model at this temperature.")
    top_p: float = _setting(1.0, "Nucleus sampling; below 1 the sampled responses are not quite the policy's.")
    top_k: int = _setting(0, "Sample among the k likeliest tokens; 0 for all.")
    max_responses_per_pass: int | None = _setting(
        None, "Responses generated, and judged, at a time; None for all of a micro-batch at once."
    )
    judge_in_background: bool | None = _setting(
        None,
        "Ask the judge on threads while later responses are generated and earlier ones learned from, with the same "
        "result; by default where the judge is known to leave the training's device free, as behind an endpoint.",
    )

    # Passes and memory
    logprob_layout: str = _setting("auto", "Log-probability passes: packed groups, padded rows, or auto.")
    max_tokens_per_pass: int = _setting(4096, "Token budget of one log-probability pass.")
    activation_offloading: bool = _setting(
        False, "Keep activations in main memory between forward and backward pass (see also activation_checkpointing)."
    )
    frozen_roles_on_cpu: bool = _setting(False, "Full fine-tuning: keep magnet and reference on the CPU between uses.")
    disable_dropout: bool = _setting(True, "Set dropout to zero, so that all roles see the same network.")

    # Log
    sample_steps: int = _setting(10, "Optimiser steps between written samples; 0 for none.")
    num_samples: int = _setting(2, "Prompts written each time, with all their responses and win probabilities.")
    print_samples: bool = _setting(False, "Also print the samples to the console.")
    eval_responses: int = _setting(1, "Responses per prompt and side when evaluating against the reference.")
    overwrite_output_dir: bool = _setting(
        False, "Allow an output folder that holds another run; its files are replaced."
    )

    # Defaults that differ from transformers'
    learning_rate: float = _setting(1e-6, "Learning rate of the optimiser (about 1e-4 with LoRA).")
    lr_scheduler_type: str = _setting("constant", "Learning-rate schedule.")
    num_train_epochs: float = _setting(1.0, "Passes of each round over its prompts.")
    per_device_train_batch_size: int = _setting(8, "Prompts per process and micro-batch.")
    logging_steps: float = _setting(1, "Optimiser steps between log lines.")
    remove_unused_columns: bool = _setting(False, "Fixed: the judge may need every column.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.method = PUBLISHED_NAMES.get(self.method, self.method)
        self._check_names()
        self._check_method()
        self._check_numbers()
        check_magnet(self)
        check_combinations(self)
        check_ineffective(self)
        self._check_activations()
        self._check_rollout()
        if self.ddp_find_unused_parameters is None:
            # Every trained weight takes part in every pass; looking for idle ones costs a walk over the graph.
            self.ddp_find_unused_parameters = False
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # pinning is for accelerators; without one it only warns

    def build_method(self) -> Method:
        """The method with these settings; fields left at None keep its preset.

        Raises:
            ConfigError: Unknown method, or a setting that it does not have.
        """
        method = build_method(
            self.method,
            step_size=self.step_size,
            magnet_strength=self.magnet_strength,
            magnet_every=self.magnet_every,
            magnet=self._magnet_schedule(),
            opponent=Opponent(self.opponent) if self.opponent != "current" else None,  # type: ignore[arg-type]
            proximal=self.proximal,
            clip_range=self.clip_range,
            kl_estimator=self.kl_estimator,
            kl_coef=self.kl_coef,
            loss=self.loss,
            target=self.target,
            pairs=self.pairs,
            hard_labels=self.hard_labels,
            reference_weight=self.reference_weight,
            scale_rewards=self.scale_rewards,
            token_average=self.token_average,
            reward_clip=self.reward_clip,
            value_clip_range=self.value_clip_range,
            discount=self.discount,
            gae_lambda=self.gae_lambda,
            shrink=self.magnet_shrink if self.magnet_schedule != "adaptive" else None,
        )
        if self.sample_from is None:
            return method
        return replace(method, sample_from=self.sample_from)  # type: ignore[arg-type] - the method checks the name

    @property
    def steps_per_update(self) -> int:
        """Optimiser steps of one update: its inner epochs, twice for an extragradient method."""
        return self.inner_epochs * (2 if self.build_method().prediction == "extragradient" else 1)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What the run may spend: ``max_comparisons`` and ``max_tokens``, where they are given."""
        given = {"comparisons": self.max_comparisons, "tokens": self.max_tokens}
        return tuple(Budget(unit, amount) for unit, amount in given.items() if amount is not None)  # type: ignore[arg-type]

    def updates_within(self, budget: Budget) -> int:
        """Most updates that a run can make before a budget is used up.

        Exact for comparisons; for tokens a response is at least one token, so that it is a loose bound.
        """
        if budget.unit == "updates":
            return budget.amount
        method = self.build_method()
        drawn = self.num_opponents or self.num_generations
        others = None if method.opponent.is_self_play else drawn
        if budget.unit == "tokens":
            return -(-budget.amount // ((self.num_generations + (others or 0)) * self.prompts_per_update))
        rewards_only = method.sampled_objective.needs_reward
        first = counted_answers(self.prompts_per_update, self.num_generations, others, rewards_only=rewards_only)
        again = counted_answers(self.prompts_per_update, self.num_generations, drawn)
        if method.prediction == "extragradient":
            first += again
        # Optimistic methods meet the policy before from the second update on.
        later = first + again if method.prediction == "optimistic" else first
        return 1 + max(0, -(-(budget.amount - first) // later))

    def check_held_out(self, given: bool) -> None:
        """Check that prompts to evaluate on were given when evaluations during training are asked for.

        Raises:
            ConfigError: They were not.
        """
        if self.eval_strategy != "no" and not given:
            strategy = getattr(self.eval_strategy, "value", self.eval_strategy)
            raise ConfigError(
                f"eval_strategy is {strategy!r}, but there are no held-out prompts; give an eval_dataset (eval_prompts "
                "or eval_holdout on the command line), or set eval_strategy='no'"
            )

    @property
    def prompts_per_update(self) -> int:
        """Prompts of one update over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * max(self.world_size, 1)

    def _magnet_schedule(self) -> MagnetSchedule | None:
        if self.magnet_schedule is None:
            return None
        if self.magnet_schedule == "every":
            # The preset's own period when none is given.
            return None if self.magnet_every is None else EveryNUpdates(self.magnet_every)
        if self.magnet_schedule == "ema":
            return Ema(self.magnet_ema_rate if self.magnet_ema_rate is not None else 0.05)
        if self.magnet_schedule == "adaptive":
            return AdaptiveMagnet(self.magnet_shrink) if self.magnet_shrink is not None else AdaptiveMagnet()
        return EachRound() if self.magnet_schedule == "round" else FixedMagnet()

    def _check_names(self) -> None:
        choices = {
            "method": (*METHODS, *PUBLISHED_NAMES),
            "sample_from": (None, *SAMPLE_FROM),
            "magnet_schedule": (None, *MAGNET_SCHEDULES),
            "logprob_layout": LAYOUTS,
            "on_long_prompt": ON_LONG_PROMPT,
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(unknown_name(name, value, [k for k in known if k]))

    def _check_method(self) -> None:
        reason = METHODS[self.method]().games_only_because
        if reason is not None:
            trained = ", ".join(name for name, make in METHODS.items() if make().games_only_because is None)
            raise ConfigError(
                f"method is {self.method!r}, which runs on exact games only: {reason}; expected one of {trained}"
            )

    def _check_numbers(self) -> None:
        for name in (
            "inner_epochs",
            "num_rounds",
            "num_generations",
            "max_prompt_length",
            "max_completion_length",
            "max_tokens_per_pass",
            "num_samples",
            "eval_responses",
            "per_device_train_batch_size",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected an integer of at least 1")
        if self.critic_learning_rate is not None and not self.critic_learning_rate > 0:
            raise ConfigError(f"critic_learning_rate is {self.critic_learning_rate}, expected a positive number")
        for name in ("num_opponents", "max_responses_per_pass", "magnet_every", "max_comparisons", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, expected an integer of at least 1")
        if self.sample_steps < 0:
            raise ConfigError(f"sample_steps is {self.sample_steps}, expected 0 (never) or more")
        if not self.temperature > 0:
            raise ConfigError(
                f"temperature is {self.temperature}, expected a positive number: self-play needs samples of the "
                "policy, not its most likely response"
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}, expected a number in (0, 1]")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}, expected 0 (all tokens) or more")

    def _check_activations(self) -> None:
        if self.activation_offloading and self.device.type == "cpu":
            raise ConfigError(
                "activation_offloading is set, but this run is on the CPU, where activations are in main memory "
                "already; remove it, or set activation_checkpointing to hold fewer of them"
            )
