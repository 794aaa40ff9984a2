import re
from typing import Any

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError, GameError

START = (0.6, 0.3, 0.1)


def test_defaults_start_everything_at_the_uniform_policy() -> None:
    trace = games.run(methods.mmd(), games.biased_rps(), updates=3, record=True)
    assert trace.policies is not None
    np.testing.assert_allclose(trace.policies[0], 1 / 3)
    np.testing.assert_allclose(np.exp(trace.log_magnet), 1 / 3)


def test_the_magnet_starts_at_the_reference_and_the_reference_at_the_initial_policy() -> None:
    game, reference, magnet = games.biased_rps(), (0.1, 0.1, 0.8), (0.25, 0.5, 0.25)
    given = games.run(methods.mmd(), game, updates=2, initial=START)
    np.testing.assert_allclose(np.exp(given.log_magnet), START)
    given = games.run(methods.mmd(), game, updates=2, initial=START, reference=reference)
    np.testing.assert_allclose(np.exp(given.log_magnet), reference)
    given = games.run(methods.mmd(), game, updates=2, initial=START, reference=reference, magnet=magnet)
    np.testing.assert_allclose(np.exp(given.log_magnet), magnet)


def test_updates_follow_the_published_recursion() -> None:
    game, step_size, strength, every = games.random_game(5, seed=0), 0.8, 0.25, 3
    trace = games.run(methods.mpo(step_size, strength, every), game, updates=8, record=True)
    policy = magnet = np.full(5, 0.2)
    assert trace.policies is not None
    for update in range(1, 9):
        weight = (policy * magnet ** (step_size * strength) * np.exp(step_size * (game.P @ policy))) ** (
            1 / (1 + step_size * strength)
        )
        policy = weight / weight.sum()
        if update % every == 0:
            magnet = policy
        np.testing.assert_allclose(trace.policies[update], policy, rtol=1e-13)
    np.testing.assert_array_equal(trace.magnet_moves, [3, 6])
    np.testing.assert_allclose(np.exp(trace.log_magnet), magnet, rtol=1e-13)


def step(policy: np.ndarray, payoff: np.ndarray, step_size: float) -> np.ndarray:
    weight = policy * np.exp(step_size * payoff)
    return weight / weight.sum()


def test_optimistic_updates_follow_the_published_recursion() -> None:
    game, step_size = games.random_game(5, seed=0), 0.8
    trace = games.run(methods.omwu(step_size), game, updates=6, record=True)
    policy, previous = np.full(5, 0.2), None
    assert trace.policies is not None
    for update in range(1, 7):
        payoff = game.P @ policy
        policy = step(policy, 2 * payoff - (payoff if previous is None else previous), step_size)
        previous = payoff
        np.testing.assert_allclose(trace.policies[update], policy, rtol=1e-13)


def test_extragradient_updates_follow_the_published_recursion() -> None:
    game, step_size, strength = games.random_game(5, seed=0), 0.8, 0.2
    plain = games.run(methods.extragradient(step_size), game, updates=6, record=True)
    regularized = games.run(
        methods.egpo(step_size, strength), game, updates=6, record=True, initial=(0.3, *[0.175] * 4)
    )
    reference = np.array((0.3, *[0.175] * 4))
    policy, other = np.full(5, 0.2), reference
    assert plain.policies is not None and regularized.policies is not None
    for update in range(1, 7):
        policy = step(policy, game.P @ step(policy, game.P @ policy, step_size), step_size)
        np.testing.assert_allclose(plain.policies[update], policy, rtol=1e-13)
        base = other ** (1 - step_size * strength) * reference ** (step_size * strength)
        other = step(base, game.P @ step(base, game.P @ other, step_size), step_size)
        np.testing.assert_allclose(regularized.policies[update], other, rtol=1e-13)


def test_optimistic_projected_gradient_follows_the_published_recursion() -> None:
    game, step_size = games.random_game(5, seed=0), 0.3
    trace = games.run(methods.ogda(step_size), game, updates=20, record=True)
    policy, previous = np.full(5, 0.2), game.P @ np.full(5, 0.2)
    assert trace.policies is not None
    for update in range(1, 21):
        payoff = game.P @ policy
        target = policy + step_size * (2 * payoff - previous)
        # The projection by its definition: the threshold that leaves a total of one, by bisection.
        low, high = target.min() - 1, target.max()
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if np.maximum(target - middle, 0).sum() > 1 else (low, middle)
        policy, previous = np.maximum(target - low, 0), payoff
        np.testing.assert_allclose(trace.policies[update], policy, atol=1e-12)


def test_the_magnets_path_is_recorded() -> None:
    trace = games.run(methods.mpo(magnet_every=3), games.biased_rps(), updates=8, record=True, initial=START)
    assert trace.magnets is not None and trace.policies is not None
    np.testing.assert_array_equal(trace.magnet_moves, [3, 6])
    np.testing.assert_allclose(trace.magnets, trace.policies[[0, 3, 6]], rtol=1e-15)


