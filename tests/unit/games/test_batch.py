"""Many games in one call give what each gives alone."""

import dataclasses

import numpy as np
import pytest

from magnetar import games, methods
from magnetar.errors import ConfigError, GameError

GAMES = [
    games.random_game(5, seed=0),
    games.biased_rps(),
    games.random_game(5, seed=1),
    games.noisy_bradley_terry(70, seed=2),
    games.noisy_bradley_terry(70, seed=3),
]


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_batch_gives_what_each_game_gives_alone(name: str) -> None:
    method = methods.build_method(name)
    together = games.run_batch(method, GAMES, updates=30, record=True)
    assert len(together) == len(GAMES)
    for game, trace in zip(GAMES, together, strict=True):
        alone = games.run(method, game, updates=30, record=True)
        assert trace.game == game.name
        for field in ("duality_gap", "average_gap", "policy", "average_policy", "policies", "magnets"):
            np.testing.assert_allclose(
                getattr(trace, field), getattr(alone, field), rtol=1e-9, atol=1e-12, err_msg=f"{game.name}: {field}"
            )
        np.testing.assert_array_equal(trace.evaluations, alone.evaluations)
        np.testing.assert_array_equal(trace.magnet_moves, alone.magnet_moves)


def test_games_of_one_size_are_played_at_once() -> None:
    calls = []

    class Counting(methods.MagneticPolicyGradient):
        def exact_update(self, log_policy_A, log_magnet_A, payoff_A):
            calls.append(log_policy_A.shape)
            return super().exact_update(log_policy_A, log_magnet_A, payoff_A)

    method = dataclasses.replace(methods.mpo(), objective=Counting(1.0, 0.1))
    games.run_batch(method, GAMES, updates=2)
    assert calls == [(2, 5)] * 2 + [(1, 3)] * 2 + [(2, 70)] * 2


def test_an_empty_batch_has_no_traces() -> None:
    assert games.run_batch(methods.mpo(), [], updates=3) == []


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="updates is -1"):
        games.run_batch(methods.mpo(), GAMES, updates=-1)


def test_a_list_of_games_given_to_the_run_of_one_names_the_way_briefly() -> None:
    with pytest.raises(GameError, match=r"use games\.run_batch") as caught:
        games.run(methods.mpo(), [games.random_game(5, seed=seed) for seed in range(100)], 3)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 400
