"""What every method must do on an exact game, whatever it is: one test for all of them."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import scipy.optimize

from magnetar import games, methods
from magnetar.errors import ConfigError

Factory = Callable[..., methods.Method]
EUCLIDEAN = (
    "ogda",
    "adagrad_norm",
    "mpo_adaptive",
    "mpo_recall",
)  # the projection can bring a probability back from zero

FITTED_ONCE = ("bt_rlhf", "ppo", "rloo", "grpo")  # scores are fitted under the reference
SCORES = (*FITTED_ONCE, "iterative_dpo", "online_dpo")


def every_method_but(*names: str) -> pytest.MarkDecorator:
    chosen = [name for name in methods.METHODS if name not in names]
    return pytest.mark.parametrize("make", [methods.METHODS[name] for name in chosen], ids=chosen)


def methods_that_converge_to(limit: str, *but: str) -> pytest.MarkDecorator:
    chosen = [name for name, make in methods.METHODS.items() if make().converges_to == limit and name not in but]
    assert chosen
    return pytest.mark.parametrize("make", [methods.METHODS[name] for name in chosen], ids=chosen)


FACTORIES = every_method_but()


def policy_of(actions: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions))


@FACTORIES
def test_relabelling_the_actions_permutes_the_result(make: Factory) -> None:
    game, start, order = games.random_game(12, seed=0), policy_of(12, 1), np.random.default_rng(2).permutation(12)
    relabelled = games.PreferenceGame(game.P[np.ix_(order, order)])
    plain = games.run(make(), game, updates=25, initial=start)
    permuted = games.run(make(), relabelled, updates=25, initial=start[order])
    np.testing.assert_allclose(permuted.policy, plain.policy[order], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(permuted.duality_gap, plain.duality_gap, atol=1e-12)


@FACTORIES
def test_the_policy_stays_a_distribution(make: Factory) -> None:
    trace = games.run(make(), games.noisy_bradley_terry(15, seed=3), updates=200, record=True)
    assert trace.policies is not None
    assert (trace.policies >= 0).all()
    np.testing.assert_allclose(trace.policies.sum(axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(trace.average_policy.sum(), 1.0, atol=1e-14)


# Scores cannot express a cycle, a subgradient of a kinked function does not vanish at its minimum, and best responses
# are an unstable iteration for a small β.
@every_method_but(*SCORES, "adagrad_norm", "online_ipo")
@pytest.mark.parametrize(
    "game", [games.biased_rps(), games.random_game(9, seed=4), games.cyclic_game(8)], ids=lambda game: game.name
)
def test_the_equilibrium_is_a_fixed_point_when_the_magnet_is_there_too(
    make: Factory, game: games.PreferenceGame
) -> None:
    equilibrium = game.equilibrium()
    trace = games.run(make(), game, updates=50, initial=equilibrium)
    np.testing.assert_allclose(trace.policy, equilibrium, atol=1e-11)
    assert trace.duality_gap.max() < 1e-11


@every_method_but("hamiltonian")
def test_the_policy_moves_towards_what_wins(make: Factory) -> None:
    game = games.noisy_bradley_terry(6, seed=5, noise=0.0)
    trace = games.run(make(), game, updates=100)
    assert game.payoff(np.full(6, 1 / 6)) @ trace.policy > 0.5
    assert trace.duality_gap[-1] < 0.9 * trace.duality_gap[0]


def test_hamiltonian_descent_stalls_at_a_pure_policy_that_is_no_equilibrium() -> None:
    game = games.noisy_bradley_terry(6, seed=5, noise=0.0)
    trace = games.run(methods.hamiltonian(), game, updates=3000)
    assert trace.policy.max() > 0.9
    assert trace.policy.argmax() != game.equilibrium().argmax()
    assert trace.duality_gap[-1] > trace.duality_gap[0]


@FACTORIES
def test_the_curves_are_those_of_the_recorded_policies(make: Factory) -> None:
    game = games.random_game(7, seed=6)
    trace = games.run(make(), game, updates=40, initial=policy_of(7, 7), record=True)
    assert trace.policies is not None
    assert trace.policies.shape == (41, 7)
    averages = np.cumsum(trace.policies, axis=0) / np.arange(1, 42)[:, None]
    np.testing.assert_allclose(trace.duality_gap, [game.duality_gap(p) for p in trace.policies], atol=1e-14)
    np.testing.assert_allclose(trace.average_gap, [game.duality_gap(p) for p in averages], atol=1e-13)
    np.testing.assert_allclose(trace.average_policy, averages[-1], atol=1e-14)
    np.testing.assert_array_equal(trace.policies[-1], trace.policy)


EXTREME = pytest.mark.parametrize("extreme", [1e-300, 1e-9, 1.0, 1e3, 1e9, 1e100, 1e300, 1.7e308])


@FACTORIES
@EXTREME
@pytest.mark.parametrize(
    "start",
    [(1 / 3, 1 / 3, 1 / 3), (1e-300, 1e-300, 1.0), (1.0, 1e-300, 0.0), (5e-324, 0.5, 0.5), (0.0, 0.5, 0.5)],
    ids=["uniform", "two at 1e-300", "1e-300 and zero", "smallest subnormal", "zero"],
)
def test_no_nan_at_any_setting_or_probability(make: Factory, extreme: float, start: tuple[float, float, float]) -> None:
    accepted = inspect.signature(make).parameters
    setting = next((name for name in ("step_size", "kl_coef", "proximal_scale") if name in accepted), None)
    try:
        method = make(**{setting: extreme} if setting else {})
    except ConfigError as error:  # explicit steps have an upper limit
        explicit = (methods.mpo_rt, methods.omd, methods.inpo, methods.nash_md, methods.nash_md_pg, methods.egpo)
        assert make in explicit and extreme > 10
        assert "expected a product of at most 1" in str(error)
        return
    trace = games.run(method, games.biased_rps(), updates=60, initial=start, record=True)
    assert trace.policies is not None
    assert not np.isnan(trace.policies).any()
    assert not np.isnan(trace.log_policy).any()
    assert not np.isnan(trace.average_gap).any()
    np.testing.assert_allclose(trace.policies.sum(axis=1), 1.0, atol=1e-12)
    if method.name not in EUCLIDEAN:
        absent = np.array(start) == 0.0
        assert (trace.policies[:, absent] == 0.0).all()


# In logits a pure policy is a stationary point; fitted scores start anew from the reference each time.
@every_method_but("hamiltonian", *SCORES)
def test_a_tiny_probability_is_not_lost(make: Factory) -> None:
    # Probability 1e-300 on the action that beats the other: some hundreds of nats later it must have taken over.
    game = games.PreferenceGame([[0.5, 0.0], [1.0, 0.5]])
    with_step = "step_size" in inspect.signature(make).parameters
    trace = games.run(
        make(step_size=1.0) if with_step else make(), game, updates=4000, initial=(1.0, 1e-300), magnet=(0.5, 0.5)
    )
    assert trace.policy[1] > 0.9


def test_online_ipo_reaches_the_regularised_equilibrium_for_a_large_pull_only() -> None:
    game, reference = games.random_game(8, seed=1), policy_of(8, 2)
    for strength, reached in ((1.0, True), (0.02, False)):
        trace = games.run(methods.online_ipo(strength), game, updates=500, initial=reference)
        distance = np.abs(trace.policy - game.regularized_equilibrium(reference, strength)).max()
        assert (distance < 1e-10) == reached


class TestEachMethodReachesWhatItClaims:
    """The claim is ``Method.converges_to``; the references are the linear programme and Newton's method."""

    @methods_that_converge_to("original equilibrium", "adagrad_norm")
    def test_last_iterate_reaches_the_equilibrium_of_the_original_game(self, make: Factory) -> None:
        game = games.biased_rps()
        trace = games.run(make(), game, updates=20_000)
        np.testing.assert_allclose(trace.policy, game.equilibrium(), atol=1e-4)

    def test_adagrad_norm_approaches_the_equilibrium_at_its_slow_rate(self) -> None:
        game = games.biased_rps()
        short, long = (games.run(methods.adagrad_norm(), game, updates=n) for n in (400, 40_000))
        assert long.duality_gap[-200:].max() < 0.2 * short.duality_gap[-200:].max()
        np.testing.assert_allclose(long.policy, game.equilibrium(), atol=0.01)

    @methods_that_converge_to("regularised equilibrium", "nash_md", "nash_md_pg")
    def test_last_iterate_reaches_the_equilibrium_of_the_regularised_game_and_not_the_other(
        self, make: Factory
    ) -> None:
        game, reference = games.random_game(8, seed=1), policy_of(8, 2)
        trace = games.run(make(magnet_strength=0.1), game, updates=3000, initial=reference)
        expected = game.regularized_equilibrium(reference, 0.1)
        np.testing.assert_allclose(trace.policy, expected, atol=1e-9)
        assert game.duality_gap(trace.policy) > 0.01

    def test_the_mixture_of_nash_md_pg_reaches_a_regularised_equilibrium_of_the_strength_of_its_weight(self) -> None:
        game, reference, strength, weight = games.random_game(8, seed=1), policy_of(8, 2), 0.1, 0.3
        method = methods.nash_md_pg(0.3, strength, weight)
        trace = games.run(method, game, updates=3000, initial=reference)
        mixture = trace.policy ** (1 - weight) * reference**weight
        expected = game.regularized_equilibrium(reference, strength / (1 - weight))
        np.testing.assert_allclose(mixture / mixture.sum(), expected, atol=1e-9)

    def test_the_mixture_of_nash_md_reaches_a_regularised_equilibrium_of_larger_strength(self) -> None:
        game, reference, step_size, strength = games.random_game(8, seed=1), policy_of(8, 2), 0.3, 0.1
        trace = games.run(methods.nash_md(step_size, strength), game, updates=3000, initial=reference)
        weight = step_size * strength
        mixture = trace.policy ** (1 - weight) * reference**weight
        expected = game.regularized_equilibrium(reference, strength / (1 - weight))
        np.testing.assert_allclose(mixture / mixture.sum(), expected, atol=1e-9)

    @methods_that_converge_to("average only")
    def test_only_the_average_converges(self, make: Factory) -> None:
        game = games.biased_rps()
        trace = games.run(make(step_size=0.1), game, updates=5000)
        assert trace.average_gap[-1] < 0.002
        assert trace.duality_gap[-500:].min() > 0.05

    @methods_that_converge_to("Bradley–Terry policy", "grpo")
    def test_reaches_the_best_policy_for_the_scores_that_fit_best(self, make: Factory) -> None:
        game, reference, kl_coef = games.noisy_bradley_terry(6, seed=1), policy_of(6, 3), 0.7
        trace = games.run(make(kl_coef=kl_coef), game, updates=200, initial=reference)
        weight = reference if trace.method in FITTED_ONCE else trace.policy

        def negative_log_likelihood(score: np.ndarray) -> float:
            log_win = -np.logaddexp(0.0, score[None, :] - score[:, None])
            return -float(weight @ (game.P * log_win) @ weight)

        score = scipy.optimize.minimize(negative_log_likelihood, np.zeros(6), tol=1e-12).x
        expected = reference * np.exp(score / kl_coef)
        np.testing.assert_allclose(trace.policy, expected / expected.sum(), atol=1e-4)

    def test_grpo_reaches_the_policy_whose_scores_are_measured_in_its_own_standard_deviations(self) -> None:
        game, reference, kl_coef = games.noisy_bradley_terry(6, seed=1), policy_of(6, 3), 2.0
        score = np.log(games.run(methods.rloo(1.0), game, updates=1, initial=reference).policy / reference)
        for estimator in ("sampled", "k3"):
            policy = games.run(
                methods.grpo(kl_coef, kl_estimator=estimator), game, updates=300, initial=reference
            ).policy
            centred = score - policy @ score
            advantage = centred / np.sqrt(policy @ centred**2)
            # The derivative of ⟨π, A⟩ less the penalty is the same for every action.
            slope = np.log(policy / reference) if estimator == "sampled" else -reference / policy
            np.testing.assert_allclose(np.ptp(advantage - kl_coef * slope), 0.0, atol=1e-3)


