"""Methods that maximise one score per response near a reference: reward-based alignment, and DPO on own samples."""

from magnetar.methods.magnets import FixedMagnet
from magnetar.methods.method import Method, SampleFrom
from magnetar.methods.objectives import (
    ActorCritic,
    BradleyTerryFit,
    DirectPreference,
    GroupRelativeGradient,
    LeaveOneOutGradient,
    Objective,
    PairChoice,
    PenaltyEstimator,
)
from magnetar.methods.opponents import Opponent

__all__ = ["bt_rlhf", "grpo", "iterative_dpo", "online_dpo", "ppo", "rloo"]


def bt_rlhf(kl_coef: float = 0.1) -> Method:
    """Bradley–Terry alignment, what PPO on a reward model aims at: fit scores once, maximise them near the reference.

    Args:
        kl_coef: β, in logits of the scores per nat, positive.

    Returns:
        The method. One update reaches its goal, ``ref exp(s/β)``; it reads all pairs, A evaluations.

    Raises:
        ConfigError: A coefficient that is not positive.

    Source: arXiv:2203.02155.
    """
    return Method(
        name="bt_rlhf",
        opponent=Opponent("reference"),
        objective=BradleyTerryFit(kl_coef),
        magnet=FixedMagnet(),
        converges_to="Bradley–Terry policy",
        source="arXiv:2203.02155",
    )


def ppo(
    kl_coef: float = 0.02,
    *,
    clip_range: float = 0.2,
    value_clip_range: float = 5.0,
    reward_clip: float = 50.0,
    discount: float = 1.0,
    gae_lambda: float = 0.95,
    token_average: bool = True,
) -> Method:
    """Proximal policy optimization on a reward, with a critic; the defaults are those of Safe-RLHF.

    Args:
        kl_coef: β, in units of the reward per nat, positive.
        clip_range: See `ActorCritic`.
        value_clip_range: See `ActorCritic`.
        reward_clip: See `ActorCritic`.
        discount: See `ActorCritic`.
        gae_lambda: See `ActorCritic`.
        token_average: See `ActorCritic`.

    Returns:
        The method. It needs a judge that scores. It aims at ``ref exp(r/β)``.

    Raises:
        ConfigError: A setting outside its range.

    Source: arXiv:1707.06347; on language models arXiv:2203.02155 and arXiv:2310.12773.
    """
    objective = ActorCritic(kl_coef, clip_range, value_clip_range, reward_clip, discount, gae_lambda, token_average)
    return _for_scores("ppo", objective, "arXiv:1707.06347; arXiv:2310.12773")


def rloo(kl_coef: float = 0.05, *, clip_range: float = 0.2, token_average: bool = False) -> Method:
    """REINFORCE leave-one-out: the rewards of the other responses of the group are the baseline.

    Args:
        kl_coef: β, in units of the reward per nat, positive.
        clip_range: See `LeaveOneOutGradient`.
        token_average: See `LeaveOneOutGradient`.

    Returns:
        The method. It needs a judge that scores. It aims at ``ref exp(r/β)``.

    Raises:
        ConfigError: A setting outside its range.

    Source: arXiv:2402.14740.
    """
    return _for_scores("rloo", LeaveOneOutGradient(kl_coef, clip_range, token_average), "arXiv:2402.14740")


def grpo(
    kl_coef: float = 0.04,
    *,
    clip_range: float = 0.2,
    scale_rewards: bool = True,
    token_average: bool = True,
    kl_estimator: PenaltyEstimator = "k3",
) -> Method:
    """Group relative policy optimization: rewards standardised within the group.

    Args:
        kl_coef: β, in standard deviations of the group's rewards per nat (of the reward itself, unscaled), positive.
        clip_range: See `GroupRelativeGradient`.
        scale_rewards: See `GroupRelativeGradient`.
        token_average: See `GroupRelativeGradient`.
        kl_estimator: See `GroupRelativeGradient`.

    Returns:
        The method. It needs a judge that scores. Like the others it ranks by scores, but the policy that it aims at is
        another: the penalty of the preset is that of KL(ref‖π), and β counts standard deviations.

    Raises:
        ConfigError: A setting outside its range.

    Source: arXiv:2402.03300.
    """
    objective = GroupRelativeGradient(kl_coef, clip_range, scale_rewards, token_average, kl_estimator)
    return _for_scores("grpo", objective, "arXiv:2402.03300")


def iterative_dpo(kl_coef: float = 0.1, *, pairs: PairChoice = "best_worst", hard_labels: bool = True) -> Method:
    """Iterative DPO: in each round, the DPO loss on pairs from the policy at its start, the reference fixed.

    Args:
        kl_coef: β, in logits of the scores per nat, positive.
        pairs: See `DirectPreference`; on language models only. Exact games compare all pairs.
        hard_labels: See `DirectPreference`; on language models only.

    Returns:
        The method: its fixed points are ``ref exp(s/β)`` for scores s fitted to pairs of the policy itself. On games
        with cycles it settles there only if β is large, and otherwise goes round.

    Raises:
        ConfigError: A coefficient that is not positive.

    Source: arXiv:2405.07863.
    """
    return _for_scores(
        "iterative_dpo", DirectPreference(kl_coef, pairs, hard_labels), "arXiv:2405.07863", "round_start"
    )


def online_dpo(kl_coef: float = 0.1, *, pairs: PairChoice = "best_worst", hard_labels: bool = True) -> Method:
    """Online DPO: the DPO loss on pairs of the current policy, new ones for every update.

    Args:
        kl_coef: β, in logits of the scores per nat, positive.
        pairs: See `DirectPreference`; on language models only. Exact games compare all pairs.
        hard_labels: See `DirectPreference`; on language models only.

    Returns:
        The method; its exact update and its fixed points are those of `iterative_dpo`.

    Raises:
        ConfigError: A coefficient that is not positive.

    Source: arXiv:2402.04792.
    """
    return _for_scores("online_dpo", DirectPreference(kl_coef, pairs, hard_labels), "arXiv:2402.04792")


def _for_scores(name: str, objective: Objective, source: str, sample_from: SampleFrom = "current") -> Method:
    return Method(
        name=name,
        opponent=Opponent(),
        objective=objective,
        magnet=FixedMagnet(),
        converges_to="Bradley–Terry policy",
        source=source,
        sample_from=sample_from,
    )
