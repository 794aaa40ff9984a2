"""What each method must do on language models: one entry for every method that they can be trained with."""

from dataclasses import dataclass
from typing import Any

from language_model_exact import (
    Formula,
    against,
    against_itself,
    against_mixture,
    clipped,
    differences,
    direct_preference,
    extrapolated,
    most_extreme_pair,
    own_preference,
    own_winner,
    pairs,
    pointwise,
    policy_gradient,
)

from magnetar.methods import METHODS

ETA, ALPHA, CLIP = 0.8, 0.3, 0.02
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
            bias="which responses are clipped depends on the sign of a noisy payoff",
            unbiased_at_first_step=True,
        ),
    }
    if opponents:
        frozen = policy_gradient(against("reference"), step_size=ETA, strength=strength, transformed=transformed)
        cases["frozen opponents"] = Case({**base, "opponent": "reference"}, frozen)
    return cases


OWN_PAIR = (
    "the pair (i, i) has no weight among samples but 1/G, and the payoffs of a group count the pair (i, j) itself, "
    "which makes differences too large by G/(G − 1)"
)
REGRESSION = pairs(PULL / (1 + PULL), ETA / (1 + PULL), own_preference)
MAGNETIC = {"step_size": ETA, "magnet_strength": ALPHA}

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
    "omwu": _policy_gradients(extrapolated, options=False),
    "extragradient": _policy_gradients(against("lookahead"), options=False),
    "iterative_dpo": {
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
}
"""Of each field of `NashConfig` that sets a method."""

FIELDS_OF = {"magnet": ("magnet_schedule", "magnet_ema_rate")}
"""Fields that set what a method's function takes as one object; the others have the same name."""