def test_a_run_stops_at_the_gap_asked_for() -> None:
    whole = games.run(methods.mpo(), games.biased_rps(), updates=300)
    short = games.run(methods.mpo(), games.biased_rps(), updates=300, stop_at_gap=1e-3)
    length = len(short.duality_gap)
    assert length < 301
    assert short.duality_gap[-1] <= 1e-3 < short.duality_gap[-2]
    np.testing.assert_array_equal(short.duality_gap, whole.duality_gap[:length])
    assert whole.evaluations_to(1e-3) == length - 1
    assert whole.evaluations_to(0.0) is None


def test_curves_longer_than_the_recorders_buffer_are_the_same_as_short_ones() -> None:
    whole = games.run(methods.mpo(), games.biased_rps(), updates=1000, record=True)
    start = games.run(methods.mpo(), games.biased_rps(), updates=37, record=True)
    np.testing.assert_array_equal(whole.duality_gap[:38], start.duality_gap)
    np.testing.assert_allclose(whole.average_gap[:38], start.average_gap, atol=1e-15)
    assert whole.policies is not None
    np.testing.assert_allclose(whole.average_policy, whole.policies.mean(axis=0), atol=1e-14)


def test_a_moving_average_magnet_mixes_geometrically() -> None:
    game = games.biased_rps()
    trace = games.run(methods.mpo(magnet=methods.Ema(0.3)), game, updates=1, initial=START, magnet=(0.2, 0.2, 0.6))
    mixed = np.array([0.2, 0.2, 0.6]) ** 0.7 * trace.policy**0.3
    np.testing.assert_allclose(np.exp(trace.log_magnet), mixed / mixed.sum(), rtol=1e-13)
    np.testing.assert_array_equal(trace.magnet_moves, [1])


def test_rounds_end_evenly() -> None:
    by_round = methods.mpo(magnet=methods.EachRound())
    trace = games.run(by_round, games.biased_rps(), updates=10, rounds=3)
    np.testing.assert_array_equal(trace.magnet_moves, [3, 6, 10])
    np.testing.assert_array_equal(games.run(by_round, games.biased_rps(), updates=10).magnet_moves, [10])


def test_self_play_costs_one_evaluation_an_update() -> None:
    trace = games.run(methods.mpo(), games.biased_rps(), updates=12)
    np.testing.assert_array_equal(trace.evaluations, np.arange(13))


def test_opponents_that_do_not_move_are_evaluated_once() -> None:
    game, kept = games.biased_rps(), (0.2, 0.2, 0.6)
    against_reference = methods.mirror_descent(0.5, opponent=methods.Opponent("reference"))
    trace = games.run(against_reference, game, updates=4, initial=START, reference=kept)
    np.testing.assert_array_equal(trace.evaluations, [0, 1, 1, 1, 1])
    expected = np.array(START) * np.exp(4 * 0.5 * game.payoff(kept))
    np.testing.assert_allclose(trace.policy, expected / expected.sum(), rtol=1e-13)

    against_magnet = methods.mpo(magnet_every=2, opponent=methods.Opponent("magnet"))
    trace = games.run(against_magnet, game, updates=6, initial=START)
    np.testing.assert_array_equal(trace.evaluations, [0, 1, 1, 2, 2, 3, 3])


def test_an_update_makes_one_matrix_vector_product_and_no_matrix() -> None:
    products = []

    class CountingMatrix(np.ndarray):
        def __matmul__(self, other: Any) -> Any:
            products.append(other.shape)
            return np.asarray(self) @ other

        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **options: object) -> None:
            raise AssertionError(f"{ufunc} on the whole matrix")

    game = games.random_game(30, seed=1)
    object.__setattr__(game, "P", game.P.view(CountingMatrix))
    games.run(methods.mpo(), game, updates=20)
    assert products == [(30,)] * 21  # the last one measures the final gap


def test_policies_are_recorded_only_on_request() -> None:
    assert games.run(methods.mpo(), games.rps(), updates=2).policies is None


def test_progress_is_shown_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = games.run(methods.mpo(), games.biased_rps(), updates=5)
    assert capsys.readouterr() == ("", "")
    shown = games.run(methods.mpo(), games.biased_rps(), updates=5, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "5/5" in captured.err
    np.testing.assert_array_equal(quiet.policy, shown.policy)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"updates": -1}, ConfigError, "updates is -1, expected at least 0"),
        ({"updates": 4, "rounds": 5}, ConfigError, "rounds is 5, expected between 1 and the number of updates (4)"),
        ({"updates": 4, "rounds": 0}, ConfigError, "rounds is 0, expected"),
        ({"initial": (0.5, 0.5)}, GameError, "initial has shape (2,), expected (3,)"),
        ({"reference": (0.5, 0.5, 0.5)}, GameError, "reference sums to 1.5"),
        ({"magnet": (1.5, -0.5, 0.0)}, GameError, "magnet[1] = -0.5"),
        ({"initial": (1, 0, 0), "magnet": (0, 0.5, 0.5)}, ConfigError, "the magnet gives probability zero to every"),
    ],
)
def test_bad_input_is_refused(settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        games.run(methods.mpo(), games.biased_rps(), **settings)
