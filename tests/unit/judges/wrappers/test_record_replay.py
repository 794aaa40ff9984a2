"""What a judge answered is written down as it comes, and given again: the same answers, and no others."""

import json
import signal
import subprocess
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
    Recorded,
    ScalarJudge,
    Symmetrized,
    build_judge,
    parse_judge_spec,
    replay,
)
from magnetar.judges.comparisons import COMPARISONS, compare_by
from magnetar.judges.wrappers.relay import RelayedJudge

CHAT = [{"role": "user", "content": "what?"}]
PROMPTS = ["p", CHAT]
GROUPS = [["a", "bb", "\ud800 half", "a"], ["ünï\u2028", 'd"', "", "e\n"]]


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("plain", [PairJudge(), CircleJudge(), Symmetrized(PairJudge()), PairJudge(abstains=True)])
def test_a_replay_answers_all_kinds_of_questions_as_the_judge_did(tmp_path: Path, plain: Judge):
    path = tmp_path / "r.jsonl"
    judge = Recorded(plain, path)
    assert (judge.name, judge.identity()) == (plain.name, plain.identity())
    opponents = [["a?", "x"], ["e\n", "y"]]
    asked = [
        lambda judge: judge.group_win_prob(PROMPTS, GROUPS),
        lambda judge: judge.cross_win_prob(PROMPTS, GROUPS, opponents),
        lambda judge: judge.pair_win_prob(PROMPTS, ["s", "t"], ["u", "v"]),
    ]
    expected = [ask(plain) for ask in asked]
    for ask, answer in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(ask(judge), answer)
    again = replay(path)
    assert isinstance(again, PointwiseJudge) == isinstance(plain, PointwiseJudge)
    assert again.may_abstain == plain.may_abstain
    for ask, answer in zip(asked, expected, strict=True):
        np.testing.assert_array_equal(ask(again), answer)
    assert judge.stats()["recorded"] == len(lines_of(path)) - 1


def test_one_line_an_answer_with_the_question_for_people_to_read(tmp_path: Path):
    path = tmp_path / "new" / "r.jsonl"
    Recorded(PairJudge(), path).pair_win_prob(["p", CHAT], ["a", "ü"], ["x", "y"])
    header, *answers = lines_of(path)
    assert header["magnetar_record"] == 1
    assert (header["name"], header["identity"]) == ("pairs", PairJudge().identity())
    assert {answer.pop("judge") for answer in answers} == {header["judge"]}
    assert sorted(answers, key=lambda answer: answer["first"]) == [
        {"prompt": "p", "first": "a", "second": "x", "win_prob": pair_answer("p", "a", "x")},
        {"prompt": CHAT, "first": "ü", "second": "y", "win_prob": pair_answer(CHAT, "ü", "y")},
    ]
    assert "ü".encode() in path.read_bytes()
    Recorded(CircleJudge(), tmp_path / "s.jsonl").pair_win_prob(["p"], ["a"], ["b"])
    assert [(line["response"], line["features"]) for line in lines_of(tmp_path / "s.jsonl")[1:]] == [
        ("a", list(CircleJudge.place("p", "a"))),
        ("b", list(CircleJudge.place("p", "b"))),
    ]


def test_a_question_that_was_not_recorded_is_an_error_that_names_it(tmp_path: Path):
    Recorded(PairJudge(), tmp_path / "r").pair_win_prob(["p"], ["a"], ["b"])
    with pytest.raises(
        JudgeError, match="holds 1 answers but none to this question: prompt 'p', first 'b', second 'a'"
    ):
        replay(tmp_path / "r").pair_win_prob(["p", "p"], ["a", "b"], ["b", "a"])
    Recorded(CircleJudge(), tmp_path / "s").pair_win_prob(["p"], ["a"], ["b"])
    with pytest.raises(JudgeError, match="prompt 'p', response 'c'"):
        replay(tmp_path / "s").group_win_prob(["p"], [["a", "b", "c"]])


def test_lines_are_there_before_the_next_answer_comes(tmp_path: Path):
    path = tmp_path / "r"
    stream = Recorded(PairJudge(size=2), path).iter_pair_win_prob(["p"] * 5, list("abcde"), ["x"] * 5)
    assert [len(lines_of(path)) - 1 for _ in stream] == [2, 4, 5]
    with pytest.raises(RuntimeError, match="broke"):
        features(Recorded(CircleJudge(fails_after=7), tmp_path / "s"), ["p"] * 10, list("abcdefghij"))
    assert len(lines_of(tmp_path / "s")) == 1 + 6


