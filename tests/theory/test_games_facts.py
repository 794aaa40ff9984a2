"""The facts about exact updates, each under its name, against references that no method uses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.games.gaps import kl_divergence, log_probabilities

FloatArray = NDArray[np.float64]

# One mixed equilibrium each (odd supports, generic entries), so that "the" equilibrium can be compared.
GAMES = [
    games.biased_rps(),
    games.random_game(10, seed=0),
    games.random_game(25, seed=1),
    games.noisy_bradley_terry(20, seed=0),
]
LARGEST_CENTRED_PAYOFF = 0.5  # L of P − 1/2, as an operator from probabilities to payoffs
ROUNDING_KL = 1e-25  # the reference policy itself is known to rounding only


def game_id(game: games.PreferenceGame) -> str:
    return game.name


def uniform(game: games.PreferenceGame) -> FloatArray:
    return np.full(game.num_actions, 1.0 / game.num_actions)


def random_policy(actions: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions))


def kl(policy: FloatArray, other: FloatArray) -> float:
    return kl_divergence(log_probabilities(policy), log_probabilities(other))


@pytest.mark.parametrize("strength", [0.03, 0.3, 2.0])
@pytest.mark.parametrize("game", GAMES, ids=game_id)
class TestFact1RegularizedEquilibriumAttractsMmd:
    def test_regularized_equilibrium_is_a_fixed_point_of_mmd(self, game: games.PreferenceGame, strength: float) -> None:
        magnet = random_policy(game.num_actions, seed=3)
        equilibrium = game.regularized_equilibrium(magnet, strength)
        trace = games.run(methods.mmd(0.7, strength), game, updates=1, initial=equilibrium, magnet=magnet)
        np.testing.assert_allclose(trace.policy, equilibrium, rtol=1e-11, atol=1e-300)

    def test_mmd_converges_at_the_linear_rate_up_to_the_largest_safe_step(
        self, game: games.PreferenceGame, strength: float
    ) -> None:
        step_size = strength / LARGEST_CENTRED_PAYOFF**2
        magnet = uniform(game)
        equilibrium = game.regularized_equilibrium(magnet, strength)
        start = random_policy(game.num_actions, seed=4)
        trace = games.run(
            methods.mmd(step_size, strength), game, updates=400, initial=start, magnet=magnet, record=True
        )
        assert trace.policies is not None
        distance = np.array([kl(equilibrium, policy) for policy in trace.policies])
        bound = distance[0] * (1.0 + step_size * strength) ** -np.arange(401.0)
        assert (distance <= bound * (1.0 + 1e-9) + ROUNDING_KL).all()
        assert distance[0] > 1e-2  # else the bound would say nothing

    def test_the_fixed_point_has_no_regularized_gap_and_others_do(
        self, game: games.PreferenceGame, strength: float
    ) -> None:
        magnet = random_policy(game.num_actions, seed=5)
        equilibrium = game.regularized_equilibrium(magnet, strength)
        assert game.regularized_gap(equilibrium, magnet, strength) < 1e-13
        assert game.regularized_gap(magnet, magnet, strength) > 1e-6


class TestFact2MmdAndMpoRtHaveTheSameFixedPoints:
    @pytest.mark.parametrize("game", GAMES, ids=game_id)
    def test_both_stay_at_the_regularized_equilibrium(self, game: games.PreferenceGame) -> None:
        magnet = random_policy(game.num_actions, seed=6)
        equilibrium = game.regularized_equilibrium(magnet, 0.2)
        for make in (methods.mmd, methods.mpo_rt):
            method = make(0.9, 0.2)
            assert isinstance(method.objective, methods.PayoffObjective)
            updated = method.objective.exact_update(np.log(equilibrium), np.log(magnet), game.payoff(equilibrium))
            np.testing.assert_allclose(np.exp(updated), equilibrium, rtol=1e-11, atol=1e-300, err_msg=method.name)

    @pytest.mark.parametrize("game", GAMES, ids=game_id)
    def test_both_reach_it_from_elsewhere_when_the_magnet_stays(self, game: games.PreferenceGame) -> None:
        magnet, start = uniform(game), random_policy(game.num_actions, seed=7)
        expected = game.regularized_equilibrium(magnet, 0.3)
        unmoved = methods.FixedMagnet()
        for method in (methods.mmd(0.5, 0.3), methods.mpo_rt(0.5, 0.3, magnet=unmoved)):
            trace = games.run(method, game, updates=600, initial=start, magnet=magnet)
            np.testing.assert_allclose(trace.policy, expected, rtol=1e-9, atol=1e-13, err_msg=method.name)

    def test_regularized_online_mirror_descent_is_mpo_rt_with_a_magnet_that_never_moves(self) -> None:
        game, step_size, strength = games.random_game(8, seed=8), 0.6, 0.4
        magnet, policy = random_policy(8, seed=9), random_policy(8, seed=10)
        trace = games.run(
            methods.mpo_rt(step_size, strength, magnet=methods.FixedMagnet()),
            game,
            updates=30,
            initial=policy,
            magnet=magnet,
        )
        for _ in range(30):
            decay = step_size * strength
            weight = policy ** (1 - decay) * magnet**decay * np.exp(step_size * (game.P @ policy))
            policy = weight / weight.sum()
        np.testing.assert_allclose(trace.policy, policy, rtol=1e-12)


class TestFact3ProximalPointIsMonotone:
    @pytest.mark.parametrize("game", GAMES, ids=game_id)
    def test_exact_inner_solutions_approach_the_equilibrium_monotonically(self, game: games.PreferenceGame) -> None:
        equilibrium, magnet = game.equilibrium(), uniform(game)
        distance = [kl(equilibrium, magnet)]
        for _ in range(400):
            magnet = game.regularized_equilibrium(magnet, 0.05)
            distance.append(kl(equilibrium, magnet))
        assert (np.diff(distance) <= 1e-13).all()
        assert distance[-1] < 1e-6 < 1e-3 < distance[0]
        assert game.duality_gap(magnet) < 1e-4

    @pytest.mark.parametrize("make", [methods.mpo, methods.mpo_rt], ids=["mpo", "mpo_rt"])
    @pytest.mark.parametrize("game", [GAMES[0], GAMES[2], GAMES[3]], ids=game_id)
    def test_stopping_the_inner_game_early_keeps_the_limit(self, game: games.PreferenceGame, make) -> None:
        trace = games.run(make(2.0, 0.1, 10), game, updates=20_000)
        np.testing.assert_allclose(trace.policy, game.equilibrium(), atol=1e-4)
        # Each inner game did stop early: ten updates leave much of the way to its regularised equilibrium.
        inner = games.run(make(2.0, 0.1, 10), game, updates=10, record=True)
        solved = game.regularized_equilibrium(uniform(game), 0.1)
        assert kl(solved, inner.policy) > 0.01 * kl(solved, uniform(game))


class TestFact4MirrorDescentConvergesOnAverageOnly:
    START = (0.6, 0.3, 0.1)

    def test_last_iterate_moves_away_from_the_equilibrium_of_rock_paper_scissors(self) -> None:
        game = games.rps()
        trace = games.run(methods.mirror_descent(0.1), game, updates=4000, initial=self.START, record=True)
        assert trace.policies is not None
        equilibrium = game.equilibrium()
        distance = np.array([kl(equilibrium, policy) for policy in trace.policies])
        assert (np.diff(distance) > 0).all()
        assert trace.duality_gap[2000:].min() > 0.2

    @pytest.mark.parametrize("updates", [100, 1_000, 10_000])
    def test_average_has_the_regret_bound_of_order_one_over_root_k(self, updates: int) -> None:
        played = updates + 1  # the average includes the starting policy
        log_range = -np.log(min(self.START))
        step_size = np.sqrt(8.0 * log_range / played)  # minimises the bound log_range/(η K) + η/8 on regret per update
        trace = games.run(methods.mirror_descent(step_size), games.rps(), updates=updates, initial=self.START)
        assert trace.average_gap[-1] <= 2.0 * np.sqrt(log_range / (2.0 * played))
        assert trace.duality_gap[-1] > 5.0 * trace.average_gap[-1]


class TestFact5BiasedRockPaperScissors:
    """From the uniform policy, α = 0.3, η = 1.2, T = 10; the figures of the project's theory page."""

    # The page counts the starting point as the first of its 1,000: its figures are those of update 999.
    @pytest.mark.parametrize(("make", "figure"), [(methods.mpo, 5.3e-8), (methods.mpo_rt, 2.1e-9)])
    def test_gap_after_a_thousand(self, make, figure: float) -> None:
        trace = games.run(make(step_size=1.2, magnet_strength=0.3, magnet_every=10), games.biased_rps(), updates=1000)
        assert float(f"{trace.duality_gap[999]:.1e}") == figure
        assert trace.duality_gap[1000] <= figure

    @pytest.mark.parametrize("make", [methods.mpo, methods.mpo_rt], ids=["mpo", "mpo_rt"])
    def test_gap_is_rounding_error_after_three_thousand(self, make) -> None:
        game = games.biased_rps()
        trace = games.run(make(1.2, 0.3, 10), game, updates=3000)
        assert trace.duality_gap[-1] <= 1e-15
        np.testing.assert_allclose(trace.policy, [0.3, 0.3, 0.4], atol=1e-14)

    @pytest.mark.parametrize(
        "method",
        [methods.mmd(1.2, 0.3), methods.mpo_rt(1.2, 0.3, magnet=methods.FixedMagnet())],
        ids=["mmd", "mpo_rt with a fixed magnet"],
    )
    def test_fixed_magnet_stops_at_the_regularized_gap_for_ever(self, method: methods.Method) -> None:
        game = games.biased_rps()
        trace = games.run(method, game, updates=5000)
        stuck = game.duality_gap(game.regularized_equilibrium(uniform(game), 0.3))
        assert round(stuck, 4) == 0.0310
        np.testing.assert_allclose(trace.duality_gap[1000:], stuck, rtol=0, atol=1e-12)

    def test_mirror_descent_swings_while_its_average_converges(self) -> None:
        trace = games.run(methods.mirror_descent(0.1), games.biased_rps(), updates=5000)
        late = trace.duality_gap[-1000:]
        assert round(float(late.min()), 3) == 0.067
        assert round(float(late.max()), 3) == 0.184
        assert round(float(trace.average_gap[-1]), 4) == 0.0015


