"""The statements of docs/theory/adaptive_magnets.md, each under its name, against references that no method uses."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.optimize
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.games.gaps import kl_divergence, log_probabilities
from magnetar.methods.objectives.anchored import AnchoredState
from magnetar.methods.objectives.proximal import SkewModel, proximal_equilibrium
from magnetar.methods.objectives.recall import Recall, RecallState, best_combination

FloatArray = NDArray[np.float64]

FLOATING_POINT = 1e-8  # gaps below it may rise: the statements are about exact arithmetic

# Mixed equilibria, unique in all but the last: of full support, of part of it, with clones.
GAMES = [
    games.biased_rps(),
    games.cyclic_game(5),
    games.random_game(10, seed=0),
    games.noisy_bradley_terry(20, seed=0),
    games.random_game(30, seed=2),
    games.cyclic_block_game(blocks=3, block_size=3, difference=0.0),
]
every_game = pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)


def centred(game: games.PreferenceGame) -> FloatArray:
    return game.P - 0.5


def random_policies(count: int, actions: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions), size=count)


def outside(policies: FloatArray) -> FloatArray:
    """Projector onto the orthogonal complement of the span, by pseudo-inverse."""
    return np.eye(policies.shape[1]) - np.linalg.pinv(policies) @ policies


def dense(model: SkewModel) -> FloatArray:
    return np.stack([model @ unit for unit in np.eye(len(model.basis))], axis=1)


def project(values: FloatArray) -> FloatArray:
    """Nearest policy: the threshold below which everything is cut off, as the root of an equation."""
    bracket = (float(values.min()) - 1.0, float(values.max()))
    found = scipy.optimize.root_scalar(lambda t: float(np.maximum(values - t, 0.0).sum()) - 1.0, bracket=bracket)
    return np.maximum(values - found.root, 0.0)


class GameOracle:
    """Answers of a game, without the runner."""

    def __init__(self, game: games.PreferenceGame, policy: FloatArray) -> None:
        self.game, self.policy, self.products = game, policy, 0

    def payoff(self) -> FloatArray:
        return self.game.P @ self.policy

    def product(self, vector_A: FloatArray) -> FloatArray:
        self.products += 1
        return self.game.P @ vector_A

    def win_prob(self) -> FloatArray:
        raise AssertionError("the whole matrix is never asked for")


def state_at(game: games.PreferenceGame, policies: FloatArray, magnet: FloatArray) -> RecallState:
    """Memory of these policies, with the magnet somewhere in their span."""
    skew = centred(game)
    return RecallState(policies, policies @ skew.T, magnet, log_probabilities(magnet), skew @ magnet)


class TestTheModel:
    """Lemma 1."""

    @pytest.mark.parametrize("known", [1, 2, 4])
    def test_it_agrees_with_every_evaluation_and_is_antisymmetric(self, known: int) -> None:
        skew, policies = centred(games.random_game(9, seed=1)), random_policies(known, 9, seed=2)
        model = dense(SkewModel.fit(policies, policies @ skew.T))
        np.testing.assert_allclose(model @ policies.T, skew @ policies.T, atol=1e-13)
        np.testing.assert_allclose(model, -model.T, atol=1e-13)

    @pytest.mark.parametrize("known", [1, 2, 4])
    def test_it_is_the_antisymmetric_matrix_of_least_norm(self, known: int) -> None:
        """Against a solver of underdetermined equations that knows the entries above the diagonal only."""
        actions = 6
        skew, policies = centred(games.random_game(actions, seed=3)), random_policies(known, actions, seed=4)
        above = list(itertools.combinations(range(actions), 2))
        equations = np.zeros((known * actions, len(above)))
        for (row, policy), column in itertools.product(enumerate(policies), range(len(above))):
            i, j = above[column]
            equations[row * actions + i, column] = policy[j]
            equations[row * actions + j, column] = -policy[i]
        entries = np.linalg.lstsq(equations, (policies @ skew.T).ravel(), rcond=None)[0]  # the shortest solution
        reference = np.zeros((actions, actions))
        for value, (i, j) in zip(entries, above, strict=True):
            reference[i, j], reference[j, i] = value, -value
        model = dense(SkewModel.fit(policies, policies @ skew.T))
        np.testing.assert_allclose(model, reference, atol=1e-12)
        assert np.linalg.norm(model) < np.linalg.norm(skew)

    def test_its_error_is_the_game_outside_the_span_on_both_sides(self) -> None:
        skew, policies = centred(games.random_game(8, seed=5)), random_policies(8, 8, seed=6)
        errors = []
        for known in range(1, 9):
            model = dense(SkewModel.fit(policies[:known], policies[:known] @ skew.T))
            rest = outside(policies[:known])
            np.testing.assert_allclose(skew - model, rest @ skew @ rest, atol=1e-11)
            errors.append(np.linalg.norm(skew - model))
        assert (np.diff(errors) < 1e-11).all()
        assert errors[0] > 0.1

    @every_game
    def test_all_but_one_dimension_reveal_the_game(self, game: games.PreferenceGame) -> None:
        actions = game.num_actions
        policies = random_policies(actions - 1, actions, seed=7)
        model = dense(SkewModel.fit(policies, policies @ centred(game).T))
        np.testing.assert_allclose(model, centred(game), atol=1e-9)
        one_less = dense(SkewModel.fit(policies[:-1], policies[:-1] @ centred(game).T))
        assert np.abs(one_less - centred(game)).max() > 1e-3

    def test_two_policies_on_one_line_predict_what_optimism_predicts(self) -> None:
        game = games.random_game(12, seed=8)
        before, now = random_policies(2, 12, seed=9)
        model = SkewModel.fit(np.stack([before, now]), np.stack([before, now]) @ centred(game).T)
        optimistic = 2.0 * (centred(game) @ now) - centred(game) @ before
        np.testing.assert_allclose(model @ (2.0 * now - before), optimistic, atol=1e-13)


class TestTheProposal:
    """Lemma 2."""

    @every_game
    @pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
    @pytest.mark.parametrize("known", [1, 3])
    def test_it_solves_its_variational_inequality(
        self, game: games.PreferenceGame, strength: float, known: int
    ) -> None:
        policies = random_policies(known, game.num_actions, seed=10)
        model = SkewModel.fit(policies, policies @ centred(game).T)
        proposal = proximal_equilibrium(model, policies[0], strength)
        assert proposal is not None
        assert proposal.min() >= 0
        assert proposal.sum() == pytest.approx(1.0, abs=1e-14)
        slope = strength * (proposal - policies[0]) - dense(model) @ proposal
        # A linear function over the simplex is least at a vertex.
        assert min(slope @ (vertex - proposal) for vertex in np.eye(game.num_actions)) > -1e-11

    def test_it_is_what_extragradient_on_the_same_game_reaches(self) -> None:
        skew, magnet, strength = centred(games.random_game(7, seed=11)), random_policies(1, 7, seed=12)[0], 0.05
        model = SkewModel.fit(np.eye(7), skew.T)
        policy, step = magnet, 0.25

        for _ in range(4000):
            ahead = project(policy - step * (strength * (policy - magnet) - skew @ policy))
            policy = project(policy - step * (strength * (ahead - magnet) - skew @ ahead))
        proposal = proximal_equilibrium(model, magnet, strength)
        assert proposal is not None
        np.testing.assert_allclose(proposal, policy, atol=1e-9)


class TestTheBestCombination:
    """Lemma 3."""

    @pytest.mark.parametrize("known", [2, 4, 7])
    def test_it_is_the_optimum_of_the_programme_over_weights(self, known: int) -> None:
        """The same optimum written in weights of the policies, any sign, which sum to one."""
        game = games.random_game(9, seed=13)
        policies = random_policies(known, 9, seed=14)
        payoffs = policies @ centred(game).T
        policy, payoff = best_combination(policies, payoffs)
        reference = scipy.optimize.linprog(
            np.append(np.zeros(known), 1.0),
            A_ub=np.block([[payoffs.T, -np.ones((9, 1))], [-policies.T, np.zeros((9, 1))]]),
            b_ub=np.zeros(18),
            A_eq=np.append(np.ones(known), 0.0)[None],
            b_eq=[1.0],
            bounds=[(None, None)] * (known + 1),
            method="highs-ipm",
        )
        assert reference.status == 0
        assert payoff.max() == pytest.approx(reference.fun, abs=1e-7)
        assert known == 2 or (reference.x[:known] < -1e-3).any(), "else mixtures would do as well"
        np.testing.assert_allclose(payoff, centred(game) @ policy, atol=1e-12)
        assert payoff.max() < payoffs.max(axis=1).min()

    @every_game
    def test_over_the_whole_space_it_is_an_equilibrium(self, game: games.PreferenceGame) -> None:
        policies = random_policies(game.num_actions, game.num_actions, seed=15)
        policy, _ = best_combination(policies, policies @ centred(game).T)
        assert game.duality_gap(policy) < 1e-9


class TestRecall:
    """Theorem 4."""

    @every_game
    def test_at_an_equilibrium_it_stays_and_asks_for_nothing_more(self, game: games.PreferenceGame) -> None:
        equilibrium = game.equilibrium()
        trace = games.run(methods.mpo_recall(), game, updates=5, initial=equilibrium)
        np.testing.assert_allclose(trace.policy, equilibrium, rtol=1e-14)
        # Its own, and that of a best response where rounding hides that there is no better one.
        assert trace.evaluations[-1] <= 2

    @every_game
    @pytest.mark.parametrize("known", [1, 3])
    def test_the_proposal_is_the_magnet_at_equilibria_only(self, game: games.PreferenceGame, known: int) -> None:
        policies = random_policies(known, game.num_actions, seed=16)
        model = SkewModel.fit(policies, policies @ centred(game).T)
        proposal = proximal_equilibrium(model, policies[0], 0.1)
        assert proposal is not None
        assert np.abs(proposal - policies[0]).max() > 1e-4
        policies[0] = game.equilibrium()
        model = SkewModel.fit(policies, policies @ centred(game).T)
        proposal = proximal_equilibrium(model, policies[0], 0.1)
        assert proposal is not None
        np.testing.assert_allclose(proposal, policies[0], atol=1e-12)

    @every_game
    def test_the_gap_never_increases_and_at_most_one_evaluation_an_action_is_spent(
        self, game: games.PreferenceGame
    ) -> None:
        for start in (None, random_policies(1, game.num_actions, seed=17)[0]):
            trace = games.run(methods.mpo_recall(), game, updates=2 * game.num_actions, initial=start)
            assert (np.diff(trace.duality_gap) <= FLOATING_POINT).all()
            spent = trace.evaluations_to(1e-9)
            assert spent is not None and spent <= game.num_actions

    @every_game
    def test_an_update_that_learns_nothing_is_a_proximal_step_of_the_game_itself(
        self, game: games.PreferenceGame
    ) -> None:
        """With everything known, every update is one; the magnet is far from equilibrium to begin with."""
        actions = game.num_actions
        magnet = random_policies(1, actions, seed=18)[0]
        method, equilibrium = Recall(), game.equilibrium()
        state = state_at(game, np.eye(actions), magnet)
        gap, distances = 1.0, [float(np.linalg.norm(magnet - equilibrium))]
        for _ in range(200):
            if game.duality_gap(state.magnet) < 1e-8:
                break
            before = state.magnet
            strength = 0.3 * (centred(game) @ before).max() / (before @ before)
            oracle = GameOracle(game, before)
            log_policy, state = method.exact_step(oracle, log_probabilities(before), log_probabilities(before), state)
            after = np.exp(log_policy)
            assert oracle.products == 1
            assert len(state.policies) == actions
            slope = strength * (after - before) - centred(game) @ after
            assert (slope - slope @ after).min() > -1e-11
            step = float(np.linalg.norm(after - before))
            distances.append(float(np.linalg.norm(after - equilibrium)))
            assert distances[-1] ** 2 <= distances[-2] ** 2 - step**2 + 1e-10
            assert game.duality_gap(after) <= 2 * np.sqrt(2) * strength * step + 1e-10
            gap = game.duality_gap(after)
        assert gap < 1e-8

    def test_such_updates_converge_quadratically(self) -> None:
        game = games.random_game(10, seed=0)
        skew, equilibrium = centred(game), game.equilibrium()
        magnet = 0.5 * equilibrium + 0.5 / 10
        state, exploitabilities = state_at(game, np.eye(10), magnet), [float((skew @ magnet).max())]
        # C of the error bound ‖ρ − Π*‖ ≤ C max(Aρ), estimated from many policies; the equilibrium is unique.
        near = 0.5 * equilibrium + 0.5 * random_policies(3000, 10, seed=19)
        bound = (np.linalg.norm(near - equilibrium, axis=1) / (near @ skew.T).max(axis=1)).max()
        for _ in range(12):
            log_magnet = log_probabilities(state.magnet)
            _, state = Recall().exact_step(GameOracle(game, state.magnet), log_magnet, log_magnet, state)
            exploitabilities.append(float((skew @ state.magnet).max()))
            if exploitabilities[-1] < 1e-10:
                break
        rates = [after / before**2 for before, after in itertools.pairwise(exploitabilities)]
        assert exploitabilities[-1] < 1e-10
        assert max(rates) < np.sqrt(2) * 0.3 * 10 * 1.5 * bound

    def test_beyond_the_programmes_size_it_still_arrives(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("magnetar.methods.objectives.recall.LARGEST_PROGRAMME", 0)
        for game in GAMES:
            trace = games.run(methods.mpo_recall(), game, updates=3 * game.num_actions + 20)
            assert trace.duality_gap[-1] < 1e-9


class ConstantSteps(methods.AdaptiveMagneticDescent):
    """The method of theorem 6, by the library's own code but for the step size."""

    def _step_size(self, policy: FloatArray, payoff: FloatArray, state: AnchoredState) -> float:
        return self.first_step


