"""A matrix game is a language model whose every response is one token: the loss and the closed form are one method."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from magnetar import methods
from magnetar.methods import Method, group_opponent_weights
from magnetar.types import RolloutBatch

ACTIONS = 7
SMALL_STEP = 1e-3
METHODS = {
    "mpo": methods.mpo(step_size=0.7, magnet_strength=0.3),
    "mpo_exact_kl": methods.mpo(step_size=0.7, magnet_strength=0.3, kl_estimator="exact"),
    "mpo_rt": methods.mpo_rt(step_size=0.7, magnet_strength=0.3),
    "mmd": methods.mmd(step_size=2.0, magnet_strength=0.1),
    "mirror_descent": methods.mirror_descent(step_size=0.5),
    "omd": methods.omd(step_size=0.6, magnet_strength=0.2),
    "inpo": methods.inpo(step_size=0.6, magnet_strength=0.2),
    "inpo_payoff_target": dataclasses.replace(
        methods.inpo(), objective=methods.PairwiseRegression(0.3, scale=1.5, target="payoff")
    ),
    "online_ipo": dataclasses.replace(
        methods.inpo(), objective=methods.PairwiseRegression(1.0, scale=2.0, target="pair")
    ),
    "mpo_regression": methods.mpo(step_size=0.7, magnet_strength=0.3, loss="regression"),
    "iterative_dpo": methods.iterative_dpo(kl_coef=0.5, pairs="all", hard_labels=False),
    # Its closed form is the loss's minimiser only for small steps: the paper replaces the normalising constant.
    "sppo": methods.sppo(step_size=SMALL_STEP),
}


def _random_simplex(rng: np.random.Generator) -> np.ndarray:
    return np.log(rng.dirichlet(np.ones(ACTIONS)))


def _game(rng: np.random.Generator) -> np.ndarray:
    upper = rng.uniform(size=(ACTIONS, ACTIONS))
    return np.triu(upper, 1) + np.tril(1 - upper.T, -1) + 0.5 * np.eye(ACTIONS)


def _tabular_batch(method: Method, logp_A: torch.Tensor, log_policy, log_magnet, win_prob) -> RolloutBatch:
    """The whole game as one group: all actions, exact weights, one token each."""
    behavior = torch.tensor(log_policy)[None, :, None]
    magnet = torch.tensor(log_magnet)[None, :, None]
    weight_BG = behavior[..., 0].exp()
    logp = logp_A[None, :, None]

    def full_kl(other: torch.Tensor) -> torch.Tensor:
        return (logp_A.exp() * (logp_A - other[0, :, 0])).sum().expand_as(logp)

    exact = getattr(method.objective, "kl_estimator", None) == "exact"
    return RolloutBatch(
        logp_BGT=logp,
        behavior_logp_BGT=behavior,
        magnet_logp_BGT=magnet,
        mask_BGT=torch.ones_like(logp, dtype=torch.bool),
        win_prob_BGH=torch.tensor(win_prob)[None],
        opponent_weight_BGH=group_opponent_weights(weight_BG, (1, ACTIONS)),
        response_weight_BG=weight_BG,
        magnet_kl_BGT=full_kl(magnet) if exact and method.sampled_objective.needs_magnet_distribution else None,
        behavior_kl_BGT=full_kl(behavior) if exact else None,
    )


def _exact_form(method: Method, log_policy, log_magnet, win_prob) -> np.ndarray:
    if isinstance(method.objective, methods.OracleObjective):
        oracle = SimpleNamespace(win_prob=lambda: win_prob)
        return method.objective.exact_step(cast(Any, oracle), log_policy, log_magnet, None)[0]
    assert isinstance(method.objective, methods.PayoffObjective)
    return method.objective.exact_update(log_policy, log_magnet, win_prob @ np.exp(log_policy))


@pytest.mark.parametrize("name", METHODS)
def test_minimising_the_loss_over_tabular_policies_gives_the_exact_update(name: str):
    method = METHODS[name]
    rng = np.random.default_rng(0)
    log_policy, log_magnet, win_prob = _random_simplex(rng), _random_simplex(rng), _game(rng)
    expected = _exact_form(method, log_policy, log_magnet, win_prob)

    logits = torch.tensor(log_policy, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], lr=0.5, max_iter=5000, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        batch = _tabular_batch(method, logits.log_softmax(-1), log_policy, log_magnet, win_prob)
        output = method.sampled_objective(batch)
        loss = (batch.response_weight_BG * output.loss_BG).sum() / (SMALL_STEP**2 if name == "sppo" else 1.0)
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(logits.log_softmax(-1).detach().numpy(), expected, atol=1e-6)
    smallest = 1e-4 if name == "sppo" else 0.05
    assert np.abs(expected - log_policy).max() > smallest, "the step must be a real one, or any loss would pass"


@pytest.mark.parametrize("name", ["mpo", "mpo_rt", "inpo", "iterative_dpo"])
def test_a_missing_magnet_is_an_error_and_not_a_method_without_magnet(name: str):
    rng = np.random.default_rng(1)
    log_policy, win_prob = _random_simplex(rng), _game(rng)
    method = METHODS[name]
    batch = _tabular_batch(method, torch.tensor(log_policy), log_policy, log_policy, win_prob)
    with pytest.raises(ValueError, match="magnet_logp_BGT is None"):
        method.sampled_objective(RolloutBatch(**{**vars(batch), "magnet_logp_BGT": None}))