class TestFact6EquilibriaComeFromALinearProgramme:
    @pytest.mark.parametrize(
        "game",
        [
            *GAMES,
            games.rps(),
            games.cyclic_game(8),
            games.cyclic_game(9),
            games.random_game(150, seed=11),
            games.PreferenceGame([[0.5]]),
            games.PreferenceGame(np.full((6, 6), 0.5)),
        ],
        ids=game_id,
    )
    def test_no_policy_wins_against_it(self, game: games.PreferenceGame) -> None:
        equilibrium = game.equilibrium()
        assert equilibrium.min() >= 0
        assert abs(equilibrium.sum() - 1) < 1e-12
        # From the definition, without the symmetry that duality_gap uses; a linear function is extreme at a vertex.
        best_attack = (game.P @ equilibrium).max()
        worst_defence = (equilibrium @ game.P).min()
        assert abs(best_attack - worst_defence) < 1e-12

    def test_its_gap_is_rounding_error_in_large_games_too(self) -> None:
        for seed in range(8):
            game = games.random_game(200, seed)
            assert game.duality_gap(game.equilibrium()) < 2e-14

    def test_it_does_not_depend_on_how_strong_the_preferences_are(self) -> None:
        game = games.random_game(40, seed=1)
        faint = games.PreferenceGame(0.5 + 1e-6 * (game.P - 0.5))
        np.testing.assert_allclose(faint.equilibrium(), game.equilibrium(), atol=1e-8)
        fainter = games.PreferenceGame(0.5 + 1e-9 * (game.P - 0.5))
        np.testing.assert_allclose(fainter.equilibrium(), game.equilibrium(), atol=1e-5)

    def test_known_equilibria(self) -> None:
        np.testing.assert_allclose(games.rps().equilibrium(), [1 / 3] * 3, atol=1e-14)
        np.testing.assert_allclose(games.biased_rps().equilibrium(), [0.3, 0.3, 0.4], atol=1e-14)
        np.testing.assert_allclose(games.cyclic_game(7).equilibrium(), [1 / 7] * 7, atol=1e-14)

    def test_an_action_that_beats_all_others_is_the_equilibrium_of_a_bradley_terry_game(self) -> None:
        game = games.noisy_bradley_terry(30, seed=12, noise=0.0)
        best = int(np.argmax(game.P.sum(axis=1)))
        np.testing.assert_allclose(game.equilibrium(), np.eye(30)[best], atol=1e-12)

    @pytest.mark.parametrize("game", GAMES, ids=game_id)
    def test_gap_is_the_definition_by_enumeration(self, game: games.PreferenceGame) -> None:
        for seed in range(5):
            policy = random_policy(game.num_actions, seed)
            vertices = np.eye(game.num_actions)
            attack = max(float(vertex @ game.P @ policy) for vertex in vertices)
            defence = min(float(policy @ game.P @ vertex) for vertex in vertices)
            assert game.duality_gap(policy) == pytest.approx(attack - defence, abs=1e-14)
            assert game.exploitability(policy) == pytest.approx(attack - 0.5, abs=1e-14)