@FACTORIES
def test_evaluations_are_counted_as_the_method_spends_them(make: Factory) -> None:
    game, method = games.random_game(9, seed=4), make()
    trace = games.run(method, game, updates=4)
    two_each = method.prediction == "extragradient" or method.name in ("hamiltonian", "adagrad_norm")
    if method.name in SCORES:  # the whole matrix, once
        expected = [0, 9, 9, 9, 9]
    elif method.name == "mpo_recall":  # the start and its best response, then one proposal each
        expected = [0, 2, 3, 4, 5]
    else:
        expected = [k * (2 if two_each else 1) for k in range(5)]
    if method.name == "mpo_adaptive":  # after an update that moves to the round's average the payoffs are known
        expected[-1] = 3
    np.testing.assert_array_equal(trace.evaluations, expected)


@FACTORIES
def test_a_game_of_one_action_and_a_run_of_no_updates(make: Factory) -> None:
    alone = games.run(make(), games.PreferenceGame([[0.5]]), updates=5)
    np.testing.assert_array_equal(alone.policy, [1.0])
    np.testing.assert_array_equal(alone.duality_gap, np.zeros(6))
    still = games.run(make(), games.biased_rps(), updates=0)
    assert still.duality_gap.shape == still.evaluations.shape == (1,)
    np.testing.assert_allclose(still.policy, 1 / 3)


