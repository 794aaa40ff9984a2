"""Where methods with a fixed reference stop on a language model, against equilibria found by other means."""

import numpy as np
import pytest

from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.evaluation.enumerable_limits import ResponseTree, limit_of, token_mixture
from magnetar.games import PreferenceGame, random_game
from magnetar.methods import build_method
from magnetar.methods.objectives.bradley_terry import fit_bradley_terry

GAME = EnumerableGame.build(num_words=2, max_new_tokens=2)
ALPHA = 0.2


def start(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(len(GAME.responses), 3.0))


def game() -> PreferenceGame:
    return random_game(len(GAME.responses), seed=3)


def limit(name: str, **settings: object) -> np.ndarray:
    found = limit_of(
        build_method(name, **settings), game(), GAME.responses, start(), np.arange(len(GAME.responses)) / 9
    )
    assert found is not None
    assert found.sum() == pytest.approx(1.0)
    return found


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("omd", {"step_size": 1.0}),
        ("egpo", {}),
        ("egpo", {"loss": "regression"}),
        ("inpo", {"step_size": 0.7}),
        ("online_ipo", {}),
        ("mmd", {"loss": "regression"}),
        ("nash_md_pg", {"reference_weight": 0.0}),
    ],
)
def test_losses_on_whole_responses_stop_at_the_regularised_equilibrium_of_newtons_method(name: str, settings: dict):
    expected = game().regularized_equilibrium(start(), ALPHA)
    np.testing.assert_allclose(limit(name, magnet_strength=ALPHA, **settings), expected, atol=1e-7)


def test_the_magnet_of_next_token_distributions_stops_elsewhere():
    found, tree = limit("mmd", magnet_strength=ALPHA), ResponseTree.of(GAME.responses)
    whole = game().regularized_equilibrium(start(), ALPHA)
    assert np.abs(found - whole).max() > 1e-3, "for several tokens the two are not the same"
    # At every prefix: log π(a|s) − log ref(a|s) − Q(s, a)/α is the same for all tokens a.
    policy, payoff = found, game().payoff(found)
    for parent in set(tree.parent.tolist()):
        nodes = np.flatnonzero(tree.parent == parent)
        q = [policy[on] @ payoff[on] / policy[on].sum() for on in (tree.on_path[node] > 0 for node in nodes)]
        ratio = [np.log(policy[on].sum() / start()[on].sum()) for on in (tree.on_path[node] > 0 for node in nodes)]
        np.testing.assert_allclose(np.ptp(np.array(ratio) - np.array(q) / ALPHA), 0.0, atol=1e-7)


def test_for_single_tokens_the_magnet_of_next_token_distributions_is_the_regularised_equilibrium():
    small = random_game(4, seed=1)
    reference = np.array([0.4, 0.3, 0.2, 0.1])
    found = limit_of(build_method("mmd", magnet_strength=ALPHA), small, [[0], [1], [2], [3]], reference)
    np.testing.assert_allclose(found, small.regularized_equilibrium(reference, ALPHA), atol=1e-7)


def test_nash_md_stops_at_the_best_response_to_its_mixture():
    found, tree = limit("nash_md_pg", magnet_strength=ALPHA, reference_weight=0.4), ResponseTree.of(GAME.responses)
    mixture = token_mixture(tree, found, start(), 0.4)
    expected = start() * np.exp(game().payoff(mixture) / ALPHA)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-7)
    assert np.abs(mixture - found).max() > 1e-3


def test_a_mixture_of_next_tokens_is_their_geometric_mean():
    tree, one, other = ResponseTree.of(GAME.responses), start(0), start(1)
    mixed = np.ones(len(GAME.responses))
    for a, response in enumerate(GAME.responses):
        for t in range(len(response)):
            prefix = response[:t]
            tokens = sorted({r[t] for r in GAME.responses if r[:t] == prefix})
            each = []
            for policy in (one, other):
                mass = [
                    sum(p for p, r in zip(policy, GAME.responses, strict=True) if r[: t + 1] == [*prefix, k])
                    for k in tokens
                ]
                each.append(np.array(mass) / np.sum(mass))
            mean = each[0] ** 0.7 * each[1] ** 0.3
            mixed[a] *= mean[tokens.index(response[t])] / mean.sum()
    np.testing.assert_allclose(token_mixture(tree, one, other, 0.3), mixed, atol=1e-12)


def test_dpo_stops_where_the_scores_fitted_to_its_own_pairs_lead_back_to_it():
    found = limit("online_dpo", kl_coef=1.0, pairs="all", hard_labels=False)
    expected = start() * np.exp(fit_bradley_terry(game().P, found))
    np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_rewards_lead_to_the_reference_tilted_by_them(name: str):
    expected = start() * np.exp(np.arange(len(GAME.responses)) / 9 / 0.5)
    np.testing.assert_allclose(limit(name, kl_coef=0.5), expected / expected.sum(), atol=1e-7)


# With the penalty of KL(π‖ref), dividing by the standard deviation ends at a single response: there is no such point.
@pytest.mark.parametrize(("kl_estimator", "scale_rewards"), [("k3", True), ("k3", False), ("sampled", False)])
@pytest.mark.parametrize("token_average", [True, False])
def test_grpo_stops_where_the_gradient_of_its_loss_vanishes(
    kl_estimator: str, scale_rewards: bool, token_average: bool
):
    """By finite differences of the loss in the next-token logits, response by response."""
    beta, score = 0.5, np.arange(len(GAME.responses)) / 9
    options = {"kl_estimator": kl_estimator, "scale_rewards": scale_rewards, "token_average": token_average}
    found = limit("grpo", kl_coef=beta, **options)
    tree, reference = ResponseTree.of(GAME.responses), start()
    before, origin = tree.conditionals(found), tree.conditionals(reference)
    centred = score - found @ score
    advantage = centred / (np.sqrt(found @ centred**2) + 1e-4) if scale_rewards else centred

    def loss(logits: np.ndarray) -> float:
        now, total = tree.normalize(logits), 0.0
        for a, response in enumerate(GAME.responses):
            for node in np.flatnonzero(tree.on_path[:, a]):
                ratio, u = np.exp(now[node] - before[node]), origin[node] - now[node]
                penalty = (
                    np.exp(u) - u - 1
                    if kl_estimator == "k3"
                    else ratio * (-u - 1) + np.exp(origin[node] - before[node])
                )
                total += found[a] * (beta * penalty - ratio * advantage[a]) / (len(response) if token_average else 1)
        return total

    steps = 1e-5 * np.eye(len(before))
    gradient = np.array([(loss(before + step) - loss(before - step)) / 2e-5 for step in steps])
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
    assert np.abs(found - reference).max() > 0.01


def test_methods_without_a_fixed_reference_have_no_such_policy():
    for name in ("mpo", "mirror_descent", "sppo", "omwu"):
        assert limit_of(build_method(name), game(), GAME.responses, start()) is None
