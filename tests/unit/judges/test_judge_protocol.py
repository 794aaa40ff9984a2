"""The protocol: what public methods ask of a judge, what they check, and what they count."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from magnetar.errors import JudgeError
from magnetar.judges import FunctionJudge, Judge, ScalarJudge, Symmetrized, cyclic_triple_share, validate_win_prob
from magnetar.types import Prompt


class Recorder(Judge):
    """Answers by length, favours the first place by `bias`, and keeps what it was asked."""

    name = "recorder"

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = bias
        self.asked: list[tuple[Prompt, str, str]] = []

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        self.asked += list(zip(prompts, first, second, strict=True))
        difference = [len(a) - len(b) for a, b in zip(first, second, strict=True)]
        return np.array([min(max(0.5 + 0.1 * d + self.bias, 0.0), 1.0) for d in difference])


class Lengths(ScalarJudge):
    name = "lengths"

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.read = 0

    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        self.read += len(responses)
        return np.array([float(len(text)) for text in responses])


class Fixed(Judge):
    """Returns a given answer whatever it is asked."""

    name = "fixed"

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def _pair_win_prob(self, prompts, first, second):  # type: ignore[no-untyped-def]
        return self.answer

    def _group_win_prob(self, prompts, responses):  # type: ignore[no-untyped-def]
        return self.answer


def test_a_group_asks_each_unordered_pair_once_and_fills_in_the_other_half():
    judge = Recorder(bias=0.05)
    responses = [["a", "bb", "cccc"], ["dd", "e", "fff"]]
    win_prob = judge.group_win_prob(["p", "q"], responses)
    assert win_prob.shape == (2, 3, 3)
    assert win_prob.dtype == np.float64
    assert judge.asked == [("p", a, b) for a, b in combinations(responses[0], 2)] + [
        ("q", a, b) for a, b in combinations(responses[1], 2)
    ]
    for b, group in enumerate(responses):
        for i, j in combinations(range(3), 2):
            expected = 0.5 + 0.1 * (len(group[i]) - len(group[j])) + 0.05
            assert win_prob[b, i, j] == pytest.approx(expected)
    np.testing.assert_array_equal(win_prob + win_prob.swapaxes(1, 2), 1.0)
    np.testing.assert_array_equal(np.diagonal(win_prob, axis1=1, axis2=2), 0.5)


def test_cross_asks_every_response_against_every_opponent():
    judge = Recorder()
    win_prob = judge.cross_win_prob(["p", "q"], [["a", "bb"], ["c", "dd"]], [["x", "yy", "zzz"], ["u", "v", "wwww"]])
    assert win_prob.shape == (2, 2, 3)
    assert win_prob[0, 1, 2] == pytest.approx(0.4)
    assert win_prob[1, 0, 2] == pytest.approx(0.2)
    assert len(judge.asked) == 12


@pytest.mark.parametrize("judge", [Recorder(), Lengths()])
def test_empty_questions_get_empty_answers(judge: Judge):
    assert judge.pair_win_prob([], [], []).shape == (0,)
    assert judge.group_win_prob([], []).shape == (0, 0, 0)
    assert judge.cross_win_prob([], [], []).shape == (0, 0, 0)
    assert judge.cross_win_prob(["p"], [[]], [["a"]]).shape == (1, 0, 1)
    np.testing.assert_array_equal(judge.group_win_prob(["p"], [["alone"]]), [[[0.5]]])


@pytest.mark.parametrize("judge", [Recorder(), Lengths()])
def test_questions_of_the_wrong_form_are_refused(judge: Judge):
    with pytest.raises(JudgeError, match=r"responses\[1\] holds 1 texts and responses\[0\] holds 2"):
        judge.group_win_prob(["p", "q"], [["a", "b"], ["c"]])
    with pytest.raises(JudgeError, match="2 prompts and 1 groups"):
        judge.group_win_prob(["p", "q"], [["a", "b"]])
    with pytest.raises(JudgeError, match="2 prompts, 1 first and 2 second"):
        judge.pair_win_prob(["p", "q"], ["a"], ["b", "c"])
    with pytest.raises(JudgeError, match="one text 'ab', expected a sequence"):
        judge.group_win_prob(["p"], ["ab"])
    with pytest.raises(JudgeError, match=r"first\[0\] is a NoneType"):
        judge.pair_win_prob(["p"], [None], ["b"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([0.2, 1.5], r"P\[1\] = 1\.5, expected a win probability in \[0, 1\]; prompt 'q', first 'b', second 'd'"),
        ([-0.1, 0.5], r"P\[0\] = -0\.1"),
        ([0.5, math.nan], r"P\[1\] = nan"),
        ([0.5], r"shape \(1,\), expected win probabilities of shape \(2,\)"),
        (0.5, r"shape \(\)"),
        (None, r"NoneType|shape \(\)"),
        (["much", "more"], "not an array of numbers"),
    ],
)
def test_an_answer_that_is_no_win_probability_is_an_error_naming_the_pair(answer: object, message: str):
    with pytest.raises(JudgeError, match=message):
        Fixed(answer).pair_win_prob(["p", "q"], ["a", "b"], ["c", "d"])


def test_a_group_answer_must_be_antisymmetric():
    answer = np.full((1, 3, 3), 0.5)
    answer[0, 1, 2], answer[0, 2, 1] = 0.7, 0.6
    with pytest.raises(JudgeError, match=r"P\[0, 1, 2\] \+ P\[0, 2, 1\] = 1.3, expected 1; wrap .* Symmetrized"):
        Fixed(answer).group_win_prob(["p"], [["a", "b", "c"]])
    answer[0, 2, 1] = 0.3
    np.testing.assert_array_equal(Fixed(answer).group_win_prob(["p"], [["a", "b", "c"]]), answer)


def test_an_override_of_the_group_cannot_skip_validation():
    with pytest.raises(JudgeError, match=r"P\[0, 0, 1\] = 2.0.*first 'a', second 'b'"):
        Fixed([[[0.5, 2.0], [-1.0, 0.5]]]).group_win_prob(["p"], [["a", "b"]])


def test_the_message_names_the_first_bad_entry():
    with pytest.raises(JudgeError, match=r"'j' answered P\[0, 2\] = 3.0.*; here"):
        validate_win_prob([[0.0, 1.0, 3.0], [-1.0, 0.5, 0.5]], (2, 3), "j", lambda at: "here")


def test_scores_cost_one_reading_per_response_and_give_bradley_terry():
    judge = Lengths(temperature=2.0)
    responses = [["a", "bbb", "cc"], ["dddd", "e", "ff"]]
    win_prob = judge.group_win_prob(["p", "q"], responses)
    assert judge.read == 6
    for b, group in enumerate(responses):
        for i in range(3):
            for j in range(3):
                expected = 1 / (1 + math.exp(-(len(group[i]) - len(group[j])) / 2.0))
                assert win_prob[b, i, j] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_array_equal(win_prob + win_prob.swapaxes(1, 2), 1.0)
    assert judge.pair_win_prob(["p"], ["aaa"], ["b"])[0] == pytest.approx(1 / (1 + math.exp(-1.0)))
    judge.read = 0
    cross = judge.cross_win_prob(["p", "q"], responses, [["x"], ["yyy"]])
    assert judge.read == 8
    assert cross[1, 0, 0] == pytest.approx(1 / (1 + math.exp(-0.5)))


def test_scores_must_be_finite():
    class Infinite(ScalarJudge):
        name = "infinite"

        def _scores(self, prompts, responses):  # type: ignore[no-untyped-def]
            return [0.0] * (len(responses) - 1) + [math.inf]

    with pytest.raises(JudgeError, match=r"'infinite' scored response 1 inf, expected a finite number; .* 'b'"):
        Infinite().group_win_prob(["p"], [["a", "b"]])


def test_stats_count_comparisons_and_reset():
    judge = Recorder()
    judge.group_win_prob(["p", "q"], [["a", "b", "c"], ["d", "e", "f"]])
    judge.cross_win_prob(["p"], [["a", "b"]], [["c", "d", "e"]])
    judge.pair_win_prob(["p"], ["a"], ["b"])
    assert judge.stats() == {"comparisons": 6 + 6 + 1}
    assert judge.stats() == {}


def test_symmetrized_averages_both_orders_and_counts_flips():
    inner = Recorder(bias=0.15)
    judge = Symmetrized(inner)
    win_prob = judge.group_win_prob(["p"], [["a", "bb", "cccc"]])
    for i, j in combinations(range(3), 2):
        difference = 0.1 * (len(["a", "bb", "cccc"][i]) - len(["a", "bb", "cccc"][j]))
        forward, backward = 0.5 + difference + 0.15, 0.5 - difference + 0.15
        assert win_prob[0, i, j] == pytest.approx((forward + 1 - backward) / 2)
    # Only |difference| = 0.1 is smaller than the bias: one pair of three changes its winner with the order.
    stats = judge.stats()
    assert stats == {"comparisons": 3, "flip_rate": pytest.approx(1 / 3), "inner_comparisons": 6}
    assert judge.stats() == {}
    np.testing.assert_allclose(judge.pair_win_prob(["p"], ["same"], ["same"]), 0.5, atol=1e-15)


def test_symmetrized_makes_any_function_of_pairs_antisymmetric():
    rng = np.random.default_rng(0)
    judge = Symmetrized(FunctionJudge(lambda prompts, first, second: rng.random(len(prompts))))
    forward = judge.pair_win_prob(["p"] * 50, ["a"] * 50, ["b"] * 50)
    assert np.all((forward >= 0) & (forward <= 1))
    win_prob = judge.group_win_prob(["p"], [list("abcdef")])
    np.testing.assert_array_equal(win_prob + win_prob.swapaxes(1, 2), 1.0)


def test_cyclic_triple_share_equals_brute_force():
    rng = np.random.default_rng(1)
    seen = 0
    for size in (3, 4, 7):
        upper = np.triu(rng.choice([0.0, 0.3, 0.5, 0.7, 1.0], size=(5, size, size)), 1)
        win_prob = upper + np.tril(1.0 - upper.swapaxes(1, 2), -1) + 0.5 * np.eye(size)
        cyclic = total = 0
        for matrix in win_prob:
            for i, j, k in combinations(range(size), 3):
                forward = matrix[i, j] > 0.5 and matrix[j, k] > 0.5 and matrix[k, i] > 0.5
                backward = matrix[j, i] > 0.5 and matrix[k, j] > 0.5 and matrix[i, k] > 0.5
                cyclic += forward or backward
                total += 1
        seen += cyclic
        assert cyclic_triple_share(win_prob) == pytest.approx(cyclic / total)
    assert seen > 0


def test_cyclic_triple_share_at_the_edges():
    rock_paper_scissors = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    assert cyclic_triple_share(rock_paper_scissors) == 1.0
    assert np.isnan(cyclic_triple_share(np.full((4, 2, 2), 0.5)))
    assert np.isnan(cyclic_triple_share(np.zeros((0, 3, 3))))
    assert cyclic_triple_share(Lengths().group_win_prob(["p"], [["a", "bb", "ccc", "dddd"]])) == 0.0
    with pytest.raises(JudgeError, match=r"shape \(3, 2\)"):
        cyclic_triple_share(np.zeros((3, 2)))
