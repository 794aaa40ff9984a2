from collections.abc import Callable

import numpy as np
import pytest
from games_extensive_reference import FloatArray, random_policy, values_by_recursion

from magnetar.errors import GameError
from magnetar.games import extensive

pyspiel = pytest.importorskip("pyspiel", reason="OpenSpiel is not installed")


def test_shapes_of_the_known_games(kuhn: extensive.ExtensiveGame, leduc: extensive.ExtensiveGame) -> None:
    assert (kuhn.num_infostates, kuhn.num_actions, len(kuhn.node_kind), kuhn.payoff_bound) == (12, 2, 58, 2.0)
    assert (leduc.num_infostates, leduc.num_actions, len(leduc.node_kind), leduc.payoff_bound) == (936, 3, 9457, 13.0)
    assert [level.stop for level in kuhn.levels] == [9, 12]


def test_action_values_are_openspiels(game: extensive.ExtensiveGame) -> None:
    policy = random_policy(game, seed=3)
    tabular = extensive.Exploitability(game).openspiel_policy(policy)
    from open_spiel.python.algorithms import action_value

    calculator = action_value.TreeWalkCalculator(game.openspiel)
    calculator.compute_all_states_action_values([tabular, tabular])
    values, _ = extensive.SequenceForm(game).values(policy)
    assert calculator.info_state_cf_prob is not None and calculator.info_state_cf_prob_by_q_sum is not None
    for row, key in enumerate(game.keys):
        entry = (int(game.infostate_player[row]), key)
        expected = calculator.info_state_cf_prob_by_q_sum[entry] / calculator.info_state_cf_prob[entry]
        np.testing.assert_allclose(values[row][game.legal[row]], expected[game.legal[row]], atol=1e-12)


@pytest.mark.parametrize("with_zeros", [False, True])
def test_values_against_another_opponent_and_with_fees_are_those_of_the_tree(
    kuhn: extensive.ExtensiveGame, with_zeros: bool
) -> None:
    policy, opponent = random_policy(kuhn, 1, with_zeros), random_policy(kuhn, 2, with_zeros)
    fee = np.random.default_rng(4).random(kuhn.num_infostates)
    expected, roots = values_by_recursion(kuhn, policy, opponent, fee)
    values, game_value = extensive.SequenceForm(kuhn).values(policy, opponent, fee)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose(game_value, roots, atol=1e-12)


def test_fees_are_right_on_leduc(leduc: extensive.ExtensiveGame) -> None:
    policy = random_policy(leduc, 5)
    fee = np.random.default_rng(6).random(leduc.num_infostates)
    expected, roots = values_by_recursion(leduc, policy, policy, fee)
    values, game_value = extensive.SequenceForm(leduc).values(policy, fee_I=fee)
    np.testing.assert_allclose(values, expected, atol=1e-11)
    np.testing.assert_allclose(game_value, roots, atol=1e-11)
    assert roots.sum() == pytest.approx(0.0, abs=1e-11)  # fees go to the other player: still zero sum


def test_value_of_the_game_is_openspiels(game: extensive.ExtensiveGame) -> None:
    policy = random_policy(game, seed=7)
    tabular = extensive.Exploitability(game).openspiel_policy(policy)
    from open_spiel.python.algorithms import expected_game_score

    expected = expected_game_score.policy_value(game.openspiel.new_initial_state(), [tabular, tabular])
    np.testing.assert_allclose(extensive.SequenceForm(game).values(policy)[1], expected, atol=1e-12)


def test_exploitability_and_nash_conv_agree_with_openspiels(game: extensive.ExtensiveGame) -> None:
    form, measure = extensive.SequenceForm(game), extensive.Exploitability(game)
    for seed, with_zeros in ((0, False), (1, True)):
        policy = random_policy(game, seed, with_zeros)
        nash_conv = form.nash_conv(policy)
        assert measure.nash_conv(policy) == pytest.approx(nash_conv, abs=1e-10)
        assert measure(policy) == pytest.approx(nash_conv / 2, abs=1e-10)


def test_plans_and_policies_are_inverse(game: extensive.ExtensiveGame) -> None:
    form = extensive.SequenceForm(game)
    policy = random_policy(game, seed=8)
    np.testing.assert_allclose(form.policy_of_plan(form.plan(policy)), policy, atol=1e-12)


def test_win_values_are_payoffs_between_zero_and_one(game: extensive.ExtensiveGame) -> None:
    form = extensive.SequenceForm(game)
    policy = random_policy(game, seed=9)
    wins, chips = form.win_values(policy), form.values(policy)[0]
    assert wins.min() > -1e-12 and wins.max() < 1 + 1e-12
    assert wins.min() < 0.3 and wins.max() > 0.7
    np.testing.assert_allclose(wins, (chips / game.payoff_bound + 1) / 2, atol=1e-15)


def test_unreached_information_states_have_no_opinion(kuhn: extensive.ExtensiveGame) -> None:
    always_pass = np.zeros((12, 2))
    always_pass[:, 0] = 1.0
    wins = extensive.SequenceForm(kuhn).win_values(always_pass)
    facing_a_bet = [row for row, key in enumerate(kuhn.keys) if key.endswith("b")]
    assert len(facing_a_bet) == 6
    np.testing.assert_array_equal(wins[facing_a_bet], 0.5)


def test_cfr_is_openspiels(kuhn: extensive.ExtensiveGame) -> None:
    solver = pyspiel.CFRSolver(kuhn.openspiel)
    for _ in range(20):
        solver.evaluate_and_update_policy()
    trace = extensive.run_cfr(kuhn, 20, measure_at=[20])
    assert trace.average_exploitability is not None
    assert trace.average_exploitability[-1] == pytest.approx(
        pyspiel.exploitability(kuhn.openspiel, solver.average_policy()), abs=1e-12
    )
    assert trace.exploitability[-1] == pytest.approx(
        pyspiel.exploitability(kuhn.openspiel, solver.current_policy()), abs=1e-12
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p[:5], "has shape (5, 2)"),
        (lambda p: p * 2, "expected a probability"),
        (lambda p: p / 2, "sums to 0.5"),
        (lambda p: p * np.nan, "is nan"),
    ],
)
def test_policies_that_are_none(
    kuhn: extensive.ExtensiveGame, spoil: Callable[[FloatArray], FloatArray], message: str
) -> None:
    with pytest.raises(GameError) as error:
        kuhn.check_policy(spoil(np.array([[1.0, 0.0]] * 12)))
    assert message in str(error.value)


def test_illegal_actions_are_refused_in_policies(leduc: extensive.ExtensiveGame) -> None:
    with pytest.raises(GameError, match="not legal"):
        leduc.check_policy(np.full(leduc.legal.shape, 1 / 3))