@FACTORIES
def test_every_method_runs_on_sampled_duels_and_repeats_by_seed(make: Factory) -> None:
    game = games.biased_rps()
    runs = [
        games.run(make(), game, updates=25, initial=(0.6, 0.3, 0.1), feedback=games.SampledFeedback(64, seed=seed))
        for seed in (1, 1, 2)
    ]
    np.testing.assert_allclose(runs[0].policy.sum(), 1.0, atol=1e-12)
    assert runs[0].duels[-1] > 0
    np.testing.assert_array_equal(runs[0].duality_gap, runs[1].duality_gap)
    assert (runs[0].duality_gap != runs[2].duality_gap).any()


@pytest.mark.parametrize("role", ["reference", "magnet"])
def test_duels_against_an_opponent_that_stands_still_are_fought_anew_each_update(role: str) -> None:
    method = methods.mpo(opponent=methods.Opponent(role), magnet_every=1000)  # type: ignore[arg-type]
    trace = games.run(method, games.biased_rps(), updates=5, feedback=games.SampledFeedback(opponents=2))
    np.testing.assert_array_equal(trace.duels, [0, 6, 12, 18, 24, 30])


def test_the_limit_named_depends_on_the_opponent() -> None:
    frozen = methods.mpo(opponent=methods.Opponent("reference"))
    assert frozen.converges_to == "best response to the reference"
    game, reference = games.random_game(6, seed=0), policy_of(6, 1)
    trace = games.run(frozen, game, updates=3000, initial=reference)
    assert trace.policy.argmax() == game.payoff(reference).argmax()
    assert trace.policy.max() > 0.999


