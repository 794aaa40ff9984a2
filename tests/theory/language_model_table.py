"""What each method must do on language models: one entry for every method that they can be trained with."""

from dataclasses import dataclass, replace
from typing import Any

from language_model_exact import (
    Formula,
    actor_critic,
    against,
    against_itself,
    against_mixture,
    centred,
    clipped,
    differences,
    direct_preference,
    extrapolated,
    group_relative,
    leave_one_out,
    most_extreme_pair,
    own_preference,
    own_winner,
    pairs,
    pointwise,
    policy_gradient,
    standardised,
    standardised_in_twos,
)

from magnetar.methods import METHODS

ETA, ALPHA, CLIP = 0.8, 0.3, 0.02
WIDE = 0.99  # a clipping interval that nothing leaves
MIXED = 0.35  # the reference's weight in the opponent of nash_md_pg
PULL = ETA * ALPHA
GROUP = 8  # responses sampled to a prompt

TRAINABLE = tuple(name for name, make in METHODS.items() if make().games_only_because is None)
"""Methods that language models can be trained with."""


@dataclass(frozen=True)
class Case:
    """One way to set a method, and the exact loss that the trainer must have the gradient of.

    Attributes:
        settings: Fields of `NashConfig` beside the method.
        formula: The loss over every response.
        sampled: What the mean of sampled gradients is the gradient of, where that is known not to be ``formula``; None
            where sampling is unbiased.
        bias: Why it is not.
        group: Responses sampled to a prompt.
        unbiased_at_first_step: Whether sampling is unbiased only while the policy is the one that sampled the batch.
    """

    settings: dict[str, Any]
    formula: Formula
    sampled: Formula | None = None
    bias: str = ""
    group: int = GROUP
    unbiased_at_first_step: bool = False


def _policy_gradients(
    payoff: Formula = against_itself,
    *,
    strength: float = 0.0,
    transformed: bool = False,
    options: bool = True,
    opponents: bool = True,
) -> dict[str, Case]:
    """A policy-gradient method with each of its options."""
    base: dict[str, Any] = {"step_size": ETA} | ({"magnet_strength": strength} if strength else {})
    exact = policy_gradient(payoff, step_size=ETA, strength=strength, transformed=transformed)
    if not options:
        return {"preset": Case(base, exact)}
    clip = {name: value for name, value in base.items() if name != "step_size"}
    cases = {
        "sampled KL": Case({**base, "kl_estimator": "sampled"}, exact),
        "exact KL": Case({**base, "kl_estimator": "exact"}, exact),
        "clipping": Case(
            {**clip, "proximal": "clip", "clip_range": CLIP},
            clipped(payoff, clip_range=CLIP, strength=strength, transformed=transformed),
            bias=NOISY_SIGN,
            unbiased_at_first_step=True,
        ),
    }
    if opponents:
        frozen = policy_gradient(against("reference"), step_size=ETA, strength=strength, transformed=transformed)
        cases["frozen opponents"] = Case({**base, "opponent": "reference"}, frozen)
    return cases


NOISY_SIGN = "which responses are clipped depends on the sign of a noisy payoff"
OWN_PAIR = (
    "the pair (i, i) has no weight among samples but 1/G, and the payoffs of a group count the pair (i, j) itself, "
    "which makes differences too large by G/(G − 1)"
)
REGRESSION = pairs(PULL / (1 + PULL), ETA / (1 + PULL), own_preference)
MAGNETIC = {"step_size": ETA, "magnet_strength": ALPHA}


def _direct_preferences() -> dict[str, Case]:
    """The DPO loss with each of its options."""
    return {
        "all pairs, soft labels": Case(
            {"kl_coef": ALPHA, "pairs": "all", "hard_labels": False}, direct_preference(ALPHA, hard=False)
        ),
        "all pairs, hard labels": Case(
            {"kl_coef": ALPHA, "pairs": "all", "hard_labels": True}, direct_preference(ALPHA, hard=True)
        ),
        "best and worst, hard labels": Case(
            {"kl_coef": ALPHA, "pairs": "best_worst", "hard_labels": True},
            most_extreme_pair(ALPHA, hard=True),
            # Of two responses the one wins most and the other least: every pair, as often as it is drawn.
            sampled=direct_preference(ALPHA, hard=True),
            bias="the best and the worst of a sample are not those of the policy; of two they are any pair",
            group=2,
        ),
        "best and worst, soft labels": Case(
            {"kl_coef": ALPHA, "pairs": "best_worst", "hard_labels": False},
            most_extreme_pair(ALPHA, hard=False),
            sampled=direct_preference(ALPHA, hard=False),
            bias="the best and the worst of a sample are not those of the policy; of two they are any pair",
            group=2,
        ),
    }


