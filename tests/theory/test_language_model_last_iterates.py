"""Last iterates of the real trainer, every method: what it converges to is what its entry in the zoo says."""

from functools import cache

import numpy as np
import pytest
from language_model_table import TRAINABLE

from magnetar.cli.games_llm_runs import FinishedRun, RunPlan, settings_of
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.methods import METHODS
from magnetar.training.enumerable import run_enumerable

UPDATES = 200
SHORT = 60  # enough for the quick ones
# One of each kind of limit, at ten seconds each; the others take minutes.
QUICK = ("mpo",)  # all of them are in `make test-slow`
# Gap of the equilibrium that is regularised with the strength of these runs: 0.08. Whoever arrives is well below.
ARRIVED, ARRIVED_MEAN = 0.065, 0.05
REWARDED = 0.06  # without a term that holds it near the sampling policy, Adam's steps stir a last iterate


@cache
def finished(method: str, updates: int) -> FinishedRun:
    return RunPlan(method, updates, seed=0, sampled=False).run()


def check_original_equilibrium(run: FinishedRun) -> None:
    low, high = run.last_fifth()
    assert run.duality_gap[0] > 0.1
    assert high < ARRIVED and np.mean(tail(run)) < ARRIVED_MEAN, f"the gap is still {low:.3f} to {high:.3f}"


def check_regularised_equilibrium(run: FinishedRun) -> None:
    assert run.limit_gap is not None and run.limit_gap > 0.07, "the limit is no equilibrium of the original game"
    assert run.kl_to_limit is not None and run.kl_to_limit < 0.01, "it started 0.04 nats away"
    assert abs(np.mean(tail(run)) - run.limit_gap) < 0.015, "it stops at the gap of the regularised equilibrium"


def check_average_only(run: FinishedRun) -> None:
    low, high = run.last_fifth()
    assert high - low > 0.1, "it circles: the gap swings"
    assert np.mean(tail(run)) > 0.15, "and it is no small one"
    average = np.array(run.average_gap)
    assert average[-1] < 0.5 * average[: len(average) // 5].max(), "the average's gap falls"
    assert average[-1] < 0.4 * np.mean(tail(run)), "and is far below"


def check_bradley_terry(run: FinishedRun) -> None:
    assert run.limit_gap is not None and run.kl_to_limit is not None
    assert run.limit_gap > 0.1, "scores cannot express a cycle: the policy that they lead to is no equilibrium"
    assert run.kl_to_limit < 0.02
    assert abs(np.mean(tail(run)) - run.limit_gap) < REWARDED


CHECKS = {
    "original equilibrium": check_original_equilibrium,
    "regularised equilibrium": check_regularised_equilibrium,
    "nothing known": check_regularised_equilibrium,  # its only fixed point, and steps of gradients do settle there
    "average only": check_average_only,
    "Bradley–Terry policy": check_bradley_terry,
}


def tail(run: FinishedRun) -> np.ndarray:
    return np.array(run.duality_gap)[-(len(run.duality_gap) // 5) :]


@pytest.mark.parametrize("method", QUICK)
def test_the_last_iterate_goes_where_the_method_says_quickly(method: str):
    CHECKS[METHODS[method]().converges_to](finished(method, SHORT))


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINABLE)
def test_the_last_iterate_goes_where_the_method_says(method: str):
    reached = METHODS[method]().converges_to
    assert reached in CHECKS, f"add a check of what {method!r} reaches, {reached!r}, to CHECKS"
    CHECKS[reached](finished(method, UPDATES))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("method", ["mpo", "mpo_rt"])
def test_the_last_iterate_is_near_equilibrium_from_other_starts_and_from_samples(method: str, sampled: bool, seed: int):
    trace = run_enumerable(
        EnumerableGame.build(),
        updates=100,
        method=method,
        seed=seed,
        sampled=sampled,
        num_generations=256,
        **settings_of(method),
    )
    # Sampling noise of 256 responses keeps the last iterate a little away; the average of the tail is what is left.
    assert trace.duality_gap[-30:].mean() < (0.1 if sampled else 0.05)