def test_a_killed_run_keeps_its_record_and_the_next_one_goes_on_in_it(tmp_path: Path):
    path = tmp_path / "r"
    code = (
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from counting_judges import PairJudge\nfrom magnetar.judges import Recorded\n"
        "judge = Recorded(PairJudge(size=1, seconds=0.005), sys.argv[1])\n"
        "for index, _ in judge.iter_pair_win_prob(['p'] * 5000, [str(at) for at in range(5000)], ['x'] * 5000):\n"
        "    print(index[0], flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    seen += rest.split("\n")[:-1]
    path.write_bytes(path.read_bytes() + b'{"judge": "half a li')
    judge = replay(path)
    expected = [pair_answer("p", first, "x") for first in seen]
    np.testing.assert_array_equal(judge.pair_win_prob(["p"] * len(seen), seen, ["x"] * len(seen)), expected)
    assert judge.stats()["dropped_lines"] == 1
    assert "dropped_lines" not in judge.stats()
    Recorded(PairJudge(), path).pair_win_prob(["p"], ["later"], ["x"])
    judge = replay(path)
    np.testing.assert_array_equal(
        judge.pair_win_prob(["p"] * (len(seen) + 1), [*seen, "later"], ["x"] * (len(seen) + 1)),
        [*expected, pair_answer("p", "later", "x")],
    )
    assert judge.stats()["dropped_lines"] == 1


@pytest.mark.parametrize("left", [b'{"magnetar_rec', b"{", b"\xff\xfe"])
def test_what_a_killed_run_left_half_written_stays_a_line_of_its_own(tmp_path: Path, left: bytes):
    path = tmp_path / "r"
    path.write_bytes(left)
    Recorded(PairJudge(), path).pair_win_prob(["p"], ["a"], ["b"])
    assert path.read_bytes().startswith(left + b"\n{")
    parse_judge_spec(f"replay:{path}")
    judge = replay(path)
    assert judge.pair_win_prob(["p"], ["a"], ["b"])[0] == pair_answer("p", "a", "b")
    assert judge.stats()["dropped_lines"] == 1


def test_what_the_cache_answered_is_recorded_too(tmp_path: Path):
    options = {"cache": str(tmp_path / "c"), "record": str(tmp_path / "r")}
    build_judge(PairJudge(), **options).pair_win_prob(["p"], ["a"], ["x"])
    build_judge(PairJudge(), **options).pair_win_prob(["p"] * 2, ["a", "b"], ["x"] * 2)
    assert [line.get("first") for line in lines_of(tmp_path / "r")] == [None, "a", None, "a", "b"]
    inner = Cached(Recorded(PairJudge(), tmp_path / "only misses"), tmp_path / "c")
    inner.pair_win_prob(["p"] * 2, ["a", "c"], ["x"] * 2)
    assert [line.get("first") for line in lines_of(tmp_path / "only misses")] == [None, "c"]


def test_a_judge_asked_in_both_orders_is_replayed_in_both_orders(tmp_path: Path):
    path = tmp_path / "r"
    judge = build_judge(Symmetrized(PairJudge()), record=str(path))
    expected = judge.group_win_prob(["p"], [["a", "b", "c"]])
    stats = judge.stats()
    assert len(lines_of(path)) == 1 + 6
    again = replay(path)
    assert isinstance(again, Symmetrized)
    np.testing.assert_array_equal(
        again.group_win_prob(["p"], [["c", "a", "b"]])[0], expected[0][[2, 0, 1]][:, [2, 0, 1]]
    )
    assert again.stats()["flip_rate"] == stats["flip_rate"]
    raw = replay(path, symmetrize=False)
    assert raw.pair_win_prob(["p"], ["a"], ["b"])[0] == pair_answer("p", "a", "b")


def test_several_judges_in_one_file_are_told_apart(tmp_path: Path):
    path = tmp_path / "r"
    for version in (0, 1):
        Recorded(PairJudge(version=version), path).pair_win_prob(["p"], ["a"], [f"{version}"])
    Recorded(CircleJudge(), path).pair_win_prob(["p"], ["a"], ["b"])
    ids = [line["judge"] for line in lines_of(path) if "magnetar_record" in line]
    assert len(set(ids)) == 3
    with pytest.raises(JudgeError, match=r"holds several judges: .*say which by judge="):
        replay(path)
    with pytest.raises(JudgeError, match="unknown recorded judge 'nobody'"):
        replay(path, judge="nobody")
    for version in (0, 1):
        answer = replay(path, judge=ids[version]).pair_win_prob(["p"], ["a"], [f"{version}"])
        assert answer[0] == pair_answer("p", "a", f"{version}")
        with pytest.raises(JudgeError, match="none to this question"):
            replay(path, judge=ids[version]).pair_win_prob(["p"], ["a"], [f"{1 - version}"])
    assert isinstance(build_judge(f"replay:{path}", judge="circle"), PointwiseJudge)


def test_a_question_answered_twice_is_replayed_with_the_later_answer(tmp_path: Path):
    path = tmp_path / "r"
    Recorded(PairJudge(), path).pair_win_prob(["p"], ["a"], ["b"])
    line = lines_of(path)[-1]
    with path.open("a") as file:
        file.write(json.dumps(line | {"win_prob": 0.125}) + "\n")
    assert replay(path).pair_win_prob(["p"], ["a"], ["b"])[0] == 0.125


def test_a_comparison_without_a_name_is_recorded_pair_by_pair(tmp_path: Path):
    class Squared(ScalarJudge):
        """Inherits Bradley and Terry's name, but compares otherwise."""

        name = "squared"

        def compare(self, first, second):  # type: ignore[no-untyped-def]
            return np.asarray(
                super().compare(first, second) ** 2
                / (1 - 2 * super().compare(first, second) * super().compare(second, first))
            )

        def _scores(self, prompts, responses):  # type: ignore[no-untyped-def]
            return [float(len(text)) for text in responses]

    for plain in (CircleJudge(named=False), Squared()):
        judge = Recorded(plain, tmp_path / plain.name)
        assert isinstance(judge, RelayedJudge)
        expected = plain.group_win_prob(["p"], [["a", "bb", "cccc"]])
        np.testing.assert_allclose(judge.group_win_prob(["p"], [["a", "bb", "cccc"]]), expected, atol=1e-15)
        again = replay(tmp_path / plain.name)
        np.testing.assert_allclose(again.group_win_prob(["p"], [["a", "bb", "cccc"]]), expected, atol=1e-15)


def test_replays_of_equal_answers_have_one_identity(tmp_path: Path):
    for name, texts in {"one": "abc", "two": "cab", "other": "abd"}.items():
        Recorded(PairJudge(), tmp_path / name).pair_win_prob(["p"] * 3, list(texts), ["x"] * 3)
    one, two, other = (replay(tmp_path / name).identity() for name in ("one", "two", "other"))
    assert one == two != other


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no record"),
        ("", "not a record of a judge's answers"),
        ('{"prompt": "p", "chosen": "a"}\n', "not a record of a judge's answers"),
        ('{"magnetar_record": 2}\n', "the record is of version 2, expected 1; upgrade magnetar"),
        ('{"magnetar_record": 1}\n', "does not say who answers"),
    ],
)
def test_a_file_that_is_no_record_is_refused_before_any_long_work(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(f"replay:{path}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"win_prob": 1.5}, r"line 2: \[1.5\], expected a win probability in \[0, 1\]"),
        ({"win_prob": None}, r"line 2: \[nan\], expected a win probability"),
        ({"win_prob": "high"}, "line 2, is not a recorded answer"),
        ({"first": None}, "line 2, is not a recorded answer"),
    ],
)
def test_a_line_that_was_tampered_with_is_named(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "r"
    Recorded(PairJudge(), path).pair_win_prob(["p"], ["a"], ["b"])
    header, line = lines_of(path)
    path.write_text("".join(json.dumps(part) + "\n" for part in (header, line | change)))
    with pytest.raises(JudgeError, match=message):
        replay(path)


def test_a_record_that_cannot_be_written_is_one_clear_error(tmp_path: Path):
    with pytest.raises(JudgeError, match=r"record .* is a folder"):
        Recorded(PairJudge(), tmp_path)
    judge = Recorded(PairJudge(), tmp_path / "r")
    (tmp_path / "r").mkdir()
    with pytest.raises(JudgeError, match=r"cannot be written: .*; free space on its disk"):
        judge.pair_win_prob(["p"], ["a"], ["b"])


def test_a_full_disk_stops_the_record_with_one_clear_error():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full, which refuses every write")
    with pytest.raises(JudgeError, match="No space left on device; free space"):
        Recorded(PairJudge(), "/dev/full").pair_win_prob(["p"], ["a"], ["b"])


@pytest.mark.parametrize("rule", sorted(COMPARISONS))
def test_named_comparisons_are_antisymmetric(rule: str):
    settings = {"bradley_terry": {"temperature": 0.7}, "general": {"temperature": 0.7}, "vote": {"same_score": 0.1}}
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 50, 4))
    comparison = {"rule": rule, **settings[rule]}
    forward, backward = compare_by(comparison, first, second), compare_by(comparison, second, first)
    np.testing.assert_allclose(forward + backward, 1.0, atol=1e-12)
    assert np.ptp(forward) > 0.3


def test_a_comparison_that_is_not_known_is_refused():
    one = np.zeros((1, 2))
    with pytest.raises(JudgeError, match="unknown comparison of features 'votes'; did you mean 'vote'"):
        compare_by({"rule": "votes"}, one, one)
    with pytest.raises(JudgeError, match="does not take the settings"):
        compare_by({"rule": "vote", "temperature": 1.0}, one, one)
