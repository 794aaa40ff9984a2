"""PPO, RLOO and GRPO on given numbers, against their formulas written out in plain Python."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from magnetar import methods
from magnetar.errors import ConfigError
from magnetar.methods import ActorCritic, GroupRelativeGradient, LeaveOneOutGradient, group_opponent_weights
from magnetar.methods.objectives.actor_critic import advantages_and_returns
from magnetar.numerics import discounted_to_go
from magnetar.types import RolloutBatch

B, G, T = 2, 3, 4
BETA = 0.3


def batch(seed: int = 0, **changes: Any) -> RolloutBatch:
    """Lengths from 1 to T; what stands at padding is not to be looked at."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([[4, 2, 1], [3, 4, 2]])
    mask = torch.arange(T) < lengths[..., None]

    def logp() -> Tensor:
        return torch.where(mask, -torch.rand(B, G, T, generator=rng, dtype=torch.float64) - 0.2, 0.0)

    behavior = logp()
    reward = torch.randn(B, G, generator=rng, dtype=torch.float64)
    values: dict[str, Any] = {
        "logp_BGT": (behavior + 0.4 * torch.randn(B, G, T, generator=rng, dtype=torch.float64) * mask).requires_grad_(),
        "behavior_logp_BGT": behavior,
        "magnet_logp_BGT": logp(),
        "mask_BGT": mask,
        "win_prob_BGH": torch.sigmoid(reward[..., :, None] - reward[..., None, :]),
        "opponent_weight_BGH": group_opponent_weights(None, (B, G)),
        "response_weight_BG": torch.full((B, G), 1 / G, dtype=torch.float64),
        "reward_BG": reward,
        "value_BGT": torch.randn(B, G, T, generator=rng, dtype=torch.float64).requires_grad_(),
        "behavior_value_BGT": torch.randn(B, G, T, generator=rng, dtype=torch.float64),
    }
    return RolloutBatch(**(values | changes))


def numbers(tensor: Tensor | None) -> Any:
    assert tensor is not None
    return tensor.detach().tolist()


def clipped(ratio: float, gain: float, epsilon: float) -> float:
    return -min(ratio * gain, max(min(ratio, 1 + epsilon), 1 - epsilon) * gain)


def test_ppo_is_its_formula_token_by_token() -> None:
    given = batch()
    gamma, lam, epsilon, value_clip, reward_clip = 0.9, 0.7, 0.15, 0.5, 0.8
    objective = ActorCritic(BETA, epsilon, value_clip, reward_clip, gamma, lam, token_average=True)
    loss = objective(given).loss_BG
    now, old, ref = (numbers(x) for x in (given.logp_BGT, given.behavior_logp_BGT, given.magnet_logp_BGT))
    value, old_value = numbers(given.value_BGT), numbers(given.behavior_value_BGT)
    for b in range(B):
        for g in range(G):
            length = int(given.mask_BGT[b, g].sum())
            reward = [-BETA * (old[b][g][t] - ref[b][g][t]) for t in range(length)]
            reward[-1] += numbers(given.reward_BG)[b][g]
            reward = [max(min(r, reward_clip), -reward_clip) for r in reward]
            advantage, later = [0.0] * length, 0.0
            for t in reversed(range(length)):
                after = old_value[b][g][t + 1] if t + 1 < length else 0.0
                later = reward[t] + gamma * after - old_value[b][g][t] + gamma * lam * later
                advantage[t] = later
            expected = 0.0
            for t in range(length):
                ratio = math.exp(now[b][g][t] - old[b][g][t])
                target, v, v_old = advantage[t] + old_value[b][g][t], value[b][g][t], old_value[b][g][t]
                near = v_old + max(min(v - v_old, value_clip), -value_clip)
                expected += clipped(ratio, advantage[t], epsilon)
                expected += max((v - target) ** 2, (near - target) ** 2) / 2
            assert float(loss[b, g].detach()) == pytest.approx(expected / length, rel=1e-10)


