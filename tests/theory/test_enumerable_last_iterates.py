"""Last iterates of the real trainer on a real language model, measured by the exact duality gap."""

import pytest

from magnetar.cli.games_llm import RUNS
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.training.enumerable import run_enumerable

UPDATES = 80
LAST = slice(-UPDATES // 4, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("method", ["mpo", "mpo_rt"])
def test_the_last_iterate_is_near_equilibrium_from_other_starts_and_from_samples(method, sampled, seed):
    trace = run_enumerable(
        EnumerableGame.build(),
        updates=100,
        method=method,
        seed=seed,
        sampled=sampled,
        num_generations=256,
        **RUNS["MPO"][1],
    )
    # Sampling noise of 256 responses keeps the last iterate a little away; the average of the tail is what is left.
    assert trace.duality_gap[-30:].mean() < (0.1 if sampled else 0.05)


@pytest.fixture(scope="module")
def traces():
    game = EnumerableGame.build()
    return {
        label: run_enumerable(game, updates=UPDATES, method=method, **settings)
        for label, (method, settings) in RUNS.items()
    }


def test_mpos_last_iterate_reaches_a_small_duality_gap(traces):
    assert traces["MPO"].duality_gap[0] > 0.1
    assert traces["MPO"].duality_gap[LAST].max() < 0.05


def test_self_play_without_a_magnet_circles(traces):
    gap = traces["self-play, no magnet"].duality_gap[LAST]
    assert gap.min() > 0.05
    assert gap.max() - gap.min() > 0.1, "it circles: the gap swings"


def test_a_fixed_magnet_stops_at_the_regularised_gap(traces):
    gap = traces["fixed magnet (MMD)"].duality_gap[LAST]
    assert gap.min() > 0.05
    assert gap.max() - gap.min() < 0.05, "it stops: the gap stands still"
