"""Settings of a method that cannot work together, or that nothing would look at; each error says what to do."""

import inspect
from typing import TYPE_CHECKING

from magnetar.errors import ConfigError
from magnetar.methods import METHODS

if TYPE_CHECKING:
    from magnetar.training.config import NashConfig

__all__ = ["check_combinations", "check_ineffective", "check_magnet"]


def check_magnet(args: "NashConfig") -> None:
    """Refuse settings of the magnet that it would never look at.

    Raises:
        ConfigError: There are some.
    """
    if args.opponent == "magnet" and args.method == "mirror_descent":
        raise ConfigError("opponent='magnet', but method 'mirror_descent' has no magnet; use opponent='reference'")
    accepted = inspect.signature(METHODS[args.method]).parameters
    if "magnet" not in accepted:
        for name in ("magnet_schedule", "magnet_every", "magnet_ema_rate", "magnet_shrink"):
            if getattr(args, name) is not None and not (name == "magnet_shrink" and "shrink" in accepted):
                raise ConfigError(
                    f"{name} is {getattr(args, name)!r}, but method {args.method!r} has no magnet that moves; "
                    "remove it, or choose method 'mpo' or 'mpo_rt'"
                )
    if args.magnet_ema_rate is not None and args.magnet_schedule != "ema":
        raise ConfigError(
            f"magnet_ema_rate is {args.magnet_ema_rate}, but the magnet is no moving average; set "
            "magnet_schedule='ema' or remove it"
        )
    if args.magnet_shrink is not None and args.magnet_schedule != "adaptive" and "shrink" not in accepted:
        raise ConfigError(
            f"magnet_shrink is {args.magnet_shrink}, but the magnet does not watch the steps; set "
            "magnet_schedule='adaptive' or remove it"
        )
    if args.magnet_every is not None and args.magnet_schedule not in (None, "every"):
        raise ConfigError(
            f"magnet_every is {args.magnet_every}, but magnet_schedule={args.magnet_schedule!r} does not count "
            "updates; remove it or set magnet_schedule='every'"
        )
    if args.magnet_schedule == "round" and args.num_rounds == 1:
        raise ConfigError(
            "magnet_schedule='round' with num_rounds=1 would move the magnet only when training is over; set "
            "num_rounds to 2 or more, or magnet_schedule='every' with magnet_every"
        )


def check_ineffective(args: "NashConfig") -> None:
    """Refuse settings of the objective that it would never look at.

    Raises:
        ConfigError: There are some.
    """
    for name in ("critic_learning_rate", "critic_model"):
        if getattr(args, name) is not None and not args.build_method().sampled_objective.needs_value:
            raise ConfigError(
                f"{name} is {getattr(args, name)!r}, but method {args.method!r} has no critic; remove it, or "
                "choose method 'ppo'"
            )
    if args.proximal != "clip":
        return
    if args.step_size is not None:
        raise ConfigError(
            f"step_size is {args.step_size}, but with proximal='clip' the learning rate and clip_range alone set "
            "the step; remove step_size or set proximal='kl'"
        )
    if args.kl_estimator is not None and not (
        args.build_method().sampled_objective.needs_magnet and args.method in ("mpo", "mmd")
    ):
        raise ConfigError(
            f"kl_estimator is {args.kl_estimator!r}, but the loss of method {args.method!r} with proximal='clip' "
            "has no KL term; remove kl_estimator or set proximal='kl'"
        )


def check_combinations(args: "NashConfig") -> None:
    """Refuse settings that contradict each other.

    Raises:
        ConfigError: There are some.
    """
    method = args.build_method()
    objective = method.sampled_objective
    # A critic needs no group for its baseline.
    grouped = (method.opponent.is_self_play and not objective.needs_value) or objective.compares_group
    if objective.needs_reward and grouped and args.num_generations < 2:
        raise ConfigError(
            f"num_generations is {args.num_generations}, expected at least 2: the baseline of {args.method!r} is "
            "the rewards of the other responses of the group; raise it, or choose method 'ppo', which has a critic"
        )
    if grouped and args.num_generations < 2:
        raise ConfigError(
            f"num_generations is {args.num_generations}: self-play compares the responses of a group, so a group "
            "needs at least 2; raise num_generations, or draw opponents with opponent='reference'"
        )
    if method.opponent.is_self_play and method.prediction == "none" and args.num_opponents is not None:
        raise ConfigError(
            f"num_opponents is {args.num_opponents}, but with opponent='current' the opponents are the other "
            "responses of the group; remove it, or set opponent='reference' or 'magnet'"
        )
    if method.magnet.needs_progress and method.sample_from != "current":
        raise ConfigError(
            f"sample_from is {method.sample_from!r}, but an adaptive magnet watches how far each update moves the "
            "policy from the one that its responses were drawn from; set sample_from='current', or magnet_schedule "
            "'round' or 'every'"
        )
    clips_always = "proximal" not in inspect.signature(METHODS[args.method]).parameters
    if args.clip_range is not None and args.proximal != "clip" and not clips_always:
        raise ConfigError("clip_range is set but nothing is clipped; set proximal='clip' or remove clip_range")
    steps = args.steps_per_update
    if args.max_steps > 0 and args.max_steps % steps:
        counted = f"inner_epochs={args.inner_epochs}"
        if steps != args.inner_epochs:
            counted = f"the {steps} optimiser steps of an update of {args.method!r} (two halves of {counted})"
        raise ConfigError(
            f"max_steps is {args.max_steps}, not a multiple of {counted}: the last update would be cut short; use "
            f"{args.max_steps - args.max_steps % steps} or {args.max_steps + steps - args.max_steps % steps}"
        )
    unfit = {
        "dataloader_num_workers": "prompts need no workers",
        "remove_unused_columns": "rows of prompts have no columns to spare",
        "auto_find_batch_size": "the plan of prompts is made for one batch size; lower max_tokens_per_pass instead",
        "ignore_data_skip": "a resumed run would play other prompts than the uninterrupted one",
    }
    for name, reason in unfit.items():
        if getattr(args, name):
            raise ConfigError(f"{name} is {getattr(args, name)!r}, but {reason}; remove it")
