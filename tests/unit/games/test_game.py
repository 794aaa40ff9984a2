import re

import numpy as np
import pytest
import torch

from magnetar import games
from magnetar.errors import GameError

RPS = [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]


def test_matrix_is_a_read_only_float64_copy() -> None:
    given = np.array(RPS, dtype=np.float32)
    game = games.PreferenceGame(given)
    given[0, 1] = 0.7
    assert game.P.dtype == np.float64
    assert game.P[0, 1] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        game.P[0, 1] = 0.3


def test_lists_integers_and_tensors_are_accepted() -> None:
    for given in (RPS, torch.tensor(RPS), np.array(RPS, dtype=object)):
        np.testing.assert_array_equal(games.PreferenceGame(given).P, RPS)


def test_orders_that_differ_by_rounding_are_averaged() -> None:
    game = games.PreferenceGame([[0.5, 0.7 + 4e-7], [0.3, 0.5]])
    assert game.P[0, 1] == pytest.approx(0.7 + 2e-7, abs=1e-12)
    np.testing.assert_allclose(game.P + game.P.T, 1.0, rtol=0, atol=1e-16)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.full((2, 3), 0.5), "P has shape (2, 3), expected a square matrix"),
        ([0.5, 0.5], "P has shape (2,), expected a square matrix"),
        (np.empty((0, 0)), "P has shape (0, 0), expected a square matrix (A, A) with at least one action"),
        ([[0.5, float("nan")], [0.3, 0.5]], "P[0,1] = nan, expected a finite number"),
        ([[0.5, 0.7], [float("-inf"), 0.5]], "P[1,0] = -inf, expected a finite number"),
        ([[0.5, 1.2, 0.5], [-0.2, 0.5, -0.3], [0.5, 1.1, 0.5]], "P[1,2] = -0.3, expected a win probability"),
        ([[0.5, 0.9], [0.4, 0.5]], "P[0,1] + P[1,0] = 1.3, expected 1; average both orders"),
        ([[0.5, 0.5], [0.5, 0.6]], "P[1,1] = 0.6, expected 0.5: an action ties with itself"),
        ([["a", "b"], ["c", "d"]], "P[0,0] is 'a', expected a real number"),
        ([["0.5", "0.9"], ["0.1", "0.5"]], "P[0,0] is '0.5', expected a real number; text is not an array of numbers"),
        ([[0.5, 0.9], ["0.1", 0.5]], "P[1,0] is '0.1', expected a real number"),
        (np.array([[0.5, 0.9], [b"0.1", 0.5]], dtype=object), "P[1,0] is b'0.1', expected a real number"),
        (np.array([["0.5"]]), "P[0,0] is '0.5', expected a real number"),
        (np.array(RPS, dtype=complex), "P[0,0] is (0.5+0j), expected a real number; take its .real part"),
        (np.ma.array(RPS, mask=np.eye(3, dtype=bool)), "P is a masked array, expected all of its numbers"),
        ([[0.5, 10**400], [0.5, 0.5]], "P of type list is not an array of numbers"),
        ([[0.5], [0.5, 0.5]], "P of type list is not an array of numbers"),
    ],
)
def test_a_matrix_that_is_no_game_is_refused_with_its_worst_entry(matrix, message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        games.PreferenceGame(matrix)


def test_the_worst_pair_is_named() -> None:
    matrix = np.full((6, 6), 0.5)
    matrix[0, 1] = 0.6
    matrix[2, 5] = 0.8
    with pytest.raises(GameError, match=re.escape("P[2,5] + P[5,2] = 1.3, expected 1")):
        games.PreferenceGame(matrix)


def test_action_names_must_match_and_are_kept() -> None:
    assert games.PreferenceGame(RPS).actions == ("0", "1", "2")
    assert games.PreferenceGame(RPS, actions=["r", "p", "s"]).actions == ("r", "p", "s")
    with pytest.raises(GameError, match="2 action names for a matrix of 3 actions"):
        games.PreferenceGame(RPS, actions=["r", "p"])
    for names in (2, "rps"):
        with pytest.raises(GameError, match=f"actions is {names!r}, expected a list of 3 names"):
            games.PreferenceGame(RPS, actions=names)  # type: ignore[arg-type] - wrong values are the point


@pytest.mark.parametrize("names", [["r", "p", "r"], [1, "1", 2]])
def test_two_actions_of_one_name_are_refused(names: list) -> None:
    with pytest.raises(GameError, match=f"two actions are named '{names[0]}', expected a name of its own for each"):
        games.PreferenceGame(RPS, actions=names)


@pytest.mark.parametrize("name", sorted(games.BUILDERS))
def test_no_builder_names_two_actions_alike(name: str) -> None:
    actions = games.by_name(name).actions
    assert len(set(actions)) == len(actions)


def test_name_shows() -> None:
    assert games.PreferenceGame(RPS).name == "game of 3 actions"
    assert repr(games.PreferenceGame(RPS, name="mine")) == "PreferenceGame('mine', 3 actions)"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([0.5, 0.5], "policy has shape (2,), expected (3,)"),
        ([0.5, 0.6, -0.1], "policy[2] = -0.1, expected a probability"),
        ([0.5, 0.5, float("nan")], "policy[2] = nan, expected a probability"),
        ([float("inf"), 0.5, 0.5], "policy[0] = inf, expected a probability"),
        ([0.5, 0.5, 0.5], "policy sums to 1.5, expected 1"),
    ],
)
def test_a_policy_that_is_no_distribution_is_refused(policy: list[float], message: str) -> None:
    with pytest.raises(GameError, match=re.escape(message)):
        games.PreferenceGame(RPS).duality_gap(policy)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan"), float("inf"), "a", "0.1", None])