CASES: dict[str, dict[str, Case]] = {
    "mpo": {
        **_policy_gradients(strength=ALPHA),
        "regression": Case({**MAGNETIC, "loss": "regression"}, REGRESSION),
        "opponents of the magnet": Case(
            {**MAGNETIC, "opponent": "magnet"}, policy_gradient(against("magnet"), step_size=ETA, strength=ALPHA)
        ),
        "regression on payoffs": Case(
            {**MAGNETIC, "loss": "regression", "opponent": "reference"},
            pairs(PULL / (1 + PULL), ETA / (1 + PULL), differences(against("reference"))),
            sampled=pairs(
                PULL / (1 + PULL), ETA / (1 + PULL), differences(against("reference")), factor=(GROUP - 1) / GROUP
            ),
            bias="the pair (i, i) is counted among the G² pairs of a group, and its loss is zero",
        ),
    },
    "mpo_rt": _policy_gradients(strength=ALPHA, transformed=True),
    "mmd": {
        **_policy_gradients(strength=ALPHA),
        "regression": Case({**MAGNETIC, "loss": "regression"}, REGRESSION),
    },
    "mirror_descent": _policy_gradients(),
    "sppo": {
        "preset": Case({"step_size": ETA}, pointwise(ETA)),
        "frozen opponents": Case({"step_size": ETA, "opponent": "reference"}, pointwise(ETA, against("reference"))),
    },
    "omd": _policy_gradients(strength=ALPHA, transformed=True),
    "inpo": {
        "soft labels": Case({**MAGNETIC, "hard_labels": False}, pairs(PULL, ETA, own_preference)),
        "hard labels": Case({**MAGNETIC, "hard_labels": True}, pairs(PULL, ETA, own_winner)),
    },
    "online_ipo": {
        "pair": Case({"magnet_strength": ALPHA, "target": "pair"}, pairs(1.0, 1 / ALPHA, own_preference)),
        "winner": Case({"magnet_strength": ALPHA, "target": "winner"}, pairs(1.0, 1 / ALPHA, own_winner)),
        "payoff": Case(
            {"magnet_strength": ALPHA, "target": "payoff"},
            pairs(1.0, 1 / ALPHA, differences(against_itself)),
            sampled=pairs(1.0, GROUP / (GROUP - 1) / ALPHA, differences(against_itself), factor=(GROUP - 1) / GROUP),
            bias=OWN_PAIR,
        ),
    },
    "nash_md": _policy_gradients(against_mixture(PULL), strength=ALPHA, transformed=True, options=False),
    "egpo": {
        "policy gradient": Case(
            MAGNETIC, policy_gradient(against("lookahead"), step_size=ETA, strength=ALPHA, transformed=True)
        ),
        "regression": Case(
            {"magnet_strength": ALPHA, "loss": "regression"},
            pairs(1.0, 1 / ALPHA, differences(against("lookahead"))),
            sampled=pairs(1.0, 1 / ALPHA, differences(against("lookahead")), factor=(GROUP - 1) / GROUP),
            bias="the pair (i, i) is counted among the G² pairs of a group, and its loss is zero",
        ),
    },
    "nash_md_pg": {
        name: replace(case, settings={**case.settings, "reference_weight": MIXED})
        for name, case in _policy_gradients(
            against_mixture(MIXED), strength=ALPHA, transformed=True, opponents=False
        ).items()
    },
    "omwu": {
        "policy gradient": Case({"step_size": ETA}, policy_gradient(extrapolated, step_size=ETA)),
        "regression": Case({"step_size": ETA, "loss": "regression"}, pairs(0.0, ETA, differences(extrapolated))),
    },
    "mpo_optimistic": {"preset": Case(MAGNETIC, policy_gradient(extrapolated, step_size=ETA, strength=ALPHA))},
    "extragradient": _policy_gradients(against("lookahead"), options=False),
    "iterative_dpo": _direct_preferences(),
    "online_dpo": _direct_preferences(),
    "ppo": {
        "preset": Case({}, actor_critic(0.02, 0.2)),
        "every option": Case(
            {
                "kl_coef": ALPHA,
                "clip_range": CLIP,
                "value_clip_range": 0.05,
                "reward_clip": 0.4,
                "discount": 0.9,
                "gae_lambda": 0.6,
                "token_average": False,
            },
            actor_critic(ALPHA, CLIP, value_clip=0.05, reward_clip=0.4, discount=0.9, decay=0.6, average=False),
        ),
    },
    "rloo": {
        # Small groups: counting a response in its own baseline would change a third of the gradient.
        "summed": Case({"kl_coef": ALPHA, "clip_range": WIDE}, leave_one_out(ALPHA, WIDE, average=False), group=3),
        "averaged": Case(
            {"kl_coef": ALPHA, "clip_range": WIDE, "token_average": True}, leave_one_out(ALPHA, WIDE, average=True)
        ),
        "clipping": Case(
            {"kl_coef": ALPHA, "clip_range": CLIP},
            leave_one_out(ALPHA, CLIP, average=False),
            bias=NOISY_SIGN,
            unbiased_at_first_step=True,
        ),
    },
    "grpo": {
        "preset": Case(
            {"kl_coef": ALPHA, "clip_range": WIDE},
            group_relative(ALPHA, WIDE, standardised, average=True, k3=True),
            sampled=group_relative(ALPHA, WIDE, standardised_in_twos, average=True, k3=True),
            bias="a sample is divided by its own standard deviation, that of a group of two being their difference",
            group=2,
        ),
        "unscaled": Case(
            {
                "kl_coef": ALPHA,
                "clip_range": WIDE,
                "scale_rewards": False,
                "token_average": False,
                "kl_estimator": "sampled",
            },
            group_relative(ALPHA, WIDE, centred, average=False, k3=False),
            sampled=group_relative(ALPHA, WIDE, centred, average=False, k3=False, factor=(GROUP - 1) / GROUP),
            bias="a response is part of the mean that is taken off its own reward",
        ),
    },
}
"""By method and by the options that are set."""

