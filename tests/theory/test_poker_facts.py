"""Claims about methods in behavioural form on poker, judged by OpenSpiel's exploitability."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from magnetar import methods
from magnetar.games import extensive
from magnetar.numerics import log_probabilities

pytest.importorskip("pyspiel", reason="OpenSpiel is not installed")

PASS, BET = 0, 1
BEHAVIOURAL = [
    name
    for name in methods.METHODS
    if name != "ogda"
    and not isinstance(methods.build_method(name).objective, methods.OracleObjective)
    and not methods.build_method(name).magnet.needs_progress
]


@pytest.fixture(scope="module")
def kuhn() -> extensive.ExtensiveGame:
    return extensive.load_game("kuhn_poker")


def kuhn_equilibrium(kuhn: extensive.ExtensiveGame, bluff: float) -> NDArray[np.float64]:
    """Kuhn's family (1950): the first player bluffs with the jack at rate α in [0, 1/3]; the second has one answer."""
    bet = {
        "0": bluff, "1": 0.0, "2": 3 * bluff, "0pb": 0.0, "1pb": bluff + 1 / 3, "2pb": 1.0,
        "0p": 1 / 3, "1p": 0.0, "2p": 1.0, "0b": 0.0, "1b": 1 / 3, "2b": 1.0,
    }  # fmt: skip
    rate = np.array([bet[key] for key in kuhn.keys])
    return np.stack([1 - rate, rate], axis=1)


@pytest.mark.parametrize("bluff", [0.0, 0.1, 0.2, 1 / 3])
def test_kuhns_equilibria_are_equilibria_of_value_one_eighteenth(kuhn: extensive.ExtensiveGame, bluff: float) -> None:
    policy = kuhn_equilibrium(kuhn, bluff)
    form = extensive.SequenceForm(kuhn)
    assert form.nash_conv(policy) == pytest.approx(0.0, abs=1e-15)
    assert extensive.Exploitability(kuhn)(policy) == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(form.values(policy)[1], [-1 / 18, 1 / 18], atol=1e-15)


def test_a_bluff_beyond_the_family_is_exploitable(kuhn: extensive.ExtensiveGame) -> None:
    policy = kuhn_equilibrium(kuhn, 1 / 3)
    policy[kuhn.keys.index("0")] = [0.6, 0.4]
    assert extensive.SequenceForm(kuhn).nash_conv(policy) > 0.01


@pytest.mark.parametrize("name", ["mpo", "mpo_rt", "mmd", "mirror_descent"])
@pytest.mark.parametrize("bluff", [0.0, 0.2, 1 / 3])
def test_equilibrium_is_a_fixed_point_when_the_magnet_is_there(
    kuhn: extensive.ExtensiveGame, name: str, bluff: float
) -> None:
    start = kuhn_equilibrium(kuhn, bluff)
    trace = extensive.run_exact(methods.build_method(name), kuhn, 50, initial=start)
    np.testing.assert_allclose(trace.policy, start, atol=1e-12)


@pytest.mark.parametrize("method", [methods.mpo(1.0, 0.1, 30), methods.mpo_rt(1.0, 0.1, 30)])
def test_last_iterate_reaches_the_equilibrium_of_kuhn_poker(
    kuhn: extensive.ExtensiveGame, method: methods.Method
) -> None:
    trace = extensive.run_exact(method, kuhn, 2000, measure_at=[0, 500, 1000, 2000])
    assert trace.exploitability[0] == pytest.approx(0.4583333)
    assert trace.exploitability[1] < 1e-3
    assert trace.exploitability[2] < 1e-6
    assert trace.exploitability[3] < 1e-12
    bluff = trace.policy[kuhn.keys.index("0"), BET]
    np.testing.assert_allclose(trace.policy, kuhn_equilibrium(kuhn, bluff), atol=1e-5)


def test_fixed_magnet_stops_at_the_regularised_equilibrium(kuhn: extensive.ExtensiveGame) -> None:
    strength = 0.1
    trace = extensive.run_exact(methods.mmd(1.0, strength), kuhn, 2000, measure_at=[1000, 2000])
    assert trace.exploitability[0] == pytest.approx(trace.exploitability[1], rel=1e-9)
    assert trace.exploitability[1] > 0.05
    # π ∝ ρ exp(Q/α) at every information state, ρ uniform.
    tilted = np.exp(extensive.SequenceForm(kuhn).win_values(trace.policy) / strength)
    np.testing.assert_allclose(trace.policy, tilted / tilted.sum(axis=1, keepdims=True), atol=1e-12)


def test_a_weaker_fixed_magnet_stops_lower_and_never_at_zero(kuhn: extensive.ExtensiveGame) -> None:
    ends = [
        extensive.run_exact(methods.mmd(1.0, strength), kuhn, 3000, measure_at=[3000]).exploitability[-1]
        for strength in (0.2, 0.1, 0.05)
    ]
    assert all(strong > weak for strong, weak in pairwise(ends))
    assert ends[-1] > 0.02


