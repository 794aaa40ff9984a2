"""The equilibrium of the largest entropy: unique, so that neither the order of the players nor copies decide it."""

import numpy as np
import pytest

from magnetar.games.equilibrium import (
    linear_program_equilibrium,
    maximum_entropy_equilibrium,
    newton_regularized_equilibrium,
)

CYCLE = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]])


def with_copy(win_prob: np.ndarray, of: int) -> np.ndarray:
    """The game with one action listed twice."""
    rows = [*range(len(win_prob)), of]
    return win_prob[np.ix_(rows, rows)]


def coarse_game(rng: np.random.Generator) -> np.ndarray:
    """A game with win rates of a few comparisons, which often has many equilibria."""
    actions, levels = int(rng.integers(2, 7)), int(rng.integers(1, 4))
    upper = np.triu(rng.integers(-levels, levels + 1, (actions, actions)), 1) / (2 * levels)
    return 0.5 + upper - upper.T


def test_players_that_nothing_tells_apart_weigh_the_same() -> None:
    assert maximum_entropy_equilibrium(np.full((4, 4), 0.5)) == pytest.approx([0.25] * 4, abs=1e-9)


@pytest.mark.parametrize("of", [0, 1, 2])
def test_a_copy_takes_its_share_from_the_original_alone(of: int) -> None:
    alone = maximum_entropy_equilibrium(CYCLE)
    assert alone == pytest.approx(linear_program_equilibrium(CYCLE), abs=1e-12)
    shared = maximum_entropy_equilibrium(with_copy(CYCLE, of))
    expected = np.append(alone, alone[of] / 2.0)
    expected[of] /= 2.0
    assert shared == pytest.approx(expected, abs=1e-8)


def test_it_is_the_limit_of_equilibria_regularised_by_less_and_less_entropy() -> None:
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(24):
        game = coarse_game(rng)
        found = maximum_entropy_equilibrium(game)
        assert (game.T @ found).min() >= 0.5 - 1e-8, "an equilibrium"
        uniform = np.full(len(game), -np.log(len(game)))
        assert found == pytest.approx(np.exp(newton_regularized_equilibrium(game, uniform, 1e-5)), abs=2e-3)
        order = rng.permutation(len(game))
        assert maximum_entropy_equilibrium(game[np.ix_(order, order)]) == pytest.approx(found[order], abs=1e-6)
        several += bool(np.abs(found - linear_program_equilibrium(game)).max() > 1e-3)
    assert several >= 4, "games with one equilibrium alone would test nothing"


def test_rounding_of_averaged_win_rates_breaks_no_tie() -> None:
    rng = np.random.default_rng(1)
    game = with_copy(with_copy(CYCLE, 1), 1)
    noise = np.triu(rng.normal(0.0, 2e-16, game.shape), 1)
    found = maximum_entropy_equilibrium(game + noise - noise.T)
    assert found == pytest.approx(maximum_entropy_equilibrium(game), abs=1e-8)
