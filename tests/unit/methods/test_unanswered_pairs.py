"""Pairs that a judge leaves unanswered have no weight anywhere."""

import math

import numpy as np
import pytest
import torch

from magnetar.methods import PairwiseRegression, group_opponent_weights, leave_out_unanswered
from magnetar.types import RolloutBatch


def drawn(seed: int, b: int, g: int, masked: float) -> torch.Tensor:
    """Antisymmetric win probabilities of groups, some pairs unanswered in both orders."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((b, g, g)), k=1)
    win_prob = upper + np.tril(1.0 - upper.swapaxes(1, 2), k=-1) + 0.5 * np.eye(g)
    hidden = np.triu(rng.random((b, g, g)) < masked, k=1)
    win_prob[hidden | hidden.swapaxes(1, 2)] = np.nan
    return torch.tensor(win_prob)


@pytest.mark.parametrize("masked", [0.0, 0.3, 0.8, 1.0])
def test_payoffs_are_means_over_the_answered_opponents(masked):
    b, g = 40, 4
    win_prob = drawn(1, b, g, masked)
    filled, opponents, responses = leave_out_unanswered(
        win_prob, group_opponent_weights(None, (b, g)), torch.full((b, g), 1.0 / g, dtype=torch.float64)
    )
    payoff = (filled * opponents).sum(-1)
    assert torch.allclose(opponents.sum(-1), torch.ones(b, g, dtype=torch.float64))
    for i in range(b):
        heard = [r for r in range(g) if any(not math.isnan(win_prob[i, r, s]) for s in range(g) if s != r)]
        for r in range(g):
            answers = [float(win_prob[i, r, s]) for s in range(g) if s != r and not math.isnan(win_prob[i, r, s])]
            if answers:
                assert float(payoff[i, r]) == pytest.approx(np.mean(answers))
            assert float(responses[i, r]) == pytest.approx(1 / len(heard) if r in heard else 0.0)


def test_exact_weights_of_the_answered_opponents_are_renormalised():
    weight = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    win_prob = torch.tensor([[[0.5, np.nan, 0.9], [np.nan, 0.5, 0.4], [0.1, 0.6, 0.5]]], dtype=torch.float64)
    filled, opponents, responses = leave_out_unanswered(win_prob, group_opponent_weights(weight, (1, 3)), weight)
    payoff = (filled * opponents).sum(-1)
    assert payoff[0].tolist() == pytest.approx(
        [(0.5 * 0.5 + 0.2 * 0.9) / 0.7, (0.3 * 0.5 + 0.2 * 0.4) / 0.5, 0.5 * 0.1 + 0.3 * 0.6 + 0.2 * 0.5]
    )
    assert torch.equal(responses, weight)


def test_a_pair_without_an_answer_is_no_target_of_a_pairwise_loss():
    b, g = 3, 4
    logp = torch.randn(b, g, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    win_prob = drawn(3, b, g, 0.4)
    filled, opponents, responses = leave_out_unanswered(
        win_prob, group_opponent_weights(None, (b, g)), torch.full((b, g), 1.0 / g, dtype=torch.float64)
    )
    batch = RolloutBatch(
        logp, torch.zeros_like(logp), None, torch.ones(b, g, 1, dtype=torch.bool), filled, opponents, responses
    )
    loss = PairwiseRegression(magnet_weight=0, scale=2.0, target="pair")(batch).loss_BG
    for i in range(b):
        for r in range(g):
            expected = sum(
                float(opponents[i, r, s]) * float(logp[i, r, 0] - logp[i, s, 0] - 2.0 * (win_prob[i, r, s] - 0.5)) ** 2
                for s in range(g)
                if s != r and not math.isnan(win_prob[i, r, s])
            )
            if responses[i, r] > 0:
                assert float(loss[i, r]) == pytest.approx(expected)
