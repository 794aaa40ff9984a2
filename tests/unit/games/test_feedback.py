"""Sampled payoffs of tabular runs: unbiased, counted, repeatable."""

import re

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError
from magnetar.games.play.feedback import SampledFeedback

GAME = games.random_game(5, seed=3)
POLICY = np.array([0.4, 0.25, 0.2, 0.1, 0.05])
OTHER = np.array([0.1, 0.1, 0.2, 0.2, 0.4])
DRAWS = 6000


def _draws(feedback: SampledFeedback, opponent: np.ndarray | None, draws: int = DRAWS) -> np.ndarray:
    generator = feedback.generator()
    return np.array([feedback.payoff(generator, GAME.P, POLICY, opponent)[0] for _ in range(draws)])


@pytest.mark.parametrize("opponent", [None, OTHER], ids=["self-play", "another opponent"])
@pytest.mark.parametrize("responses", [None, 6], ids=["all judged", "group"])
def test_the_mean_payoff_is_the_true_one(responses: int | None, opponent: np.ndarray | None) -> None:
    drawn = _draws(SampledFeedback(opponents=4, responses=responses, seed=1), opponent)
    against = POLICY if opponent is None else opponent
    error = drawn.mean(axis=0) - GAME.P @ against
    standard_error = drawn.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    assert (np.abs(error) < 4 * standard_error).all()
    assert (standard_error < 0.02).all(), "the draws must be enough to see a bias"


def test_exploration_shrinks_each_action_by_its_own_factor() -> None:
    exploration = 0.2
    drawn = _draws(SampledFeedback(opponents=4, responses=6, exploration=exploration, seed=2), None)
    expected = 0.5 + (GAME.P @ POLICY - 0.5) * POLICY / (POLICY + exploration)
    standard_error = drawn.std(axis=0, ddof=1) / np.sqrt(DRAWS)
    assert (np.abs(drawn.mean(axis=0) - expected) < 4 * standard_error).all()
    assert np.abs(expected - GAME.P @ POLICY).max() > 8 * standard_error.max(), "the bias must be visible"


def test_more_opponents_give_less_noise_in_proportion() -> None:
    variance = [_draws(SampledFeedback(opponents=m, seed=3), None, 3000).var(axis=0) for m in (4, 16)]
    np.testing.assert_allclose(variance[0] / variance[1], 4.0, rtol=0.2)


def test_a_groups_payoffs_average_to_exactly_the_games_value() -> None:
    feedback = SampledFeedback(responses=7, seed=4)
    generator = feedback.generator()
    for _ in range(50):
        payoff, _ = feedback.payoff(generator, GAME.P, POLICY)
        # Credit times probability, summed over actions, is the group's mean advantage.
        assert POLICY @ (payoff - 0.5) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    ("feedback", "opponent", "duels"),
    [
        (SampledFeedback(opponents=8), None, 5 * 8),
        (SampledFeedback(opponents=8), OTHER, 5 * 8),
        (SampledFeedback(responses=6), None, 15),
        (SampledFeedback(opponents=8, responses=6), OTHER, 6 * 8),
    ],
)
def test_duels_are_counted(feedback: SampledFeedback, opponent: np.ndarray | None, duels: int) -> None:
    assert feedback.payoff(feedback.generator(), GAME.P, POLICY, opponent)[1] == duels


def test_a_run_adds_up_its_duels_and_extragradient_pays_twice() -> None:
    feedback = SampledFeedback(opponents=8)
    np.testing.assert_array_equal(games.run(methods.mpo(), GAME, 3, feedback=feedback).duels, [0, 40, 80, 120])
    np.testing.assert_array_equal(games.run(methods.egpo(), GAME, 3, feedback=feedback).duels, [0, 80, 160, 240])
    np.testing.assert_array_equal(games.run(methods.mpo(), GAME, 3).duels, [0, 0, 0, 0])


@pytest.mark.parametrize("responses", [None, 8])
def test_the_seed_decides_the_run(responses: int | None) -> None:
    def policy(seed: int) -> np.ndarray:
        return games.run(methods.mpo(), GAME, 20, feedback=SampledFeedback(4, responses, seed=seed)).policy

    np.testing.assert_array_equal(policy(1), policy(1))
    assert np.abs(policy(1) - policy(2)).max() > 1e-3


def test_gaps_stay_exact_when_payoffs_are_not() -> None:
    trace = games.run(methods.mpo(), GAME, 10, feedback=SampledFeedback(2), record=True)
    assert trace.policies is not None
    np.testing.assert_allclose(trace.duality_gap, [GAME.duality_gap(p) for p in trace.policies], atol=1e-14)


def test_a_matrix_read_by_duels_is_unbiased_and_its_orders_agree() -> None:
    feedback = SampledFeedback(opponents=4)
    generator = feedback.generator()
    draws, duels = zip(*(feedback.win_prob(generator, GAME.P) for _ in range(2000)), strict=True)
    pairs = GAME.num_actions * (GAME.num_actions - 1) // 2
    assert set(duels) == {4 * pairs}
    np.testing.assert_allclose(draws[0] + draws[0].T, 1.0, atol=1e-15)
    error = np.sqrt(GAME.P * (1 - GAME.P) / (4 * 2000)) + 1e-12
    assert (np.abs(np.mean(draws, axis=0) - GAME.P) < 4.5 * error).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"opponents": 0}, "opponents is 0, expected at least 1"),
        ({"opponents": 2.5}, "opponents is 2.5, expected an integer of at least 1"),
        ({"responses": 2.5}, "responses is 2.5, expected an integer"),
        ({"seed": 1.5}, "seed is 1.5, expected an integer of at least 0"),
        ({"responses": 4, "exploration": "a"}, "exploration is 'a', expected a finite number"),
        ({"responses": 1}, "responses is 1, expected at least 2"),
        ({"responses": 4, "exploration": -0.1}, "exploration is -0.1, expected a finite number"),
        ({"responses": 4, "exploration": float("nan")}, "exploration is nan, expected a finite number"),
        ({"exploration": 0.1}, "none needs importance weights"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SampledFeedback(**settings)
