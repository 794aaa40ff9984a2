"""What every method must do on an exact game, whatever it is: one test for all of them."""

from collections.abc import Callable

import numpy as np
import pytest

from magnetar import games, methods

FACTORIES = pytest.mark.parametrize("make", list(methods.METHODS.values()), ids=list(methods.METHODS))
Factory = Callable[..., methods.Method]


def policy_of(actions: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions))


@FACTORIES
def test_relabelling_the_actions_permutes_the_result(make: Factory) -> None:
    game, start, order = games.random_game(12, seed=0), policy_of(12, 1), np.random.default_rng(2).permutation(12)
    relabelled = games.PreferenceGame(game.P[np.ix_(order, order)])
    plain = games.run(make(), game, updates=25, initial=start)
    permuted = games.run(make(), relabelled, updates=25, initial=start[order])
    np.testing.assert_allclose(permuted.policy, plain.policy[order], rtol=1e-10)
    np.testing.assert_allclose(permuted.duality_gap, plain.duality_gap, atol=1e-12)


@FACTORIES
def test_the_policy_stays_a_distribution(make: Factory) -> None:
    trace = games.run(make(), games.noisy_bradley_terry(15, seed=3), updates=200, record=True)
    assert trace.policies is not None
    assert (trace.policies >= 0).all()
    np.testing.assert_allclose(trace.policies.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(trace.average_policy.sum(), 1.0, atol=1e-14)


@FACTORIES
@pytest.mark.parametrize(
    "game", [games.biased_rps(), games.random_game(9, seed=4), games.cyclic_game(8)], ids=lambda game: game.name
)
def test_the_equilibrium_is_a_fixed_point_when_the_magnet_is_there_too(
    make: Factory, game: games.PreferenceGame
) -> None:
    equilibrium = game.equilibrium()
    trace = games.run(make(), game, updates=50, initial=equilibrium)
    np.testing.assert_allclose(trace.policy, equilibrium, atol=1e-11)
    assert trace.duality_gap.max() < 1e-11


@FACTORIES
def test_the_policy_moves_towards_what_wins(make: Factory) -> None:
    game = games.noisy_bradley_terry(6, seed=5, noise=0.0)
    trace = games.run(make(), game, updates=100)
    assert game.payoff(np.full(6, 1 / 6)) @ trace.policy > 0.5
    assert trace.duality_gap[-1] < 0.9 * trace.duality_gap[0]


@FACTORIES
def test_the_curves_are_those_of_the_recorded_policies(make: Factory) -> None:
    game = games.random_game(7, seed=6)
    trace = games.run(make(), game, updates=40, initial=policy_of(7, 7), record=True)
    assert trace.policies is not None
    assert trace.policies.shape == (41, 7)
    averages = np.cumsum(trace.policies, axis=0) / np.arange(1, 42)[:, None]
    np.testing.assert_allclose(trace.duality_gap, [game.duality_gap(p) for p in trace.policies], atol=1e-14)
    np.testing.assert_allclose(trace.average_gap, [game.duality_gap(p) for p in averages], atol=1e-13)
    np.testing.assert_allclose(trace.average_policy, averages[-1], atol=1e-14)
    np.testing.assert_array_equal(trace.policies[-1], trace.policy)


@FACTORIES
@pytest.mark.parametrize("step_size", [1e-300, 1e-9, 1.0, 1e3, 1e9, 1e100, 1e300, 1.7e308])
@pytest.mark.parametrize(
    "start",
    [(1 / 3, 1 / 3, 1 / 3), (1e-300, 1e-300, 1.0), (1.0, 1e-300, 0.0), (5e-324, 0.5, 0.5), (0.0, 0.5, 0.5)],
    ids=["uniform", "two at 1e-300", "1e-300 and zero", "smallest subnormal", "zero"],
)
def test_no_nan_at_any_step_size_or_probability(
    make: Factory, step_size: float, start: tuple[float, float, float]
) -> None:
    trace = games.run(make(step_size=step_size), games.biased_rps(), updates=60, initial=start, record=True)
    assert trace.policies is not None
    assert not np.isnan(trace.policies).any()
    assert not np.isnan(trace.log_policy).any()
    assert not np.isnan(trace.average_gap).any()
    np.testing.assert_allclose(trace.policies.sum(axis=1), 1.0, atol=1e-12)
    absent = np.array(start) == 0.0
    assert (trace.policies[:, absent] == 0.0).all()


@FACTORIES
def test_a_tiny_probability_is_not_lost(make: Factory) -> None:
    # Probability 1e-300 on the action that beats the other: some hundreds of nats later it must have taken over.
    game = games.PreferenceGame([[0.5, 0.0], [1.0, 0.5]])
    trace = games.run(make(step_size=1.0), game, updates=4000, initial=(1.0, 1e-300), magnet=(0.5, 0.5))
    assert trace.policy[1] > 0.9


@FACTORIES
def test_a_game_of_one_action_and_a_run_of_no_updates(make: Factory) -> None:
    alone = games.run(make(), games.PreferenceGame([[0.5]]), updates=5)
    np.testing.assert_array_equal(alone.policy, [1.0])
    np.testing.assert_array_equal(alone.duality_gap, np.zeros(6))
    still = games.run(make(), games.biased_rps(), updates=0)
    assert still.duality_gap.shape == still.evaluations.shape == (1,)
    np.testing.assert_allclose(still.policy, 1 / 3)