@pytest.mark.parametrize(
    ("start", "method"),
    [
        ((0.5, 0.5, 0.0), methods.nash_md(10, 0.1)),
        ((0.5, 0.5, 0.0), methods.mpo(opponent=methods.Opponent("mixture"))),
        ((0.5, 0.25, 0.25), methods.bt_rlhf(kl_coef=5e-324)),
    ],
)
def test_weights_of_zero_and_one_meet_probability_zero(start: tuple[float, ...], method: methods.Method) -> None:
    trace = games.run(method, games.biased_rps(), updates=10, initial=start, reference=(1 / 3, 1 / 3, 1 / 3))
    assert not np.isnan(trace.log_policy).any()


@pytest.mark.parametrize("name", ["mpo_rt", "omd", "egpo", "inpo", "nash_md"])
def test_a_step_past_the_magnet_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="use a step_size of at most 10"):
        methods.build_method(name, step_size=11.0, magnet_strength=0.1)


class TestRecall:
    def test_it_does_not_stand_still_where_its_programme_takes_the_latest_policies_only(self) -> None:
        trace = games.run(methods.mpo_recall(), games.random_game(500, seed=0), updates=170, stop_at_gap=1e-4)
        assert trace.duality_gap[-1] <= 1e-4
        moves = np.diff(trace.magnet_moves)
        assert moves.max() < 25

    @pytest.mark.parametrize("faintness", [1.0, 1e-3, 1e-6])
    def test_it_keeps_what_it_has_reached_and_stops_asking(self, faintness: float) -> None:
        game = games.PreferenceGame(0.5 + faintness * (games.random_game(30, seed=5).P - 0.5))
        trace = games.run(methods.mpo_recall(), game, updates=300)
        assert trace.duality_gap[-1] <= 1.1 * trace.duality_gap.min() + 1e-9 * faintness
        assert trace.duality_gap[-1] < 1e-6 * faintness
        assert trace.evaluations[-1] < 60


def test_mpo_adaptive_arrives_on_cycles_where_longer_steps_go_round() -> None:
    # Optimistic steps of constant length leave an equilibrium of full support from η L = 1/√3 on.
    for actions in (5, 7):
        start = policy_of(actions, 0)
        trace = games.run(methods.mpo_adaptive(), games.cyclic_game(actions), 4000, initial=start, stop_at_gap=1e-8)
        assert trace.evaluations_to(1e-8) is not None
