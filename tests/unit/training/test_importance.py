"""Weights turn averages under the engine's policy into averages under the trainer's."""

import pytest
import torch

from magnetar.training.importance import importance_weights, reweighted_opponents, token_weighted


def two_policies(responses: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all responses of one token under π and μ, shape (1, G, 1)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, responses, generator=generator, dtype=torch.float64)
    logits[1] = logits[0] + 0.3 * logits[1]
    return tuple(row.log_softmax(-1)[None, :, None] for row in logits)  # type: ignore[return-value]


def test_all_responses_with_the_engines_weights_get_the_trainers_probabilities() -> None:
    policy, engine = two_policies(6)
    mask = torch.ones(1, 6, 1, dtype=torch.bool)
    found = importance_weights(engine[..., 0].exp(), policy, engine, mask, float("inf"))
    torch.testing.assert_close(found.weight_BG, policy[..., 0].exp(), atol=1e-14, rtol=0)
    assert found.gap_nats == pytest.approx(float((policy - engine).abs().mean()))
    assert found.capped_share == 0.0
    opponents = engine[:, None, :, 0].exp().expand(1, 6, 6)
    other = reweighted_opponents(opponents, engine[..., 0].exp(), found.weight_BG)
    torch.testing.assert_close(other, policy[:, None, :, 0].exp().expand(1, 6, 6), atol=1e-14, rtol=0)


def test_averages_of_sampled_responses_approach_the_trainers() -> None:
    policy, engine = two_policies(6)
    generator = torch.Generator().manual_seed(1)
    value = (policy - engine)[0, :, 0].sign()  # responses that the trainer likes better than the engine does
    drawn = torch.multinomial(engine[0, :, 0].exp(), 200_000, replacement=True, generator=generator)[None]
    mask = torch.ones(1, drawn.shape[1], 1, dtype=torch.bool)
    equal = torch.full(drawn.shape, 1.0 / drawn.shape[1], dtype=torch.float64)
    found = importance_weights(equal, policy[:, drawn[0]], engine[:, drawn[0]], mask, float("inf"))
    wanted, without = (float((logp[0, :, 0].exp() * value).sum()) for logp in (policy, engine))
    error = float((found.weight_BG * value[drawn]).sum()) - wanted
    assert abs(error) < 0.01 < 0.03 < abs(without - wanted), (error, without - wanted)


def test_a_long_response_far_from_the_engine_neither_overflows_nor_passes_the_cap() -> None:
    policy = torch.zeros(1, 3, 4000, dtype=torch.float64)
    engine = policy.clone()
    engine[0, 0] = -1.0  # a ratio of e^4000
    engine[0, 1] = 0.001
    mask = torch.ones_like(policy, dtype=torch.bool)
    weight = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    found = importance_weights(weight, policy, engine, mask, 2.0)
    ratios = torch.tensor([2.0, float(torch.tensor(-4.0).exp()), 1.0], dtype=torch.float64)
    torch.testing.assert_close(found.weight_BG[0], ratios / ratios.sum(), atol=1e-7, rtol=0)
    assert found.capped_share == pytest.approx(1 / 3)
    share = float(ratios.sum() ** 2 / (3 * ratios.square().sum()))
    assert found.effective_share == pytest.approx(share, abs=1e-6)
    only = importance_weights(weight, policy, engine, mask, float("inf"))
    torch.testing.assert_close(only.weight_BG[0], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


def test_responses_without_answers_stay_out_and_padding_counts_nothing() -> None:
    policy, engine = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    engine[0, 0, 2] = -50.0  # at padding
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[0, 0, 2] = False
    weight = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    found = importance_weights(weight, policy, engine, mask, 2.0)
    torch.testing.assert_close(found.weight_BG, weight)
    assert found.gap_nats == 0.0
    with pytest.raises(ValueError, match=r"cap = 0\.0, expected above 0"):
        importance_weights(weight, policy, engine, mask, 0.0)


def test_token_weights_leave_values_and_scale_gradients() -> None:
    logp = torch.tensor([[[-1.0, -2.0, -3.0]]], requires_grad=True)
    policy, engine = logp.detach(), torch.tensor([[[-1.5, -2.0, -9.0]]])
    found = token_weighted(logp, policy, engine, cap=2.0)
    torch.testing.assert_close(found, logp)
    found.sum().backward()
    torch.testing.assert_close(logp.grad, torch.tensor([[[0.5, 0.0, 6.0]]]).exp().clamp(max=2.0))
