"""Kept answers: the same as the judge's, asked once, found by content and identity."""

import importlib
import linecache
import sys
from pathlib import Path

import numpy as np
import pytest
from counting_judges import CircleJudge, PairJudge, features, pair_answer

from magnetar.errors import JudgeError
from magnetar.judges import (
    Cached,
    Judge,
    PointwiseJudge,
    Symmetrized,
    build_judge,
)
from magnetar.judges.wrappers.keys import KEY_BYTES
from magnetar.judges.wrappers.store import AnswerStore
from magnetar.types import Prompt

CHAT: Prompt = [{"role": "user", "content": "p"}]
PROMPTS: list[Prompt] = ["p", "q", CHAT, "p"]
FIRST = ["a", "b", "c", "a"]
SECOND = ["x", "y", "z", "x"]
GROUPS = [["a", "bb", "c", "a"], ["d", "e", "a", "f"]]


def test_answers_are_the_judges_and_come_from_the_file_the_second_time(tmp_path: Path):
    expected = [pair_answer(*question) for question in zip(PROMPTS, FIRST, SECOND, strict=True)]
    inner = PairJudge()
    np.testing.assert_array_equal(Cached(inner, tmp_path / "c").pair_win_prob(PROMPTS, FIRST, SECOND), expected)
    assert len(inner.asked) == 3, "an equal question is asked once"
    again = PairJudge()
    judge = Cached(again, tmp_path / "c")
    np.testing.assert_array_equal(judge.pair_win_prob(PROMPTS[::-1], FIRST[::-1], SECOND[::-1]), expected[::-1])
    assert again.asked == []
    assert judge.stats() == {"comparisons": 4, "cache_hits": 3, "cache_misses": 0}


def test_a_pointwise_judge_stays_one_and_its_features_are_kept(tmp_path: Path):
    plain, inner = CircleJudge(), CircleJudge()
    judge = Cached(inner, tmp_path / "c")
    assert isinstance(judge, PointwiseJudge)
    np.testing.assert_array_equal(judge.group_win_prob(["p", "q"], GROUPS), plain.group_win_prob(["p", "q"], GROUPS))
    assert sorted(inner.read) == sorted({("p", y) for y in GROUPS[0]} | {("q", y) for y in GROUPS[1]})
    inner.read.clear()
    opponents = [["a", "new"], ["e", "d"]]
    np.testing.assert_array_equal(
        judge.cross_win_prob(["p", "q"], GROUPS, opponents), plain.cross_win_prob(["p", "q"], GROUPS, opponents)
    )
    assert inner.read == [("p", "new")]
    np.testing.assert_array_equal(judge.pair_win_prob(["p"], ["a"], ["bb"]), plain.pair_win_prob(["p"], ["a"], ["bb"]))
    assert judge.stats()["inner_responses"] == 8


def test_each_order_is_kept_inside_symmetrise(tmp_path: Path):
    plain = Symmetrized(PairJudge()).group_win_prob(["p", "q"], GROUPS)
    # Three texts in the first group, four in the second, every two of them in both orders.
    for asked in (3 * 2 + 4 * 3, 0):
        inner = PairJudge()
        np.testing.assert_array_equal(
            Symmetrized(Cached(inner, tmp_path / "c")).group_win_prob(["p", "q"], GROUPS), plain
        )
        assert len(inner.asked) == asked


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("p", "ab", "c"), ("p", "a", "bc")),
        (("p", "a", "b"), ("p", "b", "a")),
        (("pa", "b", "c"), ("p", "ab", "c")),
        (("p", "a", "b"), (CHAT, "a", "b")),
        (([*CHAT, {"role": "assistant", "content": ""}], "a", "b"), (CHAT, "a", "b")),
        (("p", "", "b"), ("p", "b", "")),
        (("p", "é", "b"), ("p", "e\u0301", "b")),
        (("p", "\ud800", "b"), ("p", "\udfff", "b")),
        (("p", "a\x00", "b"), ("p", "a", "\x00b")),
        (("p", "a ", "b"), ("p", "a", "b")),
    ],
)
def test_different_questions_never_share_an_answer(tmp_path: Path, one: tuple, other: tuple):
    judge = Cached(PairJudge(), tmp_path / "c")
    both = [[question[part] for question in (one, other)] for part in range(3)]
    np.testing.assert_array_equal(judge.pair_win_prob(*both), [pair_answer(*one), pair_answer(*other)])
    assert judge.stats()["cache_misses"] == 2


