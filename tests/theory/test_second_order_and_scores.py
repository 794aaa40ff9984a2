"""Methods that ask the game for more than payoffs: Hamiltonian gradients, Bradley–Terry scores, recall's proposals."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.methods.objectives.bradley_terry import fit_bradley_terry
from magnetar.methods.objectives.recall import Recall

FloatArray = NDArray[np.float64]

HELD = 1e-6  # as the docstring says: win probabilities are held this far from 0 and 1


def random_policy(actions: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions))


def complex_softmax(logits: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Softmax of complex logits."""
    weights = np.exp(logits)
    return weights / weights.sum()


class TestHamiltonianDescent:
    """The update is a step along the gradient of ``H(θ) = ½‖∇_θ V‖²``, and of no other function."""

    @staticmethod
    def own_gradient(game: games.PreferenceGame, logits: FloatArray) -> FloatArray:
        """Gradient of the policy's win probability in its logits, the opponent fixed at the same policy."""
        opponent = scipy.special.softmax(logits)
        nudge = 1e-30j  # an imaginary step: exact to rounding, as nothing is subtracted
        units = nudge * np.eye(len(logits))
        return np.array([(complex_softmax(logits + unit) @ game.P @ opponent).imag for unit in units]) / nudge.imag

    @staticmethod
    def hamiltonian(game: games.PreferenceGame, logits: FloatArray) -> float:
        policy = scipy.special.softmax(logits)
        return 0.5 * float(np.sum((policy * (game.P @ policy - 0.5)) ** 2))

    @pytest.mark.parametrize("actions", [3, 6, 11])
    @pytest.mark.parametrize("seed", range(4))
    def test_its_step_is_minus_the_gradient_by_finite_differences(self, actions: int, seed: int) -> None:
        game = games.random_game(actions, seed=seed)
        logits = np.random.default_rng(seed).normal(size=actions)
        nudges = 1e-4 * np.eye(actions)
        gradient = np.array(
            [(self.hamiltonian(game, logits + n) - self.hamiltonian(game, logits - n)) / 2e-4 for n in nudges]
        )
        step = 5.0
        trace = games.run(methods.hamiltonian(step), game, 1, initial=scipy.special.softmax(logits))
        moved = trace.log_policy - scipy.special.log_softmax(logits)
        # The gradient of a function of the policy sums to zero in logits, so normalising adds a constant only.
        np.testing.assert_allclose(moved - moved.mean(), -step * gradient, atol=1e-6 * step * np.abs(gradient).max())
        assert trace.evaluations.tolist() == [0, 2]

    @pytest.mark.parametrize("seed", range(3))
    def test_the_field_in_it_is_the_gradient_of_the_policys_own_win_probability(self, seed: int) -> None:
        game, logits = games.random_game(5, seed=seed), np.random.default_rng(seed).normal(size=5)
        expected = 0.5 * float(np.sum(self.own_gradient(game, logits) ** 2))
        assert self.hamiltonian(game, logits) == pytest.approx(expected, rel=1e-10)

    @pytest.mark.parametrize("seed", range(3))
    def test_small_steps_descend_it_at_the_rate_of_the_squared_gradient(self, seed: int) -> None:
        game, start, step = games.random_game(6, seed=seed), random_policy(6, seed), 1e-2
        trace = games.run(methods.hamiltonian(step), game, 1, initial=start)
        moved = trace.log_policy - np.log(start)
        squared = float(np.sum((moved - moved.mean()) ** 2)) / step**2
        before, after = (self.hamiltonian(game, logits) for logits in (np.log(start), trace.log_policy))
        assert (before - after) / step == pytest.approx(squared, rel=1e-2)


def order(actions: int) -> FloatArray:
    """A deterministic order: every action surely beats those after it."""
    return np.triu(np.ones((actions, actions)), 1) + 0.5 * np.eye(actions)


def stationarity(win_prob: FloatArray, weight: FloatArray, score: FloatArray) -> FloatArray:
    """What each action wins by the preferences and not by the scores, against a draw from the weights."""
    return (np.clip(win_prob, HELD, 1 - HELD) - scipy.special.expit(score[:, None] - score[None, :])) @ weight


def likelihood_scores(win_prob: FloatArray, weight: FloatArray) -> FloatArray:
    """Maximum-likelihood scores by SciPy, in the weights given; for preferences that are not extreme."""
    pairs = np.outer(weight, weight) * win_prob

    def loss(score: FloatArray) -> float:
        return -float(np.sum(pairs * scipy.special.log_expit(score[:, None] - score[None, :])))

    score = scipy.optimize.minimize(loss, np.zeros(len(weight)), method="BFGS", options={"gtol": 1e-9}).x
    return score - weight @ score