def test_a_strength_must_be_positive_and_finite(strength) -> None:
    game, policy = games.rps(), [0.2, 0.3, 0.5]
    for ask in (
        lambda: game.regularized_gap(policy, policy, strength),
        lambda: game.regularized_equilibrium(policy, strength),
    ):
        with pytest.raises(GameError, match="expected a positive finite number"):
            ask()


def test_a_strength_whose_inverse_leaves_float64_is_refused_and_the_least_one_is_right() -> None:
    game, magnet = games.biased_rps(), np.array([0.2, 0.3, 0.5])
    for ask in (game.regularized_equilibrium, lambda magnet, strength: game.regularized_gap(magnet, magnet, strength)):
        with pytest.raises(GameError, match=r"strength is 9\.99989e-321, expected at least 1e-100"):
            ask(magnet, 1e-320)
    # Without a pull the regularised gap is the gap, and the equilibria are the game's; warnings would be errors here.
    assert game.regularized_gap(magnet, magnet, 1e-100) == pytest.approx(game.duality_gap(magnet), rel=1e-12)
    np.testing.assert_allclose(game.regularized_equilibrium(magnet, 1e-100), game.equilibrium(), atol=1e-12)
    large, uniform = games.random_game(30, seed=1), np.full(30, 1 / 30)
    for strength in (1e-20, 1e-100):  # Newton's matrix becomes singular to rounding error on the way
        policy = large.regularized_equilibrium(uniform, strength)
        assert large.regularized_gap(policy, uniform, strength) <= 1e-13


def test_points_that_are_no_numbers_are_refused() -> None:
    for points in ("abc", [["1", "0"]], [[0.1, 0.2], [0.3]]):
        with pytest.raises(GameError, match=r"points.*(not an array of numbers|expected a real number)"):
            games.game_of_points(points)


def test_payoff_of_a_pure_policy_is_a_column() -> None:
    np.testing.assert_array_equal(games.biased_rps().payoff([0, 1, 0]), [0.9, 0.5, 0.2])


@pytest.mark.parametrize("strength", [0.05, 1.0, 20.0])
def test_regularized_gap_is_its_closed_form(strength: float) -> None:
    game = games.random_game(6, seed=0)
    policy, magnet = np.random.default_rng(1).dirichlet(np.ones(6), size=2)
    q = game.P @ policy
    log_partition = np.log((magnet * np.exp(q / strength)).sum())
    divergence = (policy * np.log(policy / magnet)).sum()
    expected = 2 * (strength * log_partition + strength * divergence) - 1
    assert game.regularized_gap(policy, magnet, strength) == pytest.approx(expected, rel=1e-10)


def test_regularized_gap_is_infinite_where_the_magnet_has_no_mass() -> None:
    assert games.rps().regularized_gap([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], 0.1) == float("inf")


@pytest.mark.parametrize("strength", [1e-8, 1e-4, 0.1, 1e3])
@pytest.mark.parametrize("game", [games.random_game(20, seed=2), games.cyclic_game(10)], ids=lambda game: game.name)
def test_regularized_equilibrium_solves_its_equation(game: games.PreferenceGame, strength: float) -> None:
    magnet = np.random.default_rng(3).dirichlet(np.ones(game.num_actions))
    policy = game.regularized_equilibrium(magnet, strength)
    assert game.regularized_gap(policy, magnet, strength) < 1e-13
    played = policy > 0  # a weak pull leaves losing actions a probability that underflows
    slack = strength * (np.log(policy[played]) - np.log(magnet[played])) - game.payoff(policy)[played]
    assert np.ptp(slack) < 1e-11 * max(1.0, strength)
    assert (game.payoff(policy)[~played] < game.payoff(policy)[played].min()).all()


def test_regularized_equilibrium_keeps_zeros_and_tiny_magnets() -> None:
    policy = games.biased_rps().regularized_equilibrium([0.0, 1.0 - 1e-300, 1e-300], 0.1)
    assert policy[0] == 0.0
    assert not np.isnan(policy).any()
    assert 0 < policy[2] < 1e-200


def test_strength_sets_how_near_the_regularized_equilibrium_is() -> None:
    game, magnet = games.biased_rps(), [1 / 3] * 3
    gap = [game.duality_gap(game.regularized_equilibrium(magnet, strength)) for strength in (1.0, 0.1, 0.01, 0.001)]
    assert (np.diff(gap) < 0).all()
    np.testing.assert_allclose(game.regularized_equilibrium(magnet, 1e6), magnet, atol=1e-6)


def test_the_linear_programme_survives_degenerate_games() -> None:
    # HiGHS's first choice of algorithm ends without a solution on this game of rank two.
    game = games.by_name("disc_game:actions=200,seed=200")
    assert game.duality_gap(game.equilibrium()) < 1e-6


@pytest.mark.parametrize(
    ("matrix", "hint"),
    [
        ([[0.0, 1.0], [-1.0, 0.0]], r"use 0\.5 \+ matrix / 2"),
        ([[50, 80], [20, 50]], "divide by 100"),
        ([[0.5, 1.2], [-0.2, 0.5]], r"in \[0, 1\]$"),
    ],
)
def test_a_matrix_in_another_unit_is_refused_with_the_way_from_it(matrix: list, hint: str) -> None:
    with pytest.raises(GameError, match=hint):
        games.PreferenceGame(matrix)
