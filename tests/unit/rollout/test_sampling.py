"""Tokens follow the truncated softmax, and their log-probabilities the full one."""

import numpy as np
import pytest
import torch

from magnetar.errors import ConfigError
from magnetar.rollout.base import SamplingParams
from magnetar.rollout.sampling import draw_tokens, draw_uniforms

PROBABILITY = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])


def frequencies(sampling: SamplingParams) -> torch.Tensor:
    """Exact probabilities of being drawn, by sweeping the uniform number over a fine grid."""
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    logits = (PROBABILITY.log() * sampling.temperature).expand(len(grid), -1)
    tokens, _ = draw_tokens(logits, grid, sampling)
    return torch.bincount(tokens, minlength=5) / len(grid)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"temperature": 0.5}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [1, 3]),
        ({"top_k": 50}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.7}, [1, 3, 4]),
        ({"top_p": 0.6}, [1, 3]),
        ({"top_p": 1e-9}, [1]),
        ({"min_p": 0.45}, [1, 3, 4]),
        ({"top_k": 3, "top_p": 0.7}, [1, 3]),
    ],
)
def test_every_truncation_keeps_the_right_tokens_in_proportion(settings, kept):
    expected = torch.zeros(5)
    expected[kept] = PROBABILITY[kept] / PROBABILITY[kept].sum()
    torch.testing.assert_close(frequencies(SamplingParams(**settings)), expected, atol=1e-3, rtol=0)


def test_a_flat_row_beside_a_steep_one_keeps_its_whole_nucleus():
    flat, steep = torch.zeros(5000), torch.zeros(5000)
    flat[:2500] = 1e-3  # the nucleus: larger than what is looked at first
    steep[0] = 50.0
    token = torch.softmax(flat.double(), -1)[0].item()
    uniform = torch.linspace(0, 1 - 1e-9, 3000, dtype=torch.float64)
    sampling = SamplingParams(top_p=2499.5 * token)
    both = torch.stack([flat, steep]).repeat_interleave(3000, 0)
    tokens, _ = draw_tokens(both, uniform.repeat(2), sampling)
    assert tokens[:3000].min() == 0 and tokens[:3000].max() == 2499
    assert (tokens[3000:] == 0).all()
    assert torch.equal(draw_tokens(both[:3000], uniform, sampling)[0], tokens[:3000])


def test_log_probabilities_are_those_before_truncation_at_the_temperature():
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.0]]).expand(50, -1)
    uniform = torch.linspace(0, 0.99, 50, dtype=torch.float64)
    tokens, logp = draw_tokens(logits, uniform, SamplingParams(temperature=0.6, top_k=2))
    assert set(tokens.tolist()) == {0, 2}
    torch.testing.assert_close(logp, (logits / 0.6).log_softmax(-1).gather(1, tokens[:, None])[:, 0])


def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token():
    logits = torch.tensor([[-float("inf"), 1.0, 2.0, -float("inf")]]).expand(2, -1)
    uniform = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    assert draw_tokens(logits, uniform, SamplingParams())[0].tolist() == [1, 2]


def test_uniforms_depend_on_seed_response_and_position_alone():
    together = draw_uniforms([5, 9, -1], 3, 8).reshape(3, 3, 8)
    assert torch.equal(draw_uniforms([9], 3, 8), together[1])
    assert torch.equal(draw_uniforms([9], 2, 8), together[1, :2])
    assert torch.equal(draw_uniforms([9], 3, 5), together[1, :, :5])
    assert together.unique().numel() == 72
    torch.manual_seed(0)
    np.random.seed(0)
    assert torch.equal(draw_uniforms([5, 9, -1], 3, 8).reshape(3, 3, 8), together)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"temperature": 0.0}, "temperature = 0.0.* use a small one"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"top_p": 1.1}, "top_p = 1.1"),
        ({"top_k": -1}, "top_k = -1"),
        ({"min_p": 1.0}, "min_p = 1.0"),
    ],
)
def test_settings_that_cannot_be_sampled_with_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        SamplingParams(**settings)
