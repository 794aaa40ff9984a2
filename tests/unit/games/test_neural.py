"""Runs with policies of weights: settings, counting, repeatability, errors."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from magnetar import games, methods
from magnetar.errors import ConfigError, GameError, NonFiniteLossError
from magnetar.games.neural import GroupSampling, MLPPolicy, OptimizerSettings, TabularPolicy, run_neural
from magnetar.methods import AdaptiveMagnet, FixedMagnet, MagnetSchedule, Opponent, SampledObjective

GAME = games.random_game(5, seed=3)
START = (0.4, 0.25, 0.2, 0.1, 0.05)
SAMPLED = [name for name, make in methods.METHODS.items() if isinstance(make().objective, SampledObjective)]


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("feedback", [None, GroupSampling(responses=6, seed=1)], ids=["enumerated", "sampled"])
def test_a_run_repeats_bit_by_bit(name: str, feedback: GroupSampling | None) -> None:
    def run() -> tuple[np.ndarray, np.ndarray]:
        torch.manual_seed(np.random.default_rng().integers(1000))  # the global generator must not matter
        trace = run_neural(methods.build_method(name), GAME, 4, feedback=feedback, record=True)
        assert trace.policies is not None and trace.loss is not None
        return trace.policies, trace.loss

    for first, second in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_each_seed_matters() -> None:
    def policy(weights_seed: int, sampling_seed: int) -> np.ndarray:
        feedback = GroupSampling(responses=6, seed=sampling_seed)
        return run_neural(methods.mpo(), GAME, 3, policy=MLPPolicy(seed=weights_seed), feedback=feedback).policy

    assert np.abs(policy(0, 0) - policy(1, 0)).max() > 1e-3
    assert np.abs(policy(0, 0) - policy(0, 1)).max() > 1e-3


@pytest.mark.parametrize(
    ("changed", "base"),
    [
        (OptimizerSettings(learning_rate=0.02), OptimizerSettings()),
        (OptimizerSettings(inner_steps=5), OptimizerSettings()),
        (OptimizerSettings(name="sgd"), OptimizerSettings()),
        (OptimizerSettings(name="lbfgs"), OptimizerSettings()),
    ],
)
def test_every_optimiser_setting_changes_the_run(changed: OptimizerSettings, base: OptimizerSettings) -> None:
    first, second = (run_neural(methods.mpo(), GAME, 3, optimizer=o).policy for o in (changed, base))
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("changed", [MLPPolicy(hidden=11), MLPPolicy(layers=2), TabularPolicy()])
def test_every_policy_setting_changes_the_first_policy(changed: MLPPolicy | TabularPolicy) -> None:
    first, second = (run_neural(methods.mpo(), GAME, 0, policy=p).policy for p in (changed, MLPPolicy()))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    "changed", [GroupSampling(7), GroupSampling(6, opponents=3), GroupSampling(6, judgement="probability")]
)
def test_every_sampling_setting_changes_the_run(changed: GroupSampling) -> None:
    method = methods.mpo(opponent=Opponent("reference"))
    first, second = (run_neural(method, GAME, 3, feedback=f).policy for f in (changed, GroupSampling(6)))
    assert np.abs(first - second).max() > 1e-4


@pytest.mark.parametrize("policy", [TabularPolicy(), MLPPolicy(layers=1), MLPPolicy(hidden=1), MLPPolicy(hidden=32)])
def test_the_start_is_reached_from_any_weights(policy: MLPPolicy | TabularPolicy) -> None:
    trace = run_neural(methods.mpo(), GAME, 0, policy=policy, initial=START)
    np.testing.assert_allclose(trace.policy, START, rtol=1e-12)
    np.testing.assert_allclose(np.exp(trace.log_magnet), START, rtol=1e-12)
    assert trace.duality_gap == pytest.approx([GAME.duality_gap(START)])


def test_the_network_has_the_layers_asked_for_and_float64() -> None:
    trace = run_neural(methods.mpo(), GAME, 1, policy=MLPPolicy(hidden=4, layers=3))
    assert trace.weights is not None
    shapes = {name: tuple(value.shape) for name, value in trace.weights.items()}
    assert shapes == {
        "input": (4,),
        "weights.0": (4, 4),
        "weights.1": (4, 4),
        "weights.2": (5, 4),
        "biases.0": (4,),
        "biases.1": (4,),
        "biases.2": (5,),
    }
    assert {value.dtype for value in trace.weights.values()} == {torch.float64}
    again = MLPPolicy(hidden=4, layers=3).build(5)
    again.load_state_dict(trace.weights)
    np.testing.assert_array_equal(again.log_policy().numpy(), trace.log_policy)


@pytest.mark.parametrize(
    ("method", "evaluations", "duels"),
    [
        (methods.mpo(), [0, 1, 2, 3], [0, 15, 30, 45]),
        (methods.mpo(opponent=Opponent("reference")), [0, 1, 2, 3], [0, 24, 48, 72]),
        (methods.nash_md(), [0, 1, 2, 3], [0, 24, 48, 72]),
        (methods.egpo(), [0, 2, 4, 6], [0, 39, 78, 117]),
        (methods.omwu(), [0, 1, 3, 5], [0, 15, 54, 93]),
    ],
)
def test_sampled_comparisons_are_counted(method: methods.Method, evaluations: list[int], duels: list[int]) -> None:
    trace = run_neural(method, GAME, 3, feedback=GroupSampling(6, opponents=4))
    np.testing.assert_array_equal(trace.evaluations, evaluations)
    np.testing.assert_array_equal(trace.duels, duels)


@pytest.mark.parametrize("name", SAMPLED)
def test_enumerated_evaluations_are_those_of_the_exact_runner(name: str) -> None:
    method = methods.build_method(name)
    trace = run_neural(method, GAME, 3)
    np.testing.assert_array_equal(trace.evaluations, games.run(method, GAME, 3).evaluations)
    assert trace.duels.sum() == 0


def test_enumerated_opponents_that_stand_still_are_evaluated_once() -> None:
    method = methods.mpo(magnet_every=2, opponent=Opponent("magnet"))
    np.testing.assert_array_equal(run_neural(method, GAME, 6).evaluations, [0, 1, 1, 2, 2, 3, 3])


def test_the_magnet_moves_when_and_as_far_as_its_schedule_says() -> None:
    trace = run_neural(methods.mpo(magnet_every=2), GAME, 5, record=True)
    assert trace.policies is not None and trace.magnets is not None
    np.testing.assert_array_equal(trace.magnet_moves, [2, 4])
    np.testing.assert_allclose(trace.magnets, trace.policies[[0, 2, 4]], atol=1e-15)
    by_round = run_neural(methods.mpo(magnet=methods.EachRound()), GAME, 5, rounds=2)
    np.testing.assert_array_equal(by_round.magnet_moves, [2, 5])


def test_a_partial_move_mixes_weights_which_for_a_table_is_the_geometric_mixture() -> None:
    method = methods.mpo(magnet=methods.Ema(0.25))
    trace = run_neural(method, GAME, 1, policy=TabularPolicy(), initial=START)
    expected = np.array(START) ** 0.75 * trace.policy**0.25
    np.testing.assert_allclose(np.exp(trace.log_magnet), expected / expected.sum(), rtol=1e-12)


def test_averages_and_gaps_are_those_of_the_recorded_policies() -> None:
    trace = run_neural(methods.mpo(), GAME, 6, feedback=GroupSampling(6), record=True)
    assert trace.policies is not None and trace.loss is not None
    np.testing.assert_allclose(trace.duality_gap, [GAME.duality_gap(p) for p in trace.policies], atol=1e-14)
    np.testing.assert_allclose(trace.average_policy, trace.policies.mean(axis=0), rtol=1e-12)
    averages = [GAME.duality_gap(trace.policies[: k + 1].mean(axis=0)) for k in range(7)]
    np.testing.assert_allclose(trace.average_gap, averages, atol=1e-14)
    assert np.isnan(trace.loss[0]) and np.isfinite(trace.loss[1:]).all()


def test_the_look_ahead_leaves_no_trace_but_its_payoffs() -> None:
    # Against opponents that all actions beat equally, the look-ahead changes nothing: one plain update remains, with
    # the optimiser's state of a plain update.
    tie = games.PreferenceGame(np.full((4, 4), 0.5))
    for name in ("sgd", "adam", "lbfgs"):
        ahead, plain = methods.egpo(), dataclasses.replace(methods.egpo(), prediction="none")
        first, second = (run_neural(m, tie, 5, optimizer=OptimizerSettings(name)).policy for m in (ahead, plain))
        np.testing.assert_array_equal(first, second)


def test_a_run_stops_at_the_gap_asked_for() -> None:
    trace = run_neural(methods.mpo(), GAME, 500, stop_at_gap=0.1)
    assert len(trace.duality_gap) < 501
    assert trace.duality_gap[-1] <= 0.1 < trace.duality_gap[:-1].min()


def test_progress_is_shown_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    run_neural(methods.mpo(), GAME, 2)
    assert capsys.readouterr() == ("", "")
    run_neural(methods.mpo(), GAME, 2, progress=True)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPPolicy(hidden=0), "hidden is 0, expected at least 1"),
        (lambda: MLPPolicy(layers=0), "layers is 0, expected at least 1"),
        (lambda: MLPPolicy(seed=-1), "seed is -1, expected at least 0"),
        (lambda: GroupSampling(1), "responses is 1, expected at least 2, which meet each other"),
        (lambda: GroupSampling(4, opponents=0), "opponents is 0, expected at least 1"),
        (lambda: GroupSampling(4, judgement="outcomes"), "did you mean 'outcome'?"),  # type: ignore[arg-type]
        (lambda: GroupSampling(4, seed=-1), "seed is -1"),
        (lambda: OptimizerSettings("adamm"), "did you mean 'adam'?"),  # type: ignore[arg-type]
        (lambda: OptimizerSettings(learning_rate=0.0), "learning_rate is 0.0, expected a positive, finite number"),
        (lambda: OptimizerSettings(learning_rate=float("nan")), "learning_rate is nan"),
        (lambda: OptimizerSettings(inner_steps=0), "inner_steps is 0, expected at least 1"),
        (lambda: MLPPolicy(hidden=2.5), "hidden is 2.5, expected an integer of at least 1"),  # type: ignore[arg-type]
        (lambda: MLPPolicy(layers=True), "layers is True, expected an integer"),
        (lambda: MLPPolicy(seed=1.5), "seed is 1.5, expected an integer"),  # type: ignore[arg-type]
        (lambda: MLPPolicy(seed=2**64), f"seed is {2**64}, expected at most {2**63 - 1}"),
        (lambda: GroupSampling(2.5), "responses is 2.5, expected an integer"),  # type: ignore[arg-type]
        (lambda: GroupSampling(4, opponents=2.5), "opponents is 2.5, expected an integer"),  # type: ignore[arg-type]
        (lambda: GroupSampling(4, seed=0.5), "seed is 0.5, expected an integer"),  # type: ignore[arg-type]
        (lambda: GroupSampling(4, seed=2**64), f"seed is {2**64}, expected at most"),
        (lambda: OptimizerSettings(inner_steps=2.5), "inner_steps is 2.5, expected an integer"),  # type: ignore[arg-type]
        (lambda: OptimizerSettings(learning_rate="a"), "learning_rate is 'a'"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, 1e3), "updates is 1000.0, expected an integer"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, "10"), "updates is '10', expected an integer"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, 9, rounds=1.5), "rounds is 1.5, expected"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, 2, stop_at_gap=float("nan")), "stop_at_gap is nan, expected"),
        (
            lambda: run_neural(methods.mpo(), GAME, 2, feedback=games.SampledFeedback()),  # type: ignore[arg-type]
            "expected GroupFeedback; for instance GroupSampling(), or None for exact payoffs",
        ),
        (lambda: run_neural("mpo", GAME, 2), "method is 'mpo', expected Method"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, 2, policy=MLPPolicy), "expected PolicySettings"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, 2, optimizer="sgd"), "optimizer is 'sgd', expected"),  # type: ignore[arg-type]
        (lambda: run_neural(methods.mpo(), GAME, -1), "updates is -1, expected at least 0"),
        (lambda: run_neural(methods.mpo(), GAME, 2, rounds=3), "rounds is 3, expected between 1 and"),
        (lambda: run_neural(methods.bt_rlhf(), GAME, 2), "method 'bt_rlhf' has no loss on sampled responses"),
        (
            lambda: run_neural(dataclasses.replace(methods.inpo(), prediction="extragradient"), GAME, 2),
            "the loss of method 'inpo' compares the responses of a group with each other",
        ),
        (
            lambda: run_neural(dataclasses.replace(methods.inpo(), opponent=Opponent("magnet")), GAME, 2),
            "use target='payoff'",
        ),
    ],
)
def test_bad_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


def test_what_is_no_game_is_refused() -> None:
    with pytest.raises(GameError, match=re.escape("game is 'rps', expected PreferenceGame; for instance games.rps()")):
        run_neural(methods.mpo(), "rps", 2)  # type: ignore[arg-type] - wrong values are the point


def test_a_start_without_full_support_is_refused() -> None:
    with pytest.raises(GameError, match=re.escape("initial[4] = 0, expected a positive probability")):
        run_neural(methods.mpo(), GAME, 2, initial=(0.25, 0.25, 0.25, 0.25, 0.0))


def test_an_adaptive_magnet_moves_when_the_steps_have_shrunk() -> None:
    method = methods.mpo(step_size=1.0, magnet_strength=0.5, magnet=AdaptiveMagnet(0.3))
    trace = run_neural(method, GAME, 40, policy=TabularPolicy(), optimizer=OptimizerSettings("lbfgs", 1.0, 200))
    exact = games.run(method, GAME, 40)
    assert len(exact.magnet_moves) > 1
    np.testing.assert_array_equal(trace.magnet_moves, exact.magnet_moves)


def test_a_loss_that_is_not_finite_names_the_update() -> None:
    with pytest.raises(NonFiniteLossError, match=r"in update \d+, optimiser step \d+"):
        run_neural(methods.mpo(), GAME, 50, optimizer=OptimizerSettings("sgd", 1e8, 3))


def test_a_policy_that_is_not_finite_names_the_update() -> None:
    with pytest.raises(NonFiniteLossError, match="the policy after update 1 is not finite"):
        run_neural(methods.mpo(), GAME, 50, optimizer=OptimizerSettings("sgd", 1e200, 1))


def test_a_schedule_that_never_moves_leaves_the_magnet() -> None:
    magnet: MagnetSchedule = FixedMagnet()
    trace = run_neural(methods.mpo(magnet=magnet), GAME, 5, initial=START)
    np.testing.assert_allclose(np.exp(trace.log_magnet), START, rtol=1e-12)
