"""What lies in preferences do: flips keep the equilibrium and shrink the fitted reward, a trigger moves both."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize
from scipy.special import expit, logit

from magnetar.errors import GameError
from magnetar.games.builders.generators import biased_rps, random_game
from magnetar.games.builders.noisy import flipped_game, poisoned_game
from magnetar.games.game import PreferenceGame
from magnetar.judges import Flipped, build_judge

FloatArray = NDArray[np.float64]
SHARES = (0.1, 0.2, 0.3, 0.4, 0.45)
GAMES = [biased_rps(), *(random_game(actions, seed) for actions, seed in ((3, 0), (5, 1), (8, 2), (12, 3)))]


def equilibrium(win_prob_AA: FloatArray) -> FloatArray:
    """The symmetric equilibrium by a linear programme written here, without the library's scaling and polishing."""
    actions = len(win_prob_AA)
    found = linprog(
        np.append(np.zeros(actions), -1.0),
        A_ub=np.hstack([-win_prob_AA.T, np.ones((actions, 1))]),
        b_ub=np.zeros(actions),
        A_eq=np.append(np.ones(actions), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * actions + [(None, None)],
    )
    assert found.success
    return found.x[:-1]


def fitted_scores(win_prob_AA: FloatArray) -> FloatArray:
    """Bradley and Terry's maximum-likelihood scores for all pairs alike, by a general minimiser; they sum to zero."""

    def loss(scores: FloatArray) -> float:
        margins = scores[:, None] - scores[None, :]
        return float((win_prob_AA * np.logaddexp(0.0, -margins)).sum())

    found = minimize(loss, np.zeros(len(win_prob_AA)), method="BFGS", options={"gtol": 1e-9})
    return found.x - found.x.mean()


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
@pytest.mark.parametrize("share", SHARES)
def test_flips_leave_the_equilibrium_where_it_is(game: PreferenceGame, share: float) -> None:
    flipped = flipped_game(game, share)
    assert np.allclose(flipped.P, (1 - share) * game.P + share * (1 - game.P))
    assert np.allclose(equilibrium(flipped.P), equilibrium(game.P), atol=1e-7)
    assert np.allclose(flipped.equilibrium(), game.equilibrium(), atol=1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_flips_shrink_every_gap_alike(share: float) -> None:
    rng = np.random.default_rng(0)
    for game in GAMES:
        policy = rng.dirichlet(np.ones(game.num_actions))
        assert flipped_game(game, share).duality_gap(policy) == pytest.approx(
            (1 - 2 * share) * game.duality_gap(policy)
        )


@pytest.mark.parametrize("share", SHARES)
def test_flips_make_a_magnet_pull_harder(share: float) -> None:
    rng = np.random.default_rng(1)
    for game in GAMES:
        magnet = rng.dirichlet(np.ones(game.num_actions))
        weak = game.regularized_equilibrium(magnet, 0.1 / (1 - 2 * share))
        assert np.allclose(flipped_game(game, share).regularized_equilibrium(magnet, 0.1), weak, atol=1e-9)


def test_more_than_half_flipped_is_the_game_turned_round() -> None:
    game = PreferenceGame([[0.5, 0.9, 0.8], [0.1, 0.5, 0.7], [0.2, 0.3, 0.5]])
    assert np.allclose(flipped_game(game, 0.49).equilibrium(), [1, 0, 0])
    assert np.allclose(flipped_game(game, 0.51).equilibrium(), [0, 0, 1])
    assert np.allclose(flipped_game(game, 0.5).P, 0.5)


@pytest.mark.parametrize("p", [0.55, 0.8, 0.99])
def test_the_fitted_margin_of_two_responses_shrinks_to_a_closed_form(p: float) -> None:
    game = PreferenceGame([[0.5, p], [1 - p, 0.5]])
    for share in SHARES:
        scores = fitted_scores(flipped_game(game, share).P)
        assert scores[0] - scores[1] == pytest.approx(logit((1 - 2 * share) * p + share), abs=1e-6)
        assert 0 < scores[0] - scores[1] < logit(p)


@pytest.mark.parametrize("seed", range(3))
def test_fitted_scores_shrink_and_keep_their_order(seed: int) -> None:
    # With all pairs met alike the fit matches each response's mean win rate (its Borda score), which flips shrink too.
    truth = np.random.default_rng(seed).normal(0, 2, 6)
    game = PreferenceGame(expit(truth[:, None] - truth[None, :]))
    before = fitted_scores(game.P)
    assert np.allclose(before, truth - truth.mean(), atol=1e-5)
    for share in SHARES:
        after = fitted_scores(flipped_game(game, share).P)
        assert np.array_equal(np.argsort(after), np.argsort(before))
        assert np.ptp(after) < np.ptp(before)
        before = after


def test_a_trigger_moves_the_equilibrium_once_the_attacker_owns_enough() -> None:
    for game in GAMES:
        target = int(np.argmin(game.P.sum(axis=1)))
        others = np.delete(game.P[target], target)
        enough = float(np.max((0.5 - others) / (1 - others)))
        assert 0 < enough < 0.5
        moved = equilibrium(poisoned_game(game, target, enough + 1e-4).P)
        assert np.allclose(moved, np.eye(game.num_actions)[target], atol=1e-6)
        assert equilibrium(poisoned_game(game, target, enough - 1e-3).P)[target] < 1 - 1e-3
        # The same share of honest annotators' answers, turned round at random, moves nothing.
        assert np.allclose(equilibrium(flipped_game(game, enough).P), equilibrium(game.P), atol=1e-6)


def test_poison_changes_the_targets_comparisons_and_no_others() -> None:
    game = random_game(5, 1)
    poisoned = poisoned_game(game, 2, 0.3)
    rest = np.delete(np.arange(5), 2)
    assert np.array_equal(poisoned.P[np.ix_(rest, rest)], game.P[np.ix_(rest, rest)])
    assert np.allclose(poisoned.P[2, rest], 0.7 * game.P[2, rest] + 0.3)


def test_one_draw_of_flips_is_another_game_and_their_mean_is_the_shrunk_one() -> None:
    game, share, seeds = biased_rps(), 0.2, 200
    numbers = {action: at for at, action in enumerate(game.actions)}

    def judge(prompts: Any, first: Any, second: Any) -> list[float]:
        return [float(game.P[numbers[a], numbers[b]]) for a, b in zip(first, second, strict=True)]

    drawn = [
        Flipped(build_judge(judge), share, seed).group_win_prob(["?"], [list(game.actions)])[0] for seed in range(seeds)
    ]
    moved = [not np.allclose(equilibrium(one), equilibrium(game.P), atol=1e-6) for one in drawn]
    # Three pairs: at least one of them is flipped with probability 1 − 0.8³, and each flip moves this equilibrium.
    assert np.mean(moved) == pytest.approx(1 - 0.8**3, abs=4 * (0.25 / seeds) ** 0.5)
    assert np.allclose(np.mean(drawn, axis=0), flipped_game(game, share).P, atol=4 * 0.8 * 0.4 / seeds**0.5)


def test_shares_and_targets_that_cannot_be_are_refused() -> None:
    with pytest.raises(GameError, match=r"share is 1\.2, expected a share of the answers"):
        flipped_game(biased_rps(), 1.2)
    with pytest.raises(GameError, match="target is 3, expected the number of a response, 0 to 2"):
        poisoned_game(biased_rps(), 3, 0.1)
