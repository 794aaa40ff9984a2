from dataclasses import replace

import numpy as np
import pytest
import torch
from games_extensive_reference import random_policy

from magnetar import methods
from magnetar.games import extensive
from magnetar.games.extensive.sampled import Decisions, Episodes, play_episodes
from magnetar.methods.objectives import PolicyGradient
from magnetar.numerics import log_probabilities

pytest.importorskip("pyspiel", reason="OpenSpiel is not installed")

QUICK = extensive.SelfPlaySettings(episodes=256, gradient_steps=2, hidden=(16,))


def test_episodes_have_the_value_of_the_game(game: extensive.ExtensiveGame) -> None:
    policy = random_policy(game, 1)
    episodes = play_episodes(game, policy, 20_000, np.random.default_rng(0))
    won = episodes.payoff[:, 0]
    expected = extensive.SequenceForm(game).values(policy)[1][0]
    assert abs(won.mean() - expected) < 4 * won.std() / np.sqrt(len(won))
    np.testing.assert_array_equal(won, -episodes.payoff[:, 1])


def test_episodes_follow_the_policy_and_the_rules(leduc: extensive.ExtensiveGame) -> None:
    policy = random_policy(leduc, 2, with_zeros=True)
    episodes = play_episodes(leduc, policy, 5_000, np.random.default_rng(0))
    taken = policy[episodes.infostate, episodes.action]
    assert taken[episodes.mask].min() > 0  # neither illegal nor excluded by the policy
    for player in (0, 1):
        mask = episodes.mask[:, player]
        assert (leduc.infostate_player[episodes.infostate[:, player][mask]] == player).all()
        assert (mask[:, :-1] >= mask[:, 1:]).all()  # padding comes last
    first = episodes.infostate[:, 0, 0]
    row = np.bincount(first).argmax()
    share = np.bincount(episodes.action[first == row, 0, 0], minlength=3) / (first == row).sum()
    np.testing.assert_allclose(share, policy[row], atol=4 * np.sqrt(0.25 / (first == row).sum()))