def test_self_play_without_a_magnet_does_not_fall_and_its_average_is_far_better(kuhn: extensive.ExtensiveGame) -> None:
    trace = extensive.run_exact(methods.mirror_descent(1.0), kuhn, 3000, average=True)
    late = trace.updates >= 1500
    assert trace.average_exploitability is not None
    assert trace.exploitability[late].min() > 0.05
    assert trace.average_exploitability[-1] < 0.25 * np.median(trace.exploitability[late])


def test_a_magnet_in_the_reward_makes_early_decisions_answer_for_later_ones(kuhn: extensive.ExtensiveGame) -> None:
    """With a magnet that stays, MPO-RT's limit is π ∝ ρ exp(Q/α) where Q holds what is paid later, and MMD's is not."""
    strength = 0.1
    reward_transformed = replace(methods.mpo_rt(1.0, strength), magnet=methods.FixedMagnet())
    policy = extensive.run_exact(reward_transformed, kuhn, 2000, measure_at=[]).policy
    kl = (policy * np.log(2 * policy)).sum(axis=1)
    tilted = np.exp(extensive.SequenceForm(kuhn).win_values(policy, fee_I=strength * kl) / strength)
    np.testing.assert_allclose(policy, tilted / tilted.sum(axis=1, keepdims=True), atol=1e-12)
    other = extensive.run_exact(methods.mmd(1.0, strength), kuhn, 2000, measure_at=[]).policy
    assert np.abs(policy - other).max() > 1e-3


@pytest.mark.parametrize("name", BEHAVIOURAL)
def test_every_behavioural_method_keeps_valid_policies(name: str) -> None:
    leduc = extensive.load_game("leduc_poker")
    trace = extensive.run_exact(methods.build_method(name), leduc, 5, measure_at=[])
    leduc.check_policy(trace.policy)
    leduc.check_policy(trace.magnet)
    assert not np.allclose(trace.policy, leduc.uniform_policy())
    assert (trace.policy[leduc.legal] > 0).all()


def test_optimism_and_extragradient_use_predicted_values(kuhn: extensive.ExtensiveGame) -> None:
    """One step by hand: extragradient takes the values of the step that it discards."""
    method = methods.extragradient(step_size=1.0)
    form = extensive.SequenceForm(kuhn)
    start = log_probabilities(kuhn.uniform_policy())
    objective = extensive.behavioural_form(method)
    half = objective.exact_update(start, start, form.win_values(np.exp(start)))
    expected = np.exp(objective.exact_update(start, start, form.win_values(np.exp(half))))
    np.testing.assert_allclose(extensive.run_exact(method, kuhn, 1, measure_at=[]).policy, expected, atol=1e-14)
    optimistic, plain = methods.omwu(step_size=1.0), methods.mirror_descent(1.0)
    first, second = form.win_values(np.exp(start)), form.win_values(np.exp(half))
    expected = np.exp(objective.exact_update(half, start, 2 * second - first))
    np.testing.assert_allclose(extensive.run_exact(optimistic, kuhn, 2, measure_at=[]).policy, expected, atol=1e-14)
    assert not np.allclose(extensive.run_exact(plain, kuhn, 2, measure_at=[]).policy, expected, atol=1e-6)


def test_a_tremble_moves_the_limit_by_little(kuhn: extensive.ExtensiveGame) -> None:
    ends = [
        extensive.run_exact(methods.mpo(1.0, 0.1, 30), kuhn, 3000, tremble=tremble, measure_at=[3000]).exploitability[
            -1
        ]
        for tremble in (1e-1, 1e-2, 1e-3)
    ]
    assert all(more > less for more, less in pairwise(ends))
    assert 1e-7 < ends[-1] < 1e-2


@pytest.mark.slow
def test_trembling_magnet_brings_leduc_down_where_the_plain_one_bursts() -> None:
    leduc = extensive.load_game("leduc_poker")
    method = methods.mpo(2.0, 0.02, 100)
    form = extensive.SequenceForm(leduc)
    late = range(8000, 20001, 100)

    def measure(policy: NDArray[np.float64]) -> float:
        return form.nash_conv(policy) / 2

    plain = extensive.run_exact(method, leduc, 20000, measure_at=late, measure=measure)
    trembling = extensive.run_exact(method, leduc, 20000, tremble=1e-3, measure_at=late, measure=measure)
    assert trembling.exploitability.max() < 2e-3
    assert plain.exploitability.max() > 10 * trembling.exploitability.max()


@pytest.mark.slow
def test_sampled_self_play_falls_with_a_moving_magnet_only(kuhn: extensive.ExtensiveGame) -> None:
    late = range(200, 401, 10)
    ends = {}
    for method in (
        methods.mpo(1.0, 0.1, 20, kl_estimator="exact"),
        methods.mmd(1.0, 0.1, kl_estimator="exact"),
        methods.mirror_descent(1.0, proximal="clip"),
    ):
        trace = extensive.run_sampled(method, kuhn, 400, measure_at=late)
        ends[method.name] = float(np.median(trace.exploitability))
    assert ends["mpo"] < 0.03
    assert ends["mmd"] > 0.06
    assert ends["mirror_descent"] > 0.1
