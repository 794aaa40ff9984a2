"""A matrix game is a language model whose every response is one token: losses with weights against closed forms."""

import dataclasses

import numpy as np
import pytest
import torch

from magnetar import games, methods
from magnetar.games.neural import (
    EnumeratedFeedback,
    GroupFeedback,
    GroupSampling,
    Judgement,
    MLPPolicy,
    OpponentShare,
    OptimizerSettings,
    TabularPolicy,
    group_loss,
    run_neural,
)
from magnetar.methods import Ema, EveryNUpdates, Opponent, SampledObjective

GAME = games.random_game(5, seed=3)
START = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
TO_THE_MINIMUM = OptimizerSettings("lbfgs", learning_rate=1.0, inner_steps=300)
SAMPLED = [name for name, make in methods.METHODS.items() if isinstance(make().objective, SampledObjective)]


def _variants() -> dict[str, methods.Method]:
    """Every method with a loss on responses, and the combinations that no preset has."""
    moving = {name: methods.build_method(name) for name in SAMPLED}
    for name, method in moving.items():
        if isinstance(method.magnet, EveryNUpdates):
            moving[name] = dataclasses.replace(method, magnet=EveryNUpdates(4))
    return moving | {
        "mpo, exact KL": methods.mpo(magnet_every=4, kl_estimator="exact"),
        "mpo, against the magnet": methods.mpo(magnet_every=4, opponent=Opponent("magnet")),
        "mpo, against the reference": methods.mpo(magnet_every=4, opponent=Opponent("reference")),
        "mpo, moving average": methods.mpo(magnet=Ema(0.3)),
        "mpo, optimistic": dataclasses.replace(methods.mpo(magnet_every=4), prediction="optimistic"),
    }


@pytest.mark.parametrize("name", _variants())
def test_minimising_the_enumerated_loss_over_a_table_is_the_exact_update(name: str) -> None:
    method = _variants()[name]
    if name == "sppo":  # its loss has the closed form as its minimum only up to squares of the step
        method = methods.sppo(step_size=0.01)
    exact = games.run(method, GAME, 10, initial=START, record=True)
    trace = run_neural(method, GAME, 10, policy=TabularPolicy(), optimizer=TO_THE_MINIMUM, initial=START, record=True)
    assert exact.policies is not None and trace.policies is not None
    np.testing.assert_allclose(trace.policies, exact.policies, atol=1e-6)
    np.testing.assert_allclose(np.exp(trace.log_magnet), np.exp(exact.log_magnet), atol=1e-6)
    moved = np.abs(exact.policies[-1] - exact.policies[0]).max()
    assert moved > 1e-3, "the run must go somewhere, or any loss would pass"


@pytest.mark.parametrize("name", ["mpo", "egpo", "omwu", "inpo"])
def test_a_network_wide_enough_makes_the_exact_update_too(name: str) -> None:
    method = methods.build_method(name)
    exact = games.run(method, GAME, 8, initial=START)
    trace = run_neural(method, GAME, 8, policy=MLPPolicy(hidden=16), optimizer=TO_THE_MINIMUM, initial=START)
    np.testing.assert_allclose(trace.policy, exact.policy, atol=1e-5)


OTHER = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.4], dtype=torch.float64).log()
OPPONENTS: dict[str, list[OpponentShare]] = {
    "own group": [(1.0, None)],
    "another policy": [(1.0, OTHER)],
    "extrapolated": [(2.0, None), (-1.0, OTHER)],
}
# A regression of pairs on their own preference (inpo) knows no opponent but its group.
GRADIENTS = [(name, who) for name in ("mpo", "mpo_rt", "mirror_descent", "sppo") for who in OPPONENTS]
GRADIENTS.append(("inpo", "own group"))
GROUP, GROUPS = 8, 700


