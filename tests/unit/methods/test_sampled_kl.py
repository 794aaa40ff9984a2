"""Sampled KL terms: right value and right gradient, enumerated over all actions."""

import torch

from magnetar.numerics import masked_mean, masked_sum, reward_to_go, sampled_reverse_kl


def _setting():
    g = torch.Generator().manual_seed(0)
    theta = torch.randn(6, generator=g, dtype=torch.float64, requires_grad=True)
    behavior = torch.randn(6, generator=g, dtype=torch.float64).log_softmax(-1)
    other = torch.randn(6, generator=g, dtype=torch.float64).log_softmax(-1)
    return theta, behavior, other


def test_sampled_reverse_kl_has_the_kl_as_its_mean_and_its_gradient_as_its_gradients_mean():
    theta, behavior, other = _setting()
    logp = theta.log_softmax(-1)
    exact = (logp.exp() * (logp - other)).sum()
    (exact_gradient,) = torch.autograd.grad(exact, theta, retain_graph=True)
    mean = (behavior.exp() * sampled_reverse_kl(logp, behavior, other)).sum()
    (mean_gradient,) = torch.autograd.grad(mean, theta)
    torch.testing.assert_close(mean, exact, atol=1e-12, rtol=0)
    torch.testing.assert_close(mean_gradient, exact_gradient, atol=1e-12, rtol=0)


def test_sampled_reverse_kl_is_never_negative():
    theta, behavior, other = _setting()
    assert (sampled_reverse_kl(theta.log_softmax(-1), behavior, other) >= 0).all()


def test_without_the_ratio_k1_would_have_no_gradient_at_the_behaviour_policy():
    """Why the estimator carries its importance ratio: the usual shortcut is silently wrong."""
    theta, _, other = _setting()
    logp = theta.log_softmax(-1)
    behavior = logp.detach()
    (shortcut,) = torch.autograd.grad((behavior.exp() * (logp - other)).sum(), theta, retain_graph=True)
    (ours,) = torch.autograd.grad((behavior.exp() * sampled_reverse_kl(logp, behavior, other)).sum(), theta)
    assert shortcut.abs().max() < 1e-12
    assert ours.abs().max() > 1e-2


def test_masked_sums_ignore_what_is_masked_even_nan():
    values = torch.tensor([[1.0, 2.0, float("nan")]])
    mask = torch.tensor([[True, True, False]])
    assert masked_sum(values, mask).item() == 3.0
    assert masked_mean(values, mask).item() == 1.5


def test_reward_to_go_is_the_sum_of_this_and_later_rewards():
    torch.testing.assert_close(reward_to_go(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([6.0, 5.0, 3.0]))
