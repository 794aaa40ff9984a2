import pytest
import torch

from magnetar.errors import ConfigError
from magnetar.methods import group_opponent_weights


def test_the_group_payoff_is_the_mean_over_the_other_responses_and_averages_to_one_half():
    win_prob = torch.tensor([[[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]], dtype=torch.float64)
    payoff = (win_prob * group_opponent_weights(None, (1, 3))).sum(-1)
    torch.testing.assert_close(payoff, torch.tensor([[0.55, 0.45, 0.5]], dtype=torch.float64))
    assert payoff.mean().item() == pytest.approx(0.5, abs=1e-15)


def test_exact_weights_include_the_response_itself():
    weight = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(group_opponent_weights(weight, (1, 3))[0, 0], weight[0])


def test_a_group_of_one_has_no_opponent():
    with pytest.raises(ConfigError, match="group of 1 response"):
        group_opponent_weights(None, (2, 1))