# Two values of each setting that both make sense, and what else must be set for it to be felt.
SETTING_VALUES: dict[str | tuple[str, str], tuple[Any, Any, dict[str, Any]]] = {
    "step_size": (0.5, 2.0, {}),
    "magnet_strength": (0.1, 0.4, {}),
    "magnet_every": (1, 3, {}),
    "magnet_schedule": ("every", "fixed", {}),
    "magnet_ema_rate": (0.1, 0.5, {"magnet_schedule": "ema"}),
    "opponent": ("current", "reference", {}),
    "loss": ("policy_gradient", "regression", {}),
    "proximal": ("kl", "clip", {}),
    "clip_range": (0.01, 0.9, {"proximal": "clip"}),
    # Listed with their weights, all responses give both estimators the same mean: the samples tell them apart.
    "kl_estimator": ("sampled", "exact", {}),
    "hard_labels": (False, True, {}),
    "target": ("pair", "payoff", {}),
    "pairs": ("all", "best_worst", {}),
    "kl_coef": (0.1, 0.5, {}),
    "reference_weight": (0.1, 0.5, {}),
    "magnet_shrink": (0.1, 0.5, {"magnet_schedule": "adaptive"}),
    ("mpo_optimistic", "magnet_shrink"): (0.1, 0.5, {}),
    ("grpo", "kl_estimator"): ("k3", "sampled", {}),
    ("ppo", "clip_range"): (0.01, 0.9, {}),
    ("rloo", "clip_range"): (0.01, 0.9, {}),
    ("grpo", "clip_range"): (0.01, 0.9, {}),
    ("nash_md_pg", "clip_range"): (0.01, 0.9, {"proximal": "clip"}),
    "scale_rewards": (True, False, {}),
    "token_average": (True, False, {}),
    "reward_clip": (0.2, 50.0, {}),
    "value_clip_range": (0.01, 5.0, {}),
    "discount": (0.9, 1.0, {}),
    "gae_lambda": (0.5, 0.95, {}),
}
"""Of each field of `NashConfig` that sets a method."""

FIELDS_OF = {"magnet": ("magnet_schedule", "magnet_ema_rate", "magnet_shrink"), "shrink": ("magnet_shrink",)}
"""Fields that set what a method's function takes as one object; the others have the same name."""
