"""Losses of preference models against closed forms and the definitions of TRL and Safe-RLHF."""

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from magnetar.training.preference import losses

G = torch.Generator().manual_seed(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=G, dtype=torch.float64)


@pytest.mark.parametrize("win_prob", [0.0, 0.2, 0.5, 1.0])
def test_bradley_terry_is_least_where_the_odds_are_those_of_the_label(win_prob: float) -> None:
    """The minimiser of the cross-entropy is r₁ − r₂ = temperature · logit(p), and its value is the entropy of p."""
    temperature = 0.7
    if 0 < win_prob < 1:
        gap = temperature * math.log(win_prob / (1 - win_prob))
        entropy = -win_prob * math.log(win_prob) - (1 - win_prob) * math.log(1 - win_prob)
    else:
        gap, entropy = (40.0 if win_prob else -40.0), 0.0
    first = torch.tensor([gap + 3.0], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([3.0], dtype=torch.float64)
    loss = losses.bradley_terry_loss(first, second, torch.tensor([win_prob], dtype=torch.float64), temperature)
    assert loss.item() == pytest.approx(entropy, abs=1e-12)
    loss.sum().backward()
    assert cast(Any, first.grad).item() == pytest.approx(0.0, abs=1e-12)


def test_hard_labels_give_the_loss_of_trl() -> None:
    """TRL's RewardTrainer itself computes the other side, from a model that returns given rewards."""
    from trl import RewardTrainer  # pyright: ignore[reportPrivateImportUsage]

    chosen, rejected = draw(16).float(), draw(16).float()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=None),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": {name: [] for name in ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")}},
        _total_train_tokens=0,
    )
    inputs = {"attention_mask": torch.ones(32, 1)}
    theirs = RewardTrainer.compute_loss(
        cast(Any, trainer),
        cast(Any, lambda **_: SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])),
        cast(Any, inputs),
    )
    ours = losses.bradley_terry_loss(chosen, rejected, torch.ones(16)).mean()
    torch.testing.assert_close(ours, theirs)


def test_cost_loss_is_equation_six_of_safe_rlhf() -> None:
    """With y_w the more harmful response: −log σ(C_w − C_l) − log σ(s_w C_w) − log σ(s_l C_l), s = +1 for harmful."""
    first, second = draw(64), draw(64)
    first_safe, second_safe = draw(64) > 0, draw(64) > 0
    first_safer = draw(64) > 0
    expected = []
    for k in range(64):
        signs = [-1.0 if safe else 1.0 for safe in (bool(first_safe[k]), bool(second_safe[k]))]
        costs = [float(first[k]), float(second[k])]
        worse, better = (1, 0) if first_safer[k] else (0, 1)
        terms = [costs[worse] - costs[better], signs[0] * costs[0], signs[1] * costs[1]]
        expected.append(sum(math.log1p(math.exp(-term)) for term in terms))
    found = losses.cost_loss(first, second, first_safer.double(), first_safe, second_safe)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_general_score_is_a_skew_symmetric_form_of_unit_vectors() -> None:
    """⟨R v₁, v₂⟩ with R block-diagonal of [[0, −1], [1, 0]], as the paper defines it."""
    first, second = draw(8, 6), draw(8, 6)
    rotation = np.kron(np.eye(3), np.array([[0.0, -1.0], [1.0, 0.0]]))
    a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (first, second))
    expected = np.einsum("ij,nj,ni->n", rotation, a, b)
    np.testing.assert_allclose(losses.embedding_score(first, second).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(losses.embedding_score(second, first).numpy(), -expected, atol=1e-12)
    win_prob = torch.rand(8, generator=G, dtype=torch.float64)
    logit = expected / 0.1
    cross = -(win_prob.numpy() * -np.logaddexp(0, -logit) + (1 - win_prob.numpy()) * -np.logaddexp(0, logit))
    loss = losses.general_preference_loss(first, second, win_prob, temperature=0.1)
    np.testing.assert_allclose(loss.numpy(), cross, atol=1e-10)


def test_three_embeddings_can_beat_each_other_in_a_circle_and_three_rewards_cannot() -> None:
    """At 120° to each other the general loss is near its bound; no three rewards get below log 2 on average."""
    angles = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    v = torch.stack([angles.cos(), angles.sin()], dim=1)
    ones = torch.ones(3)
    general = losses.general_preference_loss(v, v.roll(-1, 0), ones, temperature=0.1)
    torch.testing.assert_close(general, F.softplus(torch.full((3,), -math.sin(2 * math.pi / 3) / 0.1)))
    rewards = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([rewards], max_iter=50)

    def closure() -> float:
        optimizer.zero_grad()
        loss = losses.bradley_terry_loss(rewards, rewards.roll(-1), ones).mean()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    assert closure() == pytest.approx(math.log(2), abs=1e-6)


def test_pairwise_loss_is_the_mean_cross_entropy_of_both_orders() -> None:
    forward, backward, win_prob = draw(32), draw(32), torch.rand(32, generator=G, dtype=torch.float64)
    p, z, w = win_prob.numpy(), forward.numpy(), backward.numpy()
    one = p * np.logaddexp(0, -z) + (1 - p) * np.logaddexp(0, z)
    other = (1 - p) * np.logaddexp(0, -w) + p * np.logaddexp(0, w)
    np.testing.assert_allclose(losses.pairwise_loss(forward, backward, win_prob).numpy(), (one + other) / 2, atol=1e-12)


def test_exchanging_the_responses_exchanges_nothing_but_the_label() -> None:
    first, second, p = draw(16), draw(16), torch.rand(16, generator=G, dtype=torch.float64)
    safe, other = draw(16) > 0, draw(16) > 0
    u, v = draw(16, 4), draw(16, 4)
    pairs = [
        (losses.bradley_terry_loss(first, second, p), losses.bradley_terry_loss(second, first, 1 - p)),
        (losses.pairwise_loss(first, second, p), losses.pairwise_loss(second, first, 1 - p)),
        (losses.cost_loss(first, second, p, safe, other), losses.cost_loss(second, first, 1 - p, other, safe)),
        (losses.general_preference_loss(u, v, p), losses.general_preference_loss(v, u, 1 - p)),
    ]
    for one, swapped in pairs:
        torch.testing.assert_close(one, swapped)