SKEWED = np.array([0.9, 0.09, 0.009, 0.0009, 0.0001])


class TestBradleyTerryScores:
    @pytest.mark.parametrize("wins", [1.0, 1 - HELD / 10, 1 - HELD])
    def test_one_sure_win_is_worth_what_the_documented_bound_allows(self, wins: float) -> None:
        score = fit_bradley_terry(np.array([[0.5, wins], [1 - wins, 0.5]]), np.array([0.5, 0.5]))
        assert score[0] - score[1] == pytest.approx(np.log((1 - HELD) / HELD), rel=1e-9)

    @pytest.mark.parametrize("wins", [0.9, 0.999, 1 - 1e-5])
    def test_a_likely_win_is_worth_its_log_odds(self, wins: float) -> None:
        for weight in ([0.5, 0.5], [0.999, 0.001]):
            score = fit_bradley_terry(np.array([[0.5, wins], [1 - wins, 0.5]]), np.array(weight))
            assert score[0] - score[1] == pytest.approx(np.log(wins / (1 - wins)), rel=1e-9)

    @pytest.mark.parametrize("seed", [None, 0, 1])
    @pytest.mark.parametrize(
        "weight",
        [np.full(5, 0.2), SKEWED, SKEWED[::-1], np.full(30, 1 / 30), random_policy(30, 2)],
        ids=["even", "skewed", "skewed the other way", "thirty", "thirty at random"],
    )
    def test_a_deterministic_order_is_fitted_to_stationarity(self, seed: int | None, weight: FloatArray) -> None:
        """Sure wins are the hard case: their scores are far apart, where the likelihood is almost flat."""
        shuffle = np.arange(len(weight)) if seed is None else np.random.default_rng(seed).permutation(len(weight))
        win_prob = order(len(weight))[np.ix_(shuffle, shuffle)]
        score = fit_bradley_terry(win_prob, weight)
        assert np.abs(stationarity(win_prob, weight, score)).max() < 1e-12
        assert weight @ score == pytest.approx(0.0, abs=1e-10)
        assert (np.argsort(-score) == np.argsort(shuffle)).all()
        assert score.max() - score.min() > 10

    @pytest.mark.parametrize("weight", [np.full(5, 0.2), SKEWED], ids=["even", "skewed"])
    def test_other_games_are_fitted_to_stationarity(self, weight: FloatArray) -> None:
        for game in (games.random_game(5, seed=0), games.cyclic_game(5), games.noisy_bradley_terry(5, seed=1)):
            score = fit_bradley_terry(game.P, weight)
            assert np.abs(stationarity(game.P, weight, score)).max() < 1e-13
            assert weight @ score == pytest.approx(0.0, abs=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_they_maximise_the_likelihood_that_is_documented(self, seed: int) -> None:
        game, weight = games.random_game(6, seed=seed), 0.5 * random_policy(6, seed) + 0.5 / 6
        expected = likelihood_scores(game.P, weight)
        np.testing.assert_allclose(fit_bradley_terry(game.P, weight), expected, atol=1e-5)

    @pytest.mark.parametrize("seed", range(2))
    def test_the_policies_are_the_references_tilted_by_them(self, seed: int) -> None:
        """One update for reward modelling, and one after another for iterative DPO, whose weights follow the policy."""
        game, kl_coef = games.random_game(5, seed=seed), 2.0
        start, reference = random_policy(5, seed + 10), random_policy(5, seed + 20)
        once = scipy.special.softmax(np.log(reference) + likelihood_scores(game.P, reference) / kl_coef)
        trace = games.run(methods.bt_rlhf(kl_coef), game, 2, initial=start, reference=reference, record=True)
        assert trace.policies is not None
        np.testing.assert_allclose(trace.policies, [start, once, once], atol=1e-5)
        policies = [start]
        for _ in range(4):
            scores = likelihood_scores(game.P, policies[-1])
            policies.append(scipy.special.softmax(np.log(reference) + scores / kl_coef))
        trace = games.run(methods.iterative_dpo(kl_coef), game, 4, initial=start, reference=reference, record=True)
        assert trace.policies is not None
        np.testing.assert_allclose(trace.policies, policies, atol=1e-5)


class ProposalLog:
    """Answers of a game, and every policy that its payoffs were asked for."""

    def __init__(self, skew: FloatArray, policy: FloatArray) -> None:
        self.skew, self.policy = skew, policy
        self.asked: list[FloatArray] = []

    def payoff(self) -> FloatArray:
        return self.skew @ self.policy + 0.5

    def product(self, vector_A: FloatArray) -> FloatArray:
        self.asked.append(vector_A)
        return self.skew @ vector_A + 0.5 * vector_A.sum()

    def win_prob(self) -> FloatArray:
        raise AssertionError("the whole matrix is never asked for")


def least_norm_model(policies: FloatArray, payoffs: FloatArray) -> FloatArray:
    """The shortest antisymmetric matrix that explains the payoffs: least squares over all entries at once."""
    actions = policies.shape[1]
    identity = np.eye(actions)
    explains = np.kron(policies, identity)  # of Mᵀ, row by row: M v = payoff for every policy v
    transposed = np.eye(actions**2).reshape(actions, actions, -1).swapaxes(0, 1).reshape(actions**2, -1)
    equations = np.vstack([explains, np.eye(actions**2) + transposed])
    right = np.concatenate([payoffs.ravel(), np.zeros(actions**2)])
    model = np.asarray(np.linalg.lstsq(equations, right, rcond=None)[0], dtype=np.float64)
    return model.reshape(actions, actions).T


def equilibrium_by_trying_supports(model: FloatArray, magnet: FloatArray, strength: float) -> FloatArray:
    """The π with ``⟨α(π − ρ) − Âπ, x − π⟩ ≥ 0`` for every policy x: of all supports, the one that holds."""
    actions = len(magnet)
    for size in range(1, actions + 1):
        for support in map(list, itertools.combinations(range(actions), size)):
            system = np.ones((size + 1, size + 1))
            system[:-1, :-1] = strength * np.eye(size) - model[np.ix_(support, support)]
            system[-1, -1] = 0.0
            policy = np.zeros(actions)
            policy[support] = np.linalg.solve(system, np.append(strength * magnet[support], 1.0))[:-1]
            slope = strength * (policy - magnet) - model @ policy
            if policy.min() >= 0 and (slope - slope @ policy).min() > -1e-12:
                return policy
    raise AssertionError("every such game has an equilibrium")


def best_mixture(policies: FloatArray, payoffs: FloatArray) -> FloatArray:
    """Policy of least gap among the affine combinations, as a programme over the weights of the policies."""
    known, actions = policies.shape
    programme = scipy.optimize.linprog(
        np.append(np.zeros(known), 1.0),
        A_ub=np.block([[payoffs.T, -np.ones((actions, 1))], [-policies.T, np.zeros((actions, 1))]]),
        b_ub=np.zeros(2 * actions),
        A_eq=np.append(np.ones(known), 0.0)[None],
        b_eq=[1.0],
        bounds=[(None, None)] * (known + 1),
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert programme.status == 0
    return np.maximum(programme.x[:known] @ policies, 0.0)  # the solver allows itself a little below zero


class TestRecallsProposals:
    @pytest.mark.parametrize("scale", [0.3, 1.0])
    @pytest.mark.parametrize(
        "game", [games.random_game(10, seed=0), games.cyclic_game(7), games.noisy_bradley_terry(9, seed=1)], ids=str
    )
    def test_the_first_are_those_of_a_dense_computation(self, game: games.PreferenceGame, scale: float) -> None:
        skew, updates = game.P - 0.5, 4
        start = random_policy(game.num_actions, seed=7)
        method, log_policy = Recall(scale), np.log(start)
        state = method.initial_state(log_policy)
        magnet, memory = start, start[None]
        for update in range(updates):
            oracle = ProposalLog(skew, np.exp(log_policy))
            log_policy, state = method.exact_step(oracle, log_policy, np.log(start), state)
            if update == 0:
                proposal = np.eye(game.num_actions)[np.argmax(skew @ start)]
            else:
                model = least_norm_model(memory, memory @ skew.T)
                strength = scale * (skew @ magnet).max() / np.sum(magnet**2)
                proposal = equilibrium_by_trying_supports(model, magnet, strength)
            assert len(oracle.asked) == 1
            np.testing.assert_allclose(oracle.asked[0], proposal, atol=1e-7)
            memory = np.vstack([memory, proposal])
            magnet = min((magnet, proposal, best_mixture(memory, memory @ skew.T)), key=game.duality_gap)
            np.testing.assert_allclose(np.exp(log_policy), magnet, atol=1e-7)
            assert method.log_magnet(state) is log_policy
