"""Exact methods against their recursions, written down once more in plain NumPy, update by update."""

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.errors import ConfigError
from magnetar.methods import AdaptiveMagnet, MagnetClock, MagnetSchedule
from magnetar.methods.objectives import Geometry

FloatArray = NDArray[np.float64]

GAMES = [games.random_game(10, seed=0), games.noisy_bradley_terry(9, seed=1), games.cyclic_game(5)]
every_game = pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)


def random_policy(actions: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions))


def normalized(logits: FloatArray) -> FloatArray:
    """Probabilities proportional to the exponential."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def project(values: FloatArray) -> FloatArray:
    """Nearest policy: actions that the common shift would make negative leave, until none would."""
    stays = np.ones(len(values), dtype=bool)
    while True:
        shift = (values[stays].sum() - 1.0) / stays.sum()
        if (values[stays] > shift).all():
            return np.where(stays, values - shift, 0.0)
        stays &= values > shift


def total_variation(policy: FloatArray, other: FloatArray) -> float:
    """Largest difference of the probabilities of any event: the event of all actions that gain."""
    gain = policy - other
    return float(gain[gain > 0].sum())


class TestAdaptiveMagnet:
    @pytest.mark.parametrize(
        ("shrink", "first_move", "move", "rate"),
        [
            (0.25, 1.0, 0.26, 0.0),
            (0.25, 1.0, 0.25, 1.0),
            (0.25, 1.0, 0.24, 1.0),
            (0.25, 0.5, 0.24, 0.0),  # short enough beside a first step of 1, not beside this one
            (0.25, 0.5, 0.125, 1.0),
            (0.5, 1e-6, 1e-6, 0.0),
            (0.5, 1e-6, 0.6e-6, 0.0),
            (0.5, 1e-6, 0.4e-6, 1.0),
            (0.5, 0.0, 0.0, 1.0),
        ],
    )
    def test_it_moves_when_a_step_is_short_beside_the_first_one(
        self, shrink: float, first_move: float, move: float, rate: float
    ) -> None:
        assert AdaptiveMagnet(shrink).rate(MagnetClock(7, move=move, first_move=first_move)) == rate

    @pytest.mark.parametrize("clock", [MagnetClock(1), MagnetClock(1, move=0.1), MagnetClock(1, first_move=0.1)])
    def test_it_refuses_a_clock_that_does_not_measure(self, clock: MagnetClock) -> None:
        with pytest.raises(ConfigError, match="watches how far the policy moves"):
            AdaptiveMagnet().rate(clock)


@dataclass(frozen=True)
class Witness(MagnetSchedule):
    """Moves after given updates and keeps what the clock showed."""

    moves_after: tuple[int, ...]
    clocks: list[MagnetClock] = field(default_factory=list)

    @property
    def needs_progress(self) -> bool:
        return True

    def rate(self, clock: MagnetClock) -> float:
        self.clocks.append(clock)
        return 1.0 if clock.update in self.moves_after else 0.0

    def describe(self) -> str:
        return "watched"


@every_game
def test_the_clock_shows_the_total_variation_of_the_last_step_and_of_the_first_since_the_move(
    game: games.PreferenceGame,
) -> None:
    witness = Witness(moves_after=(1, 4, 9))
    start = random_policy(game.num_actions, seed=1)
    trace = games.run(methods.mpo(0.8, 0.2, magnet=witness), game, updates=12, initial=start, record=True)
    assert trace.policies is not None
    steps = [total_variation(after, before) for before, after in zip(trace.policies, trace.policies[1:], strict=False)]
    firsts = [steps[0]] + [steps[1]] * 3 + [steps[4]] * 5 + [steps[9]] * 3
    assert [clock.move for clock in witness.clocks] == pytest.approx(steps, rel=1e-12)
    assert [clock.first_move for clock in witness.clocks] == pytest.approx(firsts, rel=1e-12)
    assert [clock.update for clock in witness.clocks] == list(range(1, 13))


@every_game
@pytest.mark.parametrize("shrink", [0.1, 0.5])
def test_optimistic_mpo_is_its_recursion(game: games.PreferenceGame, shrink: float) -> None:
    step, strength, updates = 1.5, 0.2, 80
    start, reference = random_policy(game.num_actions, seed=2), random_policy(game.num_actions, seed=3)
    log_policy, log_magnet, previous, first = np.log(start), np.log(reference), None, None
    policies, magnets, moves = [start], [reference], []
    for update in range(1, updates + 1):
        payoff = game.P @ policies[-1]
        predicted = payoff if previous is None else payoff + (payoff - previous)
        log_policy = (log_policy + step * strength * log_magnet + step * predicted) / (1 + step * strength)
        policies.append(normalized(log_policy))
        log_policy, previous = np.log(policies[-1]), payoff
        length = total_variation(policies[-1], policies[-2])
        first = length if first is None else first
        if length <= shrink * first:
            log_magnet, first = log_policy, None
            magnets.append(policies[-1])
            moves.append(update)
    method = methods.mpo_optimistic(step, strength, shrink)
    trace = games.run(method, game, updates, initial=start, reference=reference, record=True)
    assert len(moves) >= 3
    assert trace.policies is not None and trace.magnets is not None
    assert trace.magnet_moves.tolist() == moves
    np.testing.assert_allclose(trace.policies, policies, atol=1e-11)
    np.testing.assert_allclose(trace.magnets, magnets, atol=1e-11)
    assert trace.evaluations.tolist() == list(range(updates + 1))


@dataclass(frozen=True)
class Rule:
    """Constants of adaptive magnetic descent."""

    geometry: Geometry
    anchored: bool
    shrink: float
    shrink_rising: float
    longest_share: float
    safety: float
    growth: float
    first_step: float


GEOMETRIES: tuple[Geometry, ...] = ("euclidean", "entropic")
EUCLIDEAN = Rule("euclidean", True, 0.2, 0.56, 0.8, 0.6, 1.2, 9.6)
ENTROPIC = Rule("entropic", False, 0.38, 0.64, 0.6, 0.53, 1.5, 24.0)
RULES = {
    **{f"{name}, shipped": Rule(**methods.mpo_adaptive(name).objective.settings) for name in GEOMETRIES},
    "euclidean": EUCLIDEAN,
    "euclidean, without anchor": dataclasses.replace(EUCLIDEAN, anchored=False, shrink=0.1, first_step=2.0),
    "euclidean, slow": dataclasses.replace(EUCLIDEAN, safety=0.2, first_step=0.3, shrink_rising=0.8),
    # Ends rounds as soon as two policies have been seen.
    "euclidean, impatient": dataclasses.replace(EUCLIDEAN, safety=0.3, shrink=0.9, shrink_rising=0.95),
    "entropic": ENTROPIC,
    "entropic, anchored": dataclasses.replace(ENTROPIC, anchored=True, shrink=0.1, first_step=4.0),
    "entropic, slow": dataclasses.replace(ENTROPIC, safety=0.2, first_step=0.5, shrink_rising=0.8),
}


@dataclass
class Descent:
    """What the recursion went through."""

    policies: list[FloatArray]
    magnets: list[FloatArray]
    moves: list[int] = field(default_factory=list)
    evaluations: list[int] = field(default_factory=lambda: [0])
    happened: Counter[str] = field(default_factory=Counter)


def longest_step(rule: Rule, step: float, move: tuple[FloatArray, ...], change: FloatArray) -> float:
    """``min(growth η, safety / L)``; the local norms are those at the middle of the move."""
    before, now = move
    if rule.geometry == "euclidean":
        slope = np.linalg.norm(change) / np.linalg.norm(now - before)
    else:
        middle = (before + now) / 2
        deviation = np.sqrt(np.cov(change, aweights=middle, ddof=0))
        slope = deviation / np.sqrt(((now - before) ** 2 / middle).sum())
    return min(rule.growth * step, rule.safety / float(slope))


def why_over(rule: Rule, lasted: int, counted: int, gap: float, gap_at_move: float, last_gap: float) -> str | None:
    """Which condition ends the round."""
    if lasted < 2:
        return None
    if gap <= rule.shrink * gap_at_move:
        return "shrunk"
    if gap <= rule.shrink_rising * gap_at_move and gap > last_gap:
        return "rising"
    return "long" if lasted >= max(3, rule.longest_share * counted) else None


def descend(game: games.PreferenceGame, start: FloatArray, updates: int, rule: Rule) -> Descent:
    """Adaptive magnetic descent, from its page: every payoff is computed anew, each average from its whole round."""
    skew, euclidean = game.P - 0.5, rule.geometry == "euclidean"
    seen = Descent([start], [start])
    policy, step, counted, was_average = start, rule.first_step, 0, False
    played: list[FloatArray] = []  # in this round
    weights: list[float] = []
    gap_at_move, last_gap = float("nan"), float("inf")
    before: FloatArray | None = None
    for update in range(1, updates + 1):
        payoff, jumps = skew @ policy, False
        seen.evaluations.append(seen.evaluations[-1] + (not was_average))
        if not was_average:
            counted += 1
            if before is not None:
                step = longest_step(rule, step, (before, policy), skew @ (policy - before))
            played.append(policy)
            weights.append(step * len(played) if rule.anchored else step)
            average = np.average(played, axis=0, weights=weights)
            gap, average_gap = game.duality_gap(policy), game.duality_gap(average)
            better = min(gap, average_gap)
            if counted == 1:
                gap_at_move = gap
            elif (why := why_over(rule, len(played), counted, better, gap_at_move, last_gap)) is not None:
                jumps = average_gap < gap
                seen.happened.update([why, "to the average" if jumps else "to the policy"])
                seen.moves.append(update)
                seen.magnets.append(average if jumps else policy)
                gap_at_move, last_gap, before, played, weights = better, float("inf"), None, [], []
            else:
                last_gap = better
        was_average = jumps
        if jumps:
            policy = seen.magnets[-1]
        else:
            predicted = payoff if before is None else payoff + skew @ (policy - before)
            pull = 1 / (4 + len(played)) if rule.anchored else 0.0
            here, magnet = (policy, seen.magnets[-1]) if euclidean else (np.log(policy), np.log(seen.magnets[-1]))
            target = here + pull * (magnet - here) + step * predicted
            before, policy = policy, project(target) if euclidean else normalized(target)
        seen.policies.append(policy)
    return seen


PAGE = Path(__file__).parents[2] / "docs" / "methods" / "mpo_adaptive.md"
ENTROPIC_TEXT = r"`geometry='entropic'` takes(.*?)\n\n"


class TestAdaptiveMagneticDescent:
    UPDATES = 60

    @every_game
    @pytest.mark.parametrize("name", RULES)
    def test_it_is_its_recursion(self, game: games.PreferenceGame, name: str) -> None:
        rule = RULES[name]
        start = random_policy(game.num_actions, seed=4)
        expected = descend(game, start, self.UPDATES, rule)
        objective = methods.AdaptiveMagneticDescent(**dataclasses.asdict(rule))
        method = dataclasses.replace(methods.mpo_adaptive(), objective=objective)
        trace = games.run(method, game, self.UPDATES, initial=start, record=True)
        assert trace.policies is not None and trace.magnets is not None
        assert len(expected.moves) >= 2
        assert trace.magnet_moves.tolist() == expected.moves
        assert trace.evaluations.tolist() == expected.evaluations
        np.testing.assert_allclose(trace.policies, expected.policies, atol=1e-9)
        np.testing.assert_allclose(trace.magnets, expected.magnets, atol=1e-9)

    @pytest.mark.parametrize("geometry", GEOMETRIES)
    def test_every_condition_ends_rounds_in_these_runs(self, geometry: Geometry) -> None:
        """Else the comparison above would not see a change of it."""
        happened: Counter[str] = Counter()
        for rule in RULES.values():
            if rule.geometry == geometry:
                for game in GAMES:
                    start = random_policy(game.num_actions, seed=4)
                    happened += descend(game, start, self.UPDATES, rule).happened
        assert set(happened) == {"shrunk", "rising", "long", "to the average", "to the policy"}

    @pytest.mark.parametrize(
        ("geometry", "told_in"), [("euclidean", r"```text\n(.*?)```"), ("entropic", ENTROPIC_TEXT)]
    )
    def test_its_page_gives_the_constants_that_are_shipped(self, geometry: Geometry, told_in: str) -> None:
        """They were found by search, so that no other test can tell a right one from a wrong one."""
        told = re.search(told_in, PAGE.read_text(encoding="utf-8"), re.DOTALL)
        assert told is not None
        numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", told[1])}
        settings = methods.mpo_adaptive(geometry).objective.settings
        shipped = {name: value for name, value in settings.items() if isinstance(value, float)}
        assert len(shipped) == 6
        assert {name: value for name, value in shipped.items() if value not in numbers} == {}

    def test_actions_that_start_at_zero_stay_there_in_entropic_geometry_only(self) -> None:
        game, start = games.cyclic_game(5), np.array([0.5, 0.3, 0.2, 0.0, 0.0])
        anchored = methods.AdaptiveMagneticDescent(geometry="entropic", first_step=2.0)
        for objective in (methods.mpo_adaptive("entropic").objective, anchored):
            method = dataclasses.replace(methods.mpo_adaptive(), objective=objective)
            trace = games.run(method, game, updates=30, initial=start)
            assert (trace.policy[3:] == 0).all()
            np.testing.assert_allclose(trace.policy.sum(), 1.0, rtol=1e-12)
        assert games.run(methods.mpo_adaptive(), game, updates=30, initial=start).policy[3:].min() > 0.01


class TestAdaptiveSubgradient:
    @every_game
    @pytest.mark.parametrize("step", [0.1, 0.5])
    def test_it_is_its_recursion(self, game: games.PreferenceGame, step: float) -> None:
        updates = 60
        policies = [random_policy(game.num_actions, seed=5)]
        subgradients: list[FloatArray] = []
        for _ in range(updates):
            loses_to_best = game.P[np.argmax(game.P @ policies[-1])]
            subgradients.append(loses_to_best - loses_to_best.mean())
            policies.append(project(policies[-1] - step * subgradients[-1] / np.linalg.norm(subgradients)))
        trace = games.run(methods.adagrad_norm(step), game, updates, initial=policies[0], record=True)
        assert trace.policies is not None
        np.testing.assert_allclose(trace.policies, policies, atol=1e-11)
        assert trace.evaluations.tolist() == list(range(0, 2 * updates + 1, 2))

    def test_where_nothing_is_preferred_it_stays(self) -> None:
        start = random_policy(4, seed=6)
        trace = games.run(methods.adagrad_norm(), games.PreferenceGame(np.full((4, 4), 0.5)), 3, initial=start)
        np.testing.assert_allclose(trace.policy, start, rtol=1e-14)