def test_equal_prompts_that_are_different_objects_share_an_answer(tmp_path: Path):
    inner = PairJudge()
    turned: list[Prompt] = [[{"content": "p", "role": "user"}], CHAT, [{"role": "user", "content": "p"}]]
    Cached(inner, tmp_path / "c").pair_win_prob(turned, ["a"] * 3, ["b"] * 3)
    assert len(inner.asked) == 1


def test_prompts_made_anew_on_each_access_do_not_share_answers(tmp_path: Path):
    class Made(list):
        """Like a dataset's column: every access makes an object, which dies at once."""

        def __getitem__(self, at):  # type: ignore[no-untyped-def]
            return [{"role": "user", "content": f"prompt {at}"}]

        def __iter__(self):  # type: ignore[no-untyped-def]
            return (self[at] for at in range(len(self)))

    count = 200
    answer = Cached(PairJudge(), tmp_path / "c").pair_win_prob(Made(range(count)), ["a"] * count, ["b"] * count)
    expected = [pair_answer([{"role": "user", "content": f"prompt {at}"}], "a", "b") for at in range(count)]
    np.testing.assert_array_equal(answer, expected)


def test_judges_share_a_file_without_sharing_answers(tmp_path: Path):
    Cached(PairJudge(version=0), tmp_path / "c").pair_win_prob(PROMPTS, FIRST, SECOND)
    changed = PairJudge(version=1)
    judge = Cached(changed, tmp_path / "c")
    judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    Cached(CircleJudge(), tmp_path / "c").pair_win_prob(PROMPTS, FIRST, SECOND)
    assert len(changed.asked) == 3
    assert judge.stats()["cache_hits"] == 0
    assert len(Cached(PairJudge(), tmp_path / "c").relays[0].store) == 3 + 3 + 6  # type: ignore[attr-defined]


def test_what_was_answered_before_a_failure_is_kept(tmp_path: Path):
    texts = [f"text {at}" for at in range(10)]
    with pytest.raises(RuntimeError, match="the judge broke"):
        Cached(PairJudge(fails_after=7), tmp_path / "c").pair_win_prob(["p"] * 10, texts, ["b"] * 10)
    rest = PairJudge()
    Cached(rest, tmp_path / "c").pair_win_prob(["p"] * 10, texts, ["b"] * 10)
    assert len(rest.asked) == 10 - 6, "two batches of three were finished"
    with pytest.raises(RuntimeError, match="the judge broke"):
        features(Cached(CircleJudge(fails_after=7), tmp_path / "c"), ["p"] * 10, texts)
    reader = CircleJudge()
    features(Cached(reader, tmp_path / "c"), ["p"] * 10, texts)
    assert reader.read == [("p", text) for text in texts[6:]]


def test_hits_come_before_the_judge_is_asked(tmp_path: Path):
    Cached(PairJudge(), tmp_path / "c").pair_win_prob(["p"] * 2, ["a", "b"], ["x"] * 2)
    inner = PairJudge(size=1)
    stream = Cached(inner, tmp_path / "c").iter_pair_win_prob(["p"] * 5, list("abcde"), ["x"] * 5)
    index, answers = next(stream)
    assert (index.tolist(), inner.asked) == ([0, 1], [])
    np.testing.assert_array_equal(answers, [pair_answer("p", "a", "x"), pair_answer("p", "b", "x")])
    assert [(index.tolist(), len(inner.asked)) for index, _ in stream] == [([4], 1), ([3], 2), ([2], 3)]