@pytest.mark.parametrize("judgement", ["outcome", "probability"])
@pytest.mark.parametrize(("name", "opponents"), GRADIENTS)
def test_the_gradient_of_sampled_groups_is_unbiased(name: str, opponents: str, judgement: Judgement) -> None:
    objective = methods.build_method(name).sampled_objective
    win_prob, behavior = torch.tensor(GAME.P), torch.tensor(START).log()
    magnet = torch.tensor([0.3, 0.1, 0.3, 0.2, 0.1], dtype=torch.float64).log()
    # Away from the policy that was sampled, where importance ratios matter.
    logits = (behavior + torch.tensor([0.3, -0.2, 0.1, 0.2, -0.4])).requires_grad_()

    def gradient(feedback: GroupFeedback, generator: torch.Generator | None) -> np.ndarray:
        group = feedback.judge(generator, win_prob, behavior, OPPONENTS[opponents])
        loss = group_loss(objective, group, logits.log_softmax(-1), behavior, magnet)
        return torch.autograd.grad(loss, logits)[0].numpy()

    expected = gradient(EnumeratedFeedback(), None)
    sampling = GroupSampling(GROUP, opponents=8, judgement=judgement, seed=5)
    generator = sampling.generator()
    drawn = np.array([gradient(sampling, generator) for _ in range(GROUPS)])
    standard_error = drawn.std(axis=0, ddof=1) / np.sqrt(GROUPS)
    assert (np.abs(drawn.mean(axis=0) - expected) < 4 * standard_error).all()
    assert (np.abs(expected) / standard_error).max() > 8, "the gradient must stand out from the noise"


def test_regression_on_the_payoffs_of_its_own_group_aims_at_a_larger_scale() -> None:
    # A difference of payoffs contains the pair's own duel twice, so its part of the loss does not shrink with the
    # pairs that a group wastes on itself, while the square does: as if the scale were G/(G − 1) times larger.
    behavior, win_prob = torch.tensor(START).log(), torch.tensor(GAME.P)
    logits = (behavior + torch.tensor([0.3, -0.2, 0.1, 0.2, -0.4])).requires_grad_()

    def gradient(scale: float, feedback: GroupFeedback, generator: torch.Generator | None) -> np.ndarray:
        group = feedback.judge(generator, win_prob, behavior, OPPONENTS["own group"])
        objective = methods.PairwiseRegression(0.0, scale, target="payoff")
        loss = group_loss(objective, group, logits.log_softmax(-1), behavior, behavior)
        return torch.autograd.grad(loss, logits)[0].numpy()

    group, scale = 3, 1.5
    sampling = GroupSampling(group, judgement="probability", seed=6)
    generator = sampling.generator()
    drawn = np.array([gradient(scale, sampling, generator) for _ in range(2500)])
    standard_error = drawn.std(axis=0, ddof=1) / np.sqrt(len(drawn))
    larger, same = (gradient(s, EnumeratedFeedback(), None) * (group - 1) / group for s in (scale * 1.5, scale))
    assert (np.abs(drawn.mean(axis=0) - larger) < 4 * standard_error).all()
    assert (np.abs(drawn.mean(axis=0) - same) > 4 * standard_error).any()


def _check_networks(seed: int, updates: int, feedback: GroupFeedback | None = None) -> None:
    """MPO's last network is nearer to equilibrium than any method's that stays with its first policy can be."""
    game = games.random_game(10, seed=seed)
    policy = MLPPolicy(seed=seed)
    optimizer = OptimizerSettings("adam", learning_rate=0.003, inner_steps=4)

    def level(method: methods.Method) -> float:
        trace = run_neural(method, game, updates, policy=policy, optimizer=optimizer, feedback=feedback)
        return float(trace.duality_gap[-50:].mean())

    first = run_neural(methods.mpo(), game, 0, policy=policy).policy
    regularized_gap = game.duality_gap(game.regularized_equilibrium(first, 0.1))
    assert regularized_gap > 0.05
    assert level(methods.mpo(1.0, 0.1, magnet_every=40)) < 0.05
    assert level(methods.mmd(1.0, 0.1)) == pytest.approx(regularized_gap, rel=0.15)
    assert level(methods.mirror_descent(1.0)) > 1.5 * regularized_gap


def test_the_last_network_of_mpo_is_near_equilibrium_and_those_of_its_rivals_are_not() -> None:
    _check_networks(seed=1, updates=250)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_last_network_of_mpo_is_near_equilibrium_on_other_games_too(seed: int) -> None:
    _check_networks(seed, updates=600)


@pytest.mark.slow
def test_the_last_network_of_mpo_is_nearer_from_judged_samples_too() -> None:
    _check_networks(seed=1, updates=400, feedback=GroupSampling(responses=128, seed=1))