class TestRestarts:
    """Proposition 5 and theorem 6."""

    CONSTANT = 4 + 3 * np.sqrt(2)

    @staticmethod
    def averages(game: games.PreferenceGame, start: FloatArray, step: float, updates: int) -> list[FloatArray]:
        """Averages of the policies after 1, 2, … updates of optimistic projected steps of constant length."""
        skew, policy, total, means = centred(game), start, np.zeros_like(start), []
        previous = skew @ policy
        for k in range(1, updates + 1):
            payoff = skew @ policy
            policy, previous = project(policy + step * (2 * payoff - previous)), payoff
            total = total + policy
            means.append(total / k)
        return means

    @every_game
    def test_the_average_of_optimistic_steps_has_a_gap_of_order_one_over_updates(
        self, game: games.PreferenceGame
    ) -> None:
        skew, equilibrium = centred(game), game.equilibrium()
        step = 0.5 / float(np.linalg.norm(skew, 2))
        for seed, share in ((20, 1.0), (21, 0.01)):
            start = (1 - share) * equilibrium + share * random_policies(1, game.num_actions, seed)[0]
            distance = np.linalg.norm(start - equilibrium)
            for k, mean in enumerate(self.averages(game, start, step, 150), start=1):
                assert (skew @ mean).max() <= self.CONSTANT * distance / (step * k) + 1e-12

    @every_game
    @pytest.mark.parametrize("kind", ["as shipped", "as in the theorem"])
    def test_rounds_end_and_shrink_the_gap_unless_ended_by_length(self, game: games.PreferenceGame, kind: str) -> None:
        method = methods.mpo_adaptive()
        if kind == "as in the theorem":
            safe = 0.5 / float(np.linalg.norm(centred(game), 2))
            method = dataclasses.replace(method, objective=ConstantSteps(anchored=False, first_step=safe))
        start = random_policies(1, game.num_actions, seed=27)[0]
        trace = games.run(method, game, updates=6000, initial=start, stop_at_gap=1e-8, record=True)
        assert trace.magnets is not None
        if kind == "as in the theorem":
            assert trace.duality_gap[-1] <= 1e-8
        gaps = np.array([game.duality_gap(magnet) for magnet in trace.magnets])
        updates = np.diff([0, *trace.magnet_moves])
        shrink_rising = method.objective.settings["shrink_rising"]
        # A round's first update may cost no evaluation, and the rule counts evaluated policies.
        evaluated = trace.magnet_moves - np.arange(len(updates))
        by_length = updates >= method.objective.settings["longest_share"] * evaluated
        shrunk = gaps[1:] <= shrink_rising * gaps[:-1] * (1 + 1e-9)
        assert len(gaps) > 2
        assert (shrunk | by_length).all()
        # Each round that is ended by its length is at least four fifths of all updates so far.
        assert (by_length & ~shrunk).sum() <= 2 + np.log(updates.max()) / np.log(5)


