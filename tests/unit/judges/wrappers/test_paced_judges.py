"""Calls and rates: the answers stay, what changes is when and how many at a time the judge is asked."""

import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from counting_judges import CircleJudge, PairJudge, features, pair_answer

from magnetar.errors import JudgeError
from magnetar.judges import Batched, Judge, PointwiseJudge, RateLimited, Symmetrized
from magnetar.judges.wrappers.pace import _TokenBucket
from magnetar.judges.wrappers.relay import relayed

TEXTS = ["aaaa", "b", "ccc", "dddddd", "ee", "f", "ggggg"]


class Clock:
    """Time that passes only by sleeping, and by what a judge takes."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def limited(judge: Judge, per_minute: float, burst: int, clock: Clock) -> Judge:
    return relayed(judge, _TokenBucket(per_minute / 60.0, burst, clock, clock.sleep))


@pytest.mark.parametrize(
    "around", [lambda j: Batched(j, 3), lambda j: RateLimited(j, 1e9), lambda j: Batched(RateLimited(j, 1e9), 2)]
)
def test_answers_names_and_identities_stay(around: Callable[[Judge], Judge]):
    for plain in (PairJudge(abstains=True), CircleJudge()):
        judge = around(plain)
        assert (judge.name, judge.identity(), judge.may_abstain) == (plain.name, plain.identity(), plain.may_abstain)
        assert isinstance(judge, PointwiseJudge) == isinstance(plain, PointwiseJudge)
        prompts = ["p", "q"]
        groups = [TEXTS, [*TEXTS[1:], "h?"]]
        np.testing.assert_array_equal(judge.group_win_prob(prompts, groups), plain.group_win_prob(prompts, groups))
        np.testing.assert_array_equal(
            judge.pair_win_prob(["p"] * 7, TEXTS, TEXTS[::-1]), plain.pair_win_prob(["p"] * 7, TEXTS, TEXTS[::-1])
        )


def test_calls_hold_so_many_questions_of_like_length_longest_first():
    inner = PairJudge(size=100)
    judge = Batched(inner, 3)
    second = ["x", "xx", "x", "x", "x", "xxxxxxxxx", "x"]
    answer = judge.pair_win_prob(["p"] * 7, TEXTS, second)
    assert answer.tolist() == [pair_answer("p", *pair) for pair in zip(TEXTS, second, strict=True)]
    assert inner.calls == [3, 3, 1]
    lengths = [len(first) + len(other) for _, first, other in inner.asked]
    calls = [sorted(lengths[:3]), sorted(lengths[3:6]), sorted(lengths[6:])]
    assert [min(call) >= max(after) for call, after in pairwise(calls)] == [True, True]
    assert judge.stats()["calls"] == 3


def test_features_are_read_so_many_at_a_time():
    inner = CircleJudge(size=100)
    features(Batched(inner, 2), ["p"] * 7, TEXTS)
    read = [response for _, response in inner.read]
    assert [len(text) for text in read] == [6, 5, 4, 3, 2, 1, 1]


def test_no_span_of_time_holds_more_questions_than_the_limit():
    clock = Clock()
    asked_at: list[float] = []

    class Timed(PairJudge):
        def answer(self, *question):  # type: ignore[no-untyped-def]
            asked_at.append(clock.now)
            return super().answer(*question)

    per_minute, burst = 90.0, 4
    judge = limited(Timed(), per_minute, burst, clock)
    texts = [str(at) for at in range(50)]
    answer = judge.pair_win_prob(["p"] * 50, texts, ["x"] * 50)
    assert answer.tolist() == [pair_answer("p", text, "x") for text in texts]
    clock.now += 1000.0  # a pause does not add up to more than the bucket holds
    judge.pair_win_prob(["q"] * 50, texts, ["x"] * 50)
    times = np.array(asked_at)
    for start in range(len(times)):
        for end in range(start, len(times)):
            span = times[end] - times[start]
            assert end - start + 1 <= burst + span * per_minute / 60.0 + 1e-6
    # And it is not slower than it must be: what the bucket does not hold takes its time.
    for first in (0, 50):
        assert times[first + 49] - times[first] == pytest.approx((50 - burst) / (per_minute / 60.0), rel=0.01)
    assert judge.stats()["waited_seconds"] == pytest.approx(2 * (50 - burst) / (per_minute / 60.0), rel=0.01)


def test_a_limited_judge_streams():
    clock = Clock()
    judge = limited(PairJudge(size=100), 60.0, 2, clock)
    times = [(len(index), clock.now) for index, _ in judge.iter_pair_win_prob(["p"] * 5, list("abcde"), ["x"] * 5)]
    assert times == [(2, 100.0), (2, 102.0), (1, 103.0)]


def test_a_real_clock_is_waited_for():
    judge = RateLimited(PairJudge(), 60.0 * 50, burst=1)
    started = time.monotonic()
    judge.pair_win_prob(["p"] * 11, [str(at) for at in range(11)], ["x"] * 11)
    assert time.monotonic() - started >= 10 / 50
    assert 0.0 < judge.stats()["waited_seconds"] <= time.monotonic() - started


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "fast", True, None])
def test_rates_that_cannot_be_are_refused(value: object):
    with pytest.raises(JudgeError, match=r"requests_per_minute = .*expected a positive number"):
        RateLimited(PairJudge(), value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 1.5, "3", True])
def test_sizes_that_cannot_be_are_refused(value: object):
    with pytest.raises(JudgeError, match="questions_per_call is"):
        Batched(PairJudge(), value)  # type: ignore[arg-type]


def test_a_symmetrised_pair_is_given_as_soon_as_both_orders_are_in():
    inner = PairJudge(size=4)
    stream = Symmetrized(inner).iter_pair_win_prob(["p"] * 4, list("abcd"), list("wxyz"))
    seen = []
    for index, answers in stream:
        seen.append((sorted(index.tolist()), len(inner.asked)))
        for at, answer in zip(index, answers, strict=True):
            a, b = "abcd"[at], "wxyz"[at]
            assert answer == pytest.approx((pair_answer("p", a, b) + 1 - pair_answer("p", b, a)) / 2)
    assert seen == [([2, 3], 4), ([0, 1], 8)]


def test_what_both_orders_gave_before_a_failure_is_given():
    inner = PairJudge(size=1, fails_after=5)
    got = []
    with pytest.raises(RuntimeError, match="broke"):
        for index, _ in Symmetrized(inner).iter_pair_win_prob(["p"] * 4, list("abcd"), list("wxyz")):
            got += index.tolist()
    assert got == [3, 2]


def test_a_pair_is_masked_when_either_order_is():
    class OneWay(PairJudge):
        def answer(self, prompt, first, second):  # type: ignore[no-untyped-def]
            return float("nan") if first == "a" else 0.25

    judge = Symmetrized(OneWay(abstains=True))
    answer = judge.pair_win_prob(["p"] * 3, ["a", "b", "c"], ["x", "a", "x"])
    np.testing.assert_array_equal(answer, [np.nan, np.nan, 0.5])
    stats = judge.stats()
    assert (stats["masked"], stats["inner_masked"], stats["flip_rate"]) == (2, 2, 1.0)