def test_the_sampled_gradient_is_the_exact_one_on_average(kuhn: extensive.ExtensiveGame) -> None:
    """At θ = θ_k the loss's gradient in logits is −reach(I) π(a|I) (Q(I, a) − Σ_b π(b|I) Q(I, b)), and no KL's."""
    policy = random_policy(kuhn, 3)
    form = extensive.SequenceForm(kuhn)
    wins = form.win_values(policy)
    plan = form.plan(policy)
    own = plan[:-2].reshape(policy.shape).sum(axis=1)
    others = np.zeros(12)
    np.add.at(others, kuhn.visit_infostate, kuhn.visit_chance * plan[kuhn.visit_opponent_sequence])
    advantage = wins - (policy * wins).sum(axis=1, keepdims=True)
    exact = -(own * others)[:, None] * policy * advantage
    objective = methods.mpo(1.0, 0.3).objective
    assert isinstance(objective, PolicyGradient)
    behavior = torch.from_numpy(log_probabilities(policy))
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(300):
        episodes = play_episodes(kuhn, policy, 300, rng)
        logits = behavior.clone().requires_grad_()
        batch = Decisions.collect(kuhn, episodes).batch(torch.log_softmax(logits, -1), behavior, behavior, objective)
        (objective(batch).loss_BG * batch.response_weight_BG).sum().backward()
        assert logits.grad is not None
        samples.append(logits.grad.numpy() * episodes.mask.sum() / 300)  # a sum over decisions, per episode
    mean, error = np.mean(samples, axis=0), np.std(samples, axis=0) / np.sqrt(len(samples))
    assert np.abs(exact).max() > 20 * error.max()  # the test has power
    assert (np.abs(mean - exact) < 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("name", ["mpo", "mpo_rt", "mirror_descent"])
@pytest.mark.parametrize("proximal", ["kl", "clip"])
def test_merged_decisions_have_the_loss_of_single_ones(kuhn: extensive.ExtensiveGame, name: str, proximal: str) -> None:
    """One row per decision, written out anew, with policies far enough apart for the clipping to act."""
    objective = methods.build_method(name, proximal=proximal).objective
    assert isinstance(objective, PolicyGradient)
    policy = random_policy(kuhn, 4)
    episodes = play_episodes(kuhn, policy, 200, np.random.default_rng(0))
    behavior, current, magnet = (torch.from_numpy(log_probabilities(random_policy(kuhn, k))) for k in (4, 5, 6))
    merged = Decisions.collect(kuhn, episodes)
    rows = []
    for e, p, t in np.argwhere(episodes.mask):
        rows.append((episodes.infostate[e, p, t], episodes.action[e, p, t], (episodes.payoff[e, p] / 2 + 1) / 2))
    infostate, action, result = (np.array(column) for column in zip(*rows, strict=True))
    advantage = np.array(
        [result[i] - np.delete(result, i)[np.delete(infostate, i) == infostate[i]].mean() for i in range(len(result))]
    )
    single = Decisions(
        torch.from_numpy(infostate), torch.from_numpy(action), torch.from_numpy(advantage),
        torch.full((len(result),), 1 / len(result), dtype=torch.float64),
    )  # fmt: skip
    losses = []
    for decisions in (merged, single):
        batch = decisions.batch(current, behavior, magnet, objective)
        losses.append(float((objective(batch).loss_BG * batch.response_weight_BG).sum()))
    assert len(merged.weight) < len(single.weight) / 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_later_fees_are_the_deciders_and_received_ones_the_others(kuhn: extensive.ExtensiveGame) -> None:
    """Two episodes by hand: pass, bet, call; and the same with a fold, so that the result differs."""
    row = {key: i for i, key in enumerate(kuhn.keys)}
    infostate = np.array([[[row["0"], row["0pb"]], [row["1p"], 0]]] * 2)
    action = np.array([[[0, 1], [1, 0]], [[0, 0], [1, 0]]])
    mask = np.array([[[True, True], [True, False]]] * 2)
    episodes = Episodes(infostate, action, mask, np.array([[-2.0, 2.0], [-1.0, 1.0]]))
    fee = np.zeros((12, 2))
    fee[row["0pb"]], fee[row["1p"], 1], fee[row["0"], 0] = [0.01, 0.02], 0.1, 5.0
    decisions = Decisions.collect(kuhn, episodes, fee)
    found: dict[tuple[int, int], list[float]] = {}
    for i, a, value in zip(decisions.infostate, decisions.action, decisions.advantage, strict=True):
        found.setdefault((int(i), int(a)), []).append(float(value))
    # wins: call 0, fold 1/4; the last decision pays no later fee, the first one pays what the last one costs.
    assert found[row["0pb"], 1] == pytest.approx([-0.25])
    assert found[row["0pb"], 0] == pytest.approx([0.25])
    first = 0.25 - 0.01 + 0.02
    assert sorted(found[row["0"], 0]) == pytest.approx([-first, first])
    received = 0.25 + 0.02 - 0.01
    assert sorted(found[row["1p"], 1]) == pytest.approx([-received, received])


@pytest.mark.parametrize("name", ["mpo", "mpo_rt", "mmd", "mirror_descent"])
def test_a_seed_is_a_run(kuhn: extensive.ExtensiveGame, name: str) -> None:
    method = methods.build_method(name)
    first, again, other = (
        extensive.run_sampled(method, kuhn, 3, seed=seed, settings=QUICK, measure_at=[0, 3]) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.policy, again.policy)
    np.testing.assert_array_equal(first.exploitability, again.exploitability)
    assert not np.array_equal(first.policy, other.policy)
    assert first.exploitability[0] != first.exploitability[1]


@pytest.mark.parametrize(
    "change", [{"episodes": 300}, {"gradient_steps": 3}, {"learning_rate": 1e-3}, {"hidden": (17,)}]
)
def test_every_setting_of_self_play_matters(kuhn: extensive.ExtensiveGame, change: dict[str, object]) -> None:
    changed = replace(QUICK, **change)  # type: ignore[arg-type] - one field at a time
    policies = [
        extensive.run_sampled(methods.mpo(), kuhn, 2, settings=s, measure_at=[]).policy for s in (QUICK, changed)
    ]
    assert not np.array_equal(policies[0], policies[1])


def test_magnet_schedule_and_tremble_act_on_the_network(kuhn: extensive.ExtensiveGame) -> None:
    moving = extensive.run_sampled(methods.mpo(magnet_every=2), kuhn, 4, settings=QUICK, measure_at=[4])
    np.testing.assert_array_equal(moving.magnet_moves, [2, 4])
    np.testing.assert_allclose(moving.magnet, moving.policy, atol=1e-6)
    trembling = extensive.run_sampled(methods.mpo(magnet_every=2), kuhn, 4, settings=QUICK, measure_at=[4], tremble=0.5)
    np.testing.assert_allclose(trembling.magnet, 0.5 * trembling.policy + 0.25, atol=1e-6)
    fixed = extensive.run_sampled(methods.mmd(), kuhn, 4, settings=QUICK, measure_at=[4])
    assert len(fixed.magnet_moves) == 0
    assert not np.allclose(fixed.magnet, fixed.policy, atol=1e-4)


def test_the_network_never_plays_an_illegal_action(leduc: extensive.ExtensiveGame) -> None:
    trace = extensive.run_sampled(methods.mpo_rt(magnet_every=1), leduc, 2, settings=QUICK, measure_at=[])
    leduc.check_policy(trace.policy)
    leduc.check_policy(trace.magnet)


def test_quick_self_play_learns(kuhn: extensive.ExtensiveGame) -> None:
    settings = extensive.SelfPlaySettings(episodes=1024, gradient_steps=4)
    method = methods.mpo(1.0, 0.1, 20, kl_estimator="exact")
    trace = extensive.run_sampled(method, kuhn, 60, settings=settings, measure_at=[0, 60])
    assert trace.exploitability[0] > 0.4
    assert trace.exploitability[1] < 0.15