def test_rloo_is_its_formula() -> None:
    given = batch()
    loss = LeaveOneOutGradient(BETA, clip_range=0.1)(given).loss_BG
    now, old, ref = (numbers(x) for x in (given.logp_BGT, given.behavior_logp_BGT, given.magnet_logp_BGT))
    for b in range(B):
        length = [int(n) for n in given.mask_BGT[b].sum(-1)]
        total = [
            numbers(given.reward_BG)[b][g] - BETA * sum(old[b][g][t] - ref[b][g][t] for t in range(length[g]))
            for g in range(G)
        ]
        for g in range(G):
            advantage = total[g] - sum(total[h] for h in range(G) if h != g) / (G - 1)
            expected = sum(clipped(math.exp(now[b][g][t] - old[b][g][t]), advantage, 0.1) for t in range(length[g]))
            assert float(loss[b, g].detach()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("scale", [True, False])
def test_grpo_is_its_formula(scale: bool) -> None:
    given = batch()
    loss = GroupRelativeGradient(BETA, clip_range=0.1, scale_rewards=scale)(given).loss_BG
    now, old, ref = (numbers(x) for x in (given.logp_BGT, given.behavior_logp_BGT, given.magnet_logp_BGT))
    for b in range(B):
        rewards = np.array(numbers(given.reward_BG)[b])
        spread = rewards.std(ddof=1) + 1e-4 if scale else 1.0
        for g in range(G):
            advantage, length = (rewards[g] - rewards.mean()) / spread, int(given.mask_BGT[b, g].sum())
            expected = 0.0
            for t in range(length):
                u = ref[b][g][t] - now[b][g][t]
                expected += clipped(math.exp(now[b][g][t] - old[b][g][t]), advantage, 0.1)
                expected += BETA * (math.exp(u) - u - 1)
            assert float(loss[b, g].detach()) == pytest.approx(expected / length, rel=1e-10)


def test_equal_rewards_give_no_advantage_and_no_nan() -> None:
    given = batch(reward_BG=torch.full((B, G), 3.0, dtype=torch.float64))
    same = batch(reward_BG=torch.zeros(B, G, dtype=torch.float64))
    for objective in (GroupRelativeGradient(BETA), LeaveOneOutGradient(BETA)):
        torch.testing.assert_close(objective(given).loss_BG, objective(same).loss_BG)
        assert torch.isfinite(objective(given).loss_BG).all()


def test_critic_and_actor_learn_from_their_own_part_of_the_loss_alone() -> None:
    given = batch()
    ActorCritic(BETA)(given).loss_BG.sum().backward()
    assert given.logp_BGT.grad is not None and given.value_BGT is not None and given.value_BGT.grad is not None
    moved = batch(value_BGT=(given.value_BGT.detach() + 1.0).requires_grad_())
    ActorCritic(BETA)(moved).loss_BG.sum().backward()
    torch.testing.assert_close(given.logp_BGT.grad, moved.logp_BGT.grad)  # the actor sees the old values only
    assert not torch.allclose(given.value_BGT.grad, moved.value_BGT.grad)  # type: ignore[union-attr]
    assert not given.value_BGT.grad[~given.mask_BGT].any()


def test_with_lambda_one_advantages_are_returns_less_values() -> None:
    given = batch()
    reward = torch.where(given.mask_BGT, torch.randn(B, G, T, dtype=torch.float64), 0.0)
    value = given.behavior_value_BGT
    assert value is not None
    advantage, back = advantages_and_returns(reward, value, given.mask_BGT, discount=1.0, decay=1.0)
    to_go = reward.flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(advantage, torch.where(given.mask_BGT, to_go - value, 0.0))
    torch.testing.assert_close(torch.where(given.mask_BGT, back, 0.0), torch.where(given.mask_BGT, to_go, 0.0))


@pytest.mark.parametrize("discount", [0.0, 0.3, 0.99, 1.0])
def test_discounted_to_go_is_the_recursion(discount: float) -> None:
    reward = torch.randn(2, 7, dtype=torch.float64)
    expected, later = torch.zeros_like(reward), torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(7)):
        later = reward[:, t] + discount * later
        expected[:, t] = later
    torch.testing.assert_close(discounted_to_go(reward, discount), expected)


@pytest.mark.parametrize("objective", [ActorCritic(BETA), LeaveOneOutGradient(BETA), GroupRelativeGradient(BETA)])
@pytest.mark.parametrize("missing", ["reward_BG", "magnet_logp_BGT", "value_BGT"])
def test_what_is_missing_is_named(objective: Any, missing: str) -> None:
    if missing == "value_BGT" and not objective.needs_value:
        return
    with pytest.raises(ValueError, match=missing):
        objective(batch(0, **{missing: None}))


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        ("ppo", {"clip_range": 1.0}, "clip_range is 1.0"),
        ("ppo", {"gae_lambda": 1.1}, "gae_lambda is 1.1"),
        ("ppo", {"discount": 0.0}, "discount is 0.0"),
        ("ppo", {"value_clip_range": 0.0}, "value_clip_range is 0.0"),
        ("ppo", {"reward_clip": -1.0}, "reward_clip is -1.0"),
        ("rloo", {"kl_coef": 0.0}, "kl_coef is 0.0"),
        ("grpo", {"scale_rewards": 1}, "scale_rewards is 1"),
        ("grpo", {"kl_estimator": "k2"}, "k2"),
        ("nash_md_pg", {"reference_weight": 1.0}, "reference_weight is 1.0"),
        ("omwu", {"loss": "dpo"}, "dpo"),
    ],
)
def test_settings_outside_their_range_are_refused(make: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        methods.build_method(make, **settings)


def test_penalised_policies_on_games_are_the_maximisers_they_claim_to_be() -> None:
    """One exact update of GRPO against a numerical maximiser of ``⟨π, A⟩ − β KL(ref‖π)``."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    reference, advantage = rng.dirichlet(np.ones(5)), rng.normal(size=5)
    from magnetar.methods.objectives.scores import _forward_penalised

    for beta in (0.02, 0.3, 5.0):
        ours = np.exp(_forward_penalised(np.log(reference), advantage, beta))

        def loss(logits: Any, beta: float = beta) -> float:
            logp = logits - np.log(np.exp(logits).sum())
            return float(-(np.exp(logp) @ advantage) + beta * (reference @ (np.log(reference) - logp)))

        best = minimize(loss, np.log(reference), tol=1e-14, options={"gtol": 1e-10, "maxiter": 10_000}).x
        np.testing.assert_allclose(ours, np.exp(best) / np.exp(best).sum(), atol=2e-6)