def test_masked_answers_are_not_kept(tmp_path: Path):
    for asked in (3, 1):
        inner = PairJudge(abstains=True)
        judge = Cached(inner, tmp_path / "c")
        assert judge.may_abstain
        answer = judge.pair_win_prob(["p"] * 3, ["a?", "b", "c"], ["x"] * 3)
        assert np.isnan(answer).tolist() == [True, False, False]
        stats = judge.stats()
        assert (len(inner.asked), stats["cache_hits"], stats["masked"]) == (asked, 3 - asked, 1)
    win_prob = Cached(PairJudge(abstains=True), tmp_path / "c").group_win_prob(["p"], [["a", "b?", "c"]])[0]
    np.testing.assert_array_equal(np.isnan(win_prob), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_a_cache_changes_neither_name_nor_identity(tmp_path: Path):
    for judge in (PairJudge(), CircleJudge()):
        cached = Cached(judge, tmp_path / "c")
        assert (cached.name, cached.identity()) == (judge.name, judge.identity())
        assert Cached(cached, tmp_path / "d").identity() == judge.identity()


def test_a_judge_that_cannot_tell_its_identity_cannot_be_cached(tmp_path: Path):
    class Anonymous(Judge):
        name = "anonymous"

        def _pair_win_prob(self, prompts, first, second):  # type: ignore[no-untyped-def]
            return np.full(len(prompts), 0.5)

    with pytest.raises(JudgeError, match=r"'anonymous' does not say what decides its answers.*`_identity`"):
        Cached(Anonymous(), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_function_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = tmp_path / "a_users_judge.py"
    answers = []
    for constant in (0.75, 0.25):
        module.write_text(f"def prefer(prompts, first, second):\n    return [{constant}] * len(prompts)\n")
        sys.modules.pop("a_users_judge", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        judge = build_judge("python:a_users_judge:prefer", cache=str(tmp_path / "c"), symmetrize=False)
        answers.append(float(judge.pair_win_prob(["p"], ["a"], ["b"])[0]))
    sys.modules.pop("a_users_judge", None)
    assert answers == [0.75, 0.25]


@pytest.mark.parametrize("line", ["from a_helper import C", "import a_helper", "from a_package import inner"])
def test_a_function_whose_helper_changed_in_another_module_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "__init__.py").write_text("")
    (tmp_path / "a_package" / "inner.py").write_text("from ..a_helper import C\nfrom .deep import D\nC = D\n")
    value = {"from a_helper import C": "C", "import a_helper": "a_helper.C", "from a_package import inner": "inner.C"}
    (tmp_path / "helped_judge.py").write_text(
        f"{line}\n\n\ndef prefer(prompts, first, second):\n    return [{value[line]}] * len(prompts)\n"
    )
    (tmp_path / "a_package" / "inner.py").write_text("from .deep import D\n\nC = D\n")
    answers = []
    for constant in (0.75, 0.25):
        (tmp_path / "a_helper.py").write_text(f"C = {constant}\n")
        (tmp_path / "a_package" / "deep.py").write_text(f"D = {constant}\n")
        for name in [name for name in sys.modules if name.startswith(("a_helper", "a_package", "helped_judge"))]:
            del sys.modules[name]
        importlib.invalidate_caches()
        linecache.clearcache()
        judge = build_judge("python:helped_judge:prefer", cache=str(tmp_path / "c"), symmetrize=False)
        answers.append(float(judge.pair_win_prob(["p"], ["a"], ["b"])[0]))
    assert answers == [0.75, 0.25]


def test_the_first_answer_stays_where_two_processes_give_one_each(tmp_path: Path):
    one, other = AnswerStore(tmp_path / "c"), AnswerStore(tmp_path / "c")
    key = bytes(KEY_BYTES)
    one.put({key: np.array([0.25])})
    other.put({key: np.array([0.75])})
    assert one.get([key])[key] == other.get([key])[key] == [0.25]


@pytest.mark.parametrize("judge", [PairJudge(), CircleJudge()])
def test_empty_questions_touch_nothing(tmp_path: Path, judge: Judge):
    cached = Cached(judge, tmp_path / "c")
    assert cached.pair_win_prob([], [], []).shape == (0,)
    assert cached.group_win_prob([], []).shape == (0, 0, 0)
    assert len(cached.relays[0].store) == 0  # type: ignore[attr-defined]
