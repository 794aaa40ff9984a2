"""Lines, matrix, curves and mixture of a comparison equal what brute force gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from magnetar.evaluation import Responses
from magnetar.evaluation.comparison.contestants import REFERENCE, Answers
from magnetar.evaluation.comparison.results import Spent
from magnetar.evaluation.comparison.round_robin import WinRates, judge_pairs, needed_comparisons
from magnetar.evaluation.comparison.tables import (
    FinishedRun,
    IntervalSettings,
    curve_points,
    method_rows,
    run_rows,
    win_rate_matrix,
)
from magnetar.judges import FunctionJudge, ScoreFunctionJudge

INTERVALS = IntervalSettings(bootstrap=200)
PROMPTS = [f"prompt {i}" for i in range(6)]


def run(label: str, seed: int, points: Sequence[tuple[str, int, int]] = ()) -> FinishedRun:
    spent = Spent(100.0 + seed, 1000.0, 10.0, 60.0)
    return FinishedRun(label, "mpo", seed, f"{label}-{seed}", spent, tuple(points), 100)


def answers(texts: Sequence[Sequence[str]], kl: float = 0.0) -> Answers:
    shape = (len(texts), len(texts[0]))
    lengths = np.array([[len(text.split()) for text in group] for group in texts])
    return Answers(Responses([list(group) for group in texts], lengths, lengths > 3), np.full(shape, kl))


def sheet(name: str, count: int = 2) -> Answers:
    rng = np.random.default_rng(sum(map(ord, name)))
    # The name makes texts of different contestants different: a judge need not be asked about equal ones.
    texts = [["well " * int(rng.integers(1, 6)) + f"{name} {i}" for i in range(count)] for _ in PROMPTS]
    return answers(texts, kl=len(name))


def longer(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response.split())) for response in responses]


def likes_first(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
    return [0.9 if len(a) >= len(b) else 0.2 for a, b in zip(first, second, strict=True)]


def abstains(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
    return [float("nan") if prompt == "prompt 2" else 0.75 for prompt in prompts]


def test_win_rates_of_a_judge_that_scores_are_those_of_all_pairs_of_responses() -> None:
    sheets = {name: sheet(name) for name in ("a", "bb", REFERENCE)}
    asked: list[str] = []

    def noted(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        asked.extend(responses)
        return longer(prompts, responses)

    judge = ScoreFunctionJudge(noted, temperature=2.0, name="longer")
    rates = judge_pairs(sheets, PROMPTS, judge, [("a", "bb"), ("a", REFERENCE)])
    for first, second in (("a", "bb"), ("a", REFERENCE)):
        for b in range(len(PROMPTS)):
            pairs = [
                1.0 / (1.0 + np.exp(-(len(x.split()) - len(y.split())) / 2.0))
                for x in sheets[first].responses.texts[b]
                for y in sheets[second].responses.texts[b]
            ]
            assert rates.between([first], [second])[0, 0, b] == pytest.approx(np.mean(pairs))
            assert rates.between([second], [first])[0, 0, b] == pytest.approx(1.0 - np.mean(pairs))
    assert np.isnan(rates.between(["bb"], [REFERENCE])).all()  # nobody asked
    assert len(asked) <= needed_comparisons(judge, 2, 6, 2, 3)[0] == 3 * 6 * 2  # each response once, not once a pair


def test_a_judge_of_pairs_is_asked_about_each_pair_once() -> None:
    sheets = {name: sheet(name) for name in ("a", "bb", REFERENCE)}
    judge = FunctionJudge(likes_first)
    rates = judge_pairs(sheets, PROMPTS, judge, [("bb", "a")])
    texts = [sheets[name].responses.texts for name in ("bb", "a")]
    for b in range(len(PROMPTS)):
        expected = np.mean([0.9 if len(x) >= len(y) else 0.2 for x in texts[0][b] for y in texts[1][b]])
        assert rates.between(["bb"], ["a"])[0, 0, b] == pytest.approx(expected)
    assert judge.stats()["comparisons"] == needed_comparisons(judge, 1, 6, 2, 3)[0] == 6 * 2 * 2


def test_prompts_that_the_judge_left_unanswered_are_left_out() -> None:
    sheets = {name: sheet(name) for name in ("a-0", REFERENCE)}
    judge = FunctionJudge(abstains)
    judge.may_abstain = True
    rates = judge_pairs(sheets, PROMPTS, judge, [("a-0", REFERENCE)])
    assert np.isnan(rates.between(["a-0"], [REFERENCE])[0, 0, 2])
    (row, _) = method_rows([run("a", 0)], sheets, rates, INTERVALS)
    assert row.win_rate is not None and row.win_rate.value == 0.75


def rates_of(runs: Sequence[FinishedRun], seed: int = 0) -> WinRates:
    names = [REFERENCE, *(name for one in runs for name in (one.name, *(point for point, _, _ in one.points)))]
    rng = np.random.default_rng(seed)
    table = rng.random((len(names), len(names), len(PROMPTS)))
    return WinRates(tuple(names), (table + 1.0 - table.swapaxes(0, 1)) / 2.0)


def test_a_line_is_the_mean_over_its_runs_and_prompts() -> None:
    runs = [run("a", 0), run("a", 1), run("b", 0), run("b", 1), run("c", 0)]
    rates = rates_of(runs)
    sheets = {name: sheet(name) for name in rates.names}
    rows = method_rows(runs, sheets, rates, INTERVALS)
    assert [row.label for row in rows] == ["a", "b", "c", REFERENCE]
    assert [row.seeds for row in rows] == [(0, 1), (0, 1), (0,), ()]

    def rate(first: str, second: str) -> float:
        return float(rates.between([first], [second]).mean())

    assert rows[0].win_rate is not None and rows[0].win_rate_others is not None
    assert rows[0].win_rate.value == pytest.approx((rate("a-0", REFERENCE) + rate("a-1", REFERENCE)) / 2)
    # Each other method counts the same, however many runs it has.
    against_b = np.mean([rate(x, y) for x in ("a-0", "a-1") for y in ("b-0", "b-1")])
    against_c = np.mean([rate(x, "c-0") for x in ("a-0", "a-1")])
    assert rows[0].win_rate_others.value == pytest.approx((against_b + against_c) / 2)
    assert rows[3].win_rate is None and rows[3].spent is None
    assert rows[0].kl_nats.value == 3.0 and rows[0].spent is not None
    assert rows[0].spent.comparisons == 100.5
    lengths = [len(text.split()) for name in ("a-0", "a-1") for group in sheets[name].responses.texts for text in group]
    assert rows[0].tokens.value == pytest.approx(np.mean(lengths))
    assert rows[0].truncated == pytest.approx(np.mean([length > 3 for length in lengths]))
    matrix = win_rate_matrix(runs, rates, INTERVALS)
    cell, back = matrix[0][1], matrix[1][0]
    assert cell is not None and back is not None and matrix[2][2] is None
    assert cell.value == pytest.approx(against_b) and back.value == pytest.approx(1.0 - against_b)
    assert cell.low is not None and back.high is not None
    assert cell.low == pytest.approx(1.0 - back.high)
    singles = run_rows(runs, rates, INTERVALS)
    assert [(one.label, one.seed) for one in singles] == [(one.label, one.seed) for one in runs]
    assert singles[1].win_rate.value == pytest.approx(rate("a-1", REFERENCE))


def test_curves_end_in_the_result_and_average_the_runs_of_a_point() -> None:
    runs = [run("a", 0, [("a-0-p", 1, 40)]), run("a", 1, [("a-1-p", 1, 50)]), run("b", 0)]
    rates = rates_of(runs)
    curves = curve_points(runs, rates, INTERVALS, 2)
    first, last = curves["a"]
    assert (first.spent, first.runs, last.spent) == (45.0, 2, 100.0)
    expected = rates.between(["a-0-p", "a-1-p"], [REFERENCE]).mean()
    assert first.win_rate.value == pytest.approx(expected)
    rows = method_rows(runs, {name: sheet(name) for name in rates.names}, rates, INTERVALS)
    assert last.win_rate == rows[0].win_rate
    assert [len(points) for points in curves.values()] == [2, 1]  # b had no policy kept part of the way


def test_the_mixture_of_methods_is_the_equilibrium_of_rock_paper_scissors() -> None:
    runs = [run(label, 0) for label in ("rock", "paper", "scissors")]
    names = [REFERENCE, *(one.name for one in runs)]
    table = np.full((4, 4, len(PROMPTS)), 0.5)
    for winner, loser, rate in ((2, 1, 0.9), (3, 2, 0.7), (1, 3, 0.8), (1, 0, 0.9), (2, 0, 0.9), (3, 0, 0.9)):
        table[winner, loser], table[loser, winner] = rate, 1.0 - rate
    rows = method_rows(runs, {name: sheet(name) for name in names}, WinRates(tuple(names), table), INTERVALS)
    # Weights are those of the opposite edges of the cycle: 0.2 : 0.3 : 0.4 for rock, paper and scissors.
    assert [row.equilibrium for row in rows] == pytest.approx([2 / 9, 3 / 9, 4 / 9, 0.0], abs=1e-9)
    assert [row.in_support for row in rows] == [1.0, 1.0, 1.0, 0.0]


def test_a_method_that_beats_all_others_is_the_whole_mixture() -> None:
    runs = [run("a", 0), run("b", 0)]
    names = (REFERENCE, "a-0", "b-0")
    table = np.full((3, 3, len(PROMPTS)), 0.5)
    table[1, :, :], table[:, 1, :], table[1, 1, :] = 0.6, 0.4, 0.5
    rows = method_rows(runs, {name: sheet(name) for name in names}, WinRates(names, table), INTERVALS)
    assert [row.equilibrium for row in rows] == pytest.approx([1.0, 0.0, 0.0], abs=1e-9)