class TestKullbackLeiblerMagnets:
    """Theorem 7: MPO whose inner games are solved."""

    @every_game
    @pytest.mark.parametrize("strength", [0.05, 0.5])
    def test_divergence_to_the_equilibrium_falls_by_at_least_the_step(
        self, game: games.PreferenceGame, strength: float
    ) -> None:
        log_equilibrium = log_probabilities(game.equilibrium())
        magnet = random_policies(1, game.num_actions, seed=22)[0]
        for _ in range(60):
            moved = game.regularized_equilibrium(magnet, strength)
            before, after = (kl_divergence(log_equilibrium, log_probabilities(p)) for p in (magnet, moved))
            step = kl_divergence(log_probabilities(moved), log_probabilities(magnet))
            advantage = float(game.equilibrium() @ centred(game) @ moved) / strength
            assert before - after == pytest.approx(step + advantage, abs=1e-9)
            assert advantage > -1e-9
            magnet = moved
        assert game.duality_gap(magnet) < 0.5 * game.duality_gap(random_policies(1, game.num_actions, seed=22)[0])

    def test_it_converges_where_the_equilibrium_lacks_full_support_and_where_there_are_many(self) -> None:
        for game in (games.random_game(10, seed=0), GAMES[-1]):
            magnet, path = random_policies(1, game.num_actions, seed=23)[0], []
            for _ in range(400):
                magnet = game.regularized_equilibrium(magnet, 0.01)
                path.append(magnet)
            assert game.duality_gap(magnet) < 1e-5
            assert np.abs(path[-1] - path[-100]).max() < 1e-4

    @every_game
    def test_errors_in_log_probability_add_up_at_most(self, game: games.PreferenceGame) -> None:
        """Inner games solved up to ε_n in every log-probability: the divergence rises by at most ε_n."""
        generator, equilibrium = np.random.default_rng(24), log_probabilities(game.equilibrium())
        log_magnet = np.log(random_policies(1, game.num_actions, seed=25)[0])
        for n in range(1, 41):
            solved = np.log(game.regularized_equilibrium(np.exp(log_magnet), 0.3))
            noisy = solved + generator.uniform(-1, 1, game.num_actions) / n**2
            noisy -= np.log(np.exp(noisy).sum())
            error = np.abs(noisy - solved).max()
            divergences = [kl_divergence(equilibrium, log_probability) for log_probability in (log_magnet, noisy)]
            assert divergences[1] <= divergences[0] + error + 1e-10
            log_magnet = noisy

    @every_game
    def test_a_magnet_that_waits_for_short_steps_takes_them(self, game: games.PreferenceGame) -> None:
        """The smaller ``shrink``, the nearer are the magnets of an MPO run to the exact sequence."""
        start = random_policies(1, game.num_actions, seed=26)[0]
        exact = [start]
        for _ in range(4):
            exact.append(game.regularized_equilibrium(exact[-1], 0.3))
        errors = []
        for shrink in (0.1, 1e-3, 1e-6):
            method = methods.mpo(1.0, 0.3, magnet=methods.AdaptiveMagnet(shrink))
            trace = games.run(method, game, updates=1200, initial=start, record=True)
            assert trace.magnets is not None and len(trace.magnets) >= 5
            errors.append(np.abs(trace.magnets[:5] - exact).max())
            if shrink == 1e-6:
                log_equilibrium = log_probabilities(game.equilibrium())
                divergences = [kl_divergence(log_equilibrium, log_probabilities(m)) for m in trace.magnets]
                assert (np.diff(divergences) <= 1e-9).all()
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 1e-5
