"""What a spec says is put around a judge: every kind takes it, in the right order, and mistakes are known early."""

import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest

from magnetar.errors import JudgeError, MagnetarError
from magnetar.judges import (
    JUDGE_KINDS,
    CombinedJudge,
    MatrixJudge,
    PointwiseJudge,
    Symmetrized,
    build_judge,
    parse_judge_spec,
)
from magnetar.judges.wrappers.cache import _KeptAnswers
from magnetar.judges.wrappers.options import WRAPPER_OPTIONS
from magnetar.judges.wrappers.pace import _Calls, _TokenBucket
from magnetar.judges.wrappers.record import _Recorder
from magnetar.judges.wrappers.relay import RelayedJudge

CYCLE = {"responses": ["a", "b", "c"], "win_prob": [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]}
MODULE = """
calls = []


def pairs(prompts, first, second):
    calls.append(len(prompts))
    return [0.5 + 0.02 * (len(a) - len(b)) + 0.1 for a, b in zip(first, second)]


def score(prompts, responses):
    calls.append(len(prompts))
    return [-float(len(text)) for text in responses]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a table and a module of judges."""
    (tmp_path / "cycle.json").write_text(json.dumps(CYCLE))
    (tmp_path / "wrapped_judges.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("wrapped_judges", None)
    return tmp_path


def calls() -> list[int]:
    return sys.modules["wrapped_judges"].calls


def kept(path: str) -> int:
    connection = sqlite3.connect(path)
    count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
    connection.close()
    return count


def test_both_orders_record_cache_calls_rate_from_the_outside_in():
    judge = build_judge(
        "python:wrapped_judges:pairs", cache="c", record="r", requests_per_minute=6000, questions_per_call=4
    )
    assert isinstance(judge, Symmetrized)
    inner = judge.judge
    assert isinstance(inner, RelayedJudge)
    assert [type(relay) for relay in inner.relays] == [_Recorder, _KeptAnswers, _Calls, _TokenBucket]
    plain = build_judge("python:wrapped_judges:pairs")
    groups = [["a", "bb", "cccc"]]
    expected = plain.group_win_prob(["p"], groups)
    calls().clear()
    np.testing.assert_array_equal(judge.group_win_prob(["p"], groups), expected)
    assert (calls(), kept("c")) == ([4, 2], 6)
    np.testing.assert_array_equal(judge.group_win_prob(["p"], groups), expected)
    assert calls() == [4, 2]
    assert len(Path("r").read_text().splitlines()) == 1 + 6 + 6
    assert judge.identity() == plain.identity()
    replayed = build_judge("replay:r")
    np.testing.assert_array_equal(replayed.group_win_prob(["p"], groups), expected)
    assert replayed.stats()["flip_rate"] == plain.stats()["flip_rate"] > 0


def test_options_of_a_mapping_and_of_a_call_mean_the_same_for_every_kind(folder: Path):
    for spec in (
        {"kind": "matrix", "file": "cycle.json"},
        {"kind": "python", "function": "wrapped_judges:score"},
        {"kind": "python:wrapped_judges:pairs", "symmetrize": False},
    ):
        name = spec["kind"].replace(":", "-") + str(len(spec))
        judge = build_judge(spec | {"cache": f"{name}.sqlite"}, questions_per_call=1)
        assert [type(relay) for relay in judge.relays] == [_KeptAnswers, _Calls]  # type: ignore[attr-defined]
        judge.pair_win_prob(["p"], ["a"], ["b"])
        assert kept(f"{name}.sqlite") == (2 if isinstance(judge, PointwiseJudge) else 1)
        assert parse_judge_spec(spec, cache="x") == parse_judge_spec(spec | {"cache": "x"})
        checked = parse_judge_spec(spec, cache="x")
        assert build_judge(checked).identity() == build_judge(spec).identity()
        assert Path("x").exists(), "a checked spec keeps what is to be put around"
        Path("x").unlink()


def test_built_judges_and_functions_take_them_too():
    table = MatrixJudge(CYCLE["responses"], CYCLE["win_prob"])
    assert build_judge(table) is table
    build_judge(table, cache="c").pair_win_prob(["p"], ["a"], ["b"])
    build_judge(lambda prompts, responses: [1.0] * len(responses), cache="c").pair_win_prob(["p"], ["a"], ["b"])
    assert kept("c") == 1 + 2
    with pytest.raises(JudgeError, match=r"options \['temperature'\] have no effect on a judge that is already built"):
        build_judge(table, cache="c", temperature=2.0)


def test_an_option_that_is_none_is_not_given():
    options = dict.fromkeys(WRAPPER_OPTIONS)
    assert isinstance(build_judge("matrix:cycle.json", **options), MatrixJudge)


@pytest.mark.parametrize("kind", sorted(JUDGE_KINDS))
def test_no_kind_has_lost_an_option_to_the_wrappers(kind: str):
    # What a kind calls its own it must deal with itself; only these do.
    own = {"panel": WRAPPER_OPTIONS, "llm": frozenset({"requests_per_minute"})}
    assert JUDGE_KINDS[kind].options & WRAPPER_OPTIONS == own.get(kind, frozenset())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "."}, "judge 'matrix:cycle.json': the cache .* is a folder"),
        ({"record": "cycle.json/deeper"}, r"the record .* cannot lie in .*cycle.json', which is a file"),
        ({"cache": 3}, "cache = 3, expected the path of a file"),
        ({"cache": ""}, "cache = '', expected the path of a file"),
        ({"requests_per_minute": 0}, "requests_per_minute = 0, expected a positive number"),
        ({"questions_per_call": 0}, "questions_per_call is 0, expected at least 1"),
        ({"cach": "c"}, "unknown option of judge 'matrix' 'cach'; did you mean 'cache'"),
    ],
)
def test_mistakes_are_known_before_anything_is_opened(folder: Path, options: dict, message: str):
    before = sorted(folder.iterdir())
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec("matrix:cycle.json", **options)
    with pytest.raises(JudgeError, match=message):
        build_judge("matrix:cycle.json", **options)
    parse_judge_spec("matrix:cycle.json", cache="new/folder/c", record="other/r")
    assert sorted(folder.iterdir()) == before


PANEL = {
    "kind": "panel",
    "judges": {
        "table": "matrix:cycle.json",
        "short": {"kind": "python", "function": "wrapped_judges:score", "temperature": 0.5},
    },
    "weights": {"table": 3, "short": 1},
}


def test_a_panel_is_written_as_a_mapping_of_specs():
    panel = build_judge(PANEL)
    assert isinstance(panel, CombinedJudge)
    win_prob = panel.pair_win_prob(["p"], ["a"], ["b"])[0]
    assert win_prob == pytest.approx(0.75 * 0.9 + 0.25 * 0.5)
    assert panel.stats()["table/comparisons"] == 1
    listed = build_judge("panel", judges=list(PANEL["judges"].values()), weights=[3, 1])
    assert listed.identity() == panel.identity()
    inner = build_judge({"kind": "panel", "judges": [PANEL, "matrix:cycle.json"], "rule": "majority"})
    assert inner.pair_win_prob(["p"], ["a"], ["b"])[0] == 1.0


def test_a_mapping_can_stand_in_a_file_or_be_json_text(folder: Path):
    (folder / "panel.json").write_text(json.dumps(PANEL))
    (folder / "panel.yaml").write_text(
        "kind: panel\nweights: {table: 3, short: 1}\njudges:\n  table: matrix:cycle.json\n"
        "  short: {kind: python, function: 'wrapped_judges:score', temperature: 0.5}\n"
    )
    identities = {build_judge(spec).identity() for spec in (PANEL, "panel.json", "panel.yaml", json.dumps(PANEL))}
    assert len(identities) == 1
    assert parse_judge_spec("panel.yaml", rule="majority").options["rule"] == "majority"
    (folder / "list.yaml").write_text("- panel\n")
    (folder / "bad.yaml").write_text("kind: [\n")
    for spec, message in {
        "missing.yaml": "the judge's file 'missing.yaml' cannot be read",
        "list.yaml": "'list.yaml' holds a list, expected a mapping with 'kind'",
        "bad.yaml": "'bad.yaml' cannot be read: while parsing",
        '{"kind": ': "cannot be read",
        '{"judges": []}': "has no 'kind'",
    }.items():
        with pytest.raises(JudgeError, match=message):
            parse_judge_spec(spec)


def test_what_is_put_around_a_panel_is_put_around_each_of_its_judges():
    panel = build_judge(PANEL, cache="c", record="r")
    expected = panel.group_win_prob(["p"], [["a", "b", "c"]])
    assert kept("c") == 3 + 3, "three pairs of the table, three scores of the function"
    calls().clear()
    # Other weights, another rule, one judge alone: the answers are found again.
    build_judge(PANEL, cache="c", rule="majority", weights=None).group_win_prob(["p"], [["a", "b", "c"]])
    build_judge("python:wrapped_judges:score", temperature=0.5, cache="c").group_win_prob(["p"], [["a", "b", "c"]])
    build_judge(build_judge(PANEL), cache="c").group_win_prob(["p"], [["a", "b", "c"]])
    assert (calls(), kept("c")) == ([], 6)
    members = {
        name: {"kind": "replay", "file": "r", "judge": spec}
        for name, spec in {"table": "matrix:cycle.json", "short": "python:wrapped_judges:score"}.items()
    }
    again = build_judge(PANEL | {"judges": members})
    np.testing.assert_array_equal(again.group_win_prob(["p"], [["a", "b", "c"]]), expected)
    own = build_judge(
        {"kind": "panel", "judges": ["matrix:cycle.json", {"kind": "matrix:cycle.json", "cache": "mine"}]},
        cache="theirs",
    )
    own.pair_win_prob(["p"], ["a"], ["b"])
    assert (kept("mine"), kept("theirs")) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judges": "matrix:cycle.json"}, "judges = 'matrix:cycle.json', expected a list of specs, or specs by name"),
        ({"judges": []}, "expected a list of specs"),
        ({"judges": ["matrix:cycle.json", "rewards:x"], "weights": None}, r"judges\[1\]: unknown judge 'rewards'"),
        ({"judges": ["matrix:cycle.json", 3], "weights": None}, r"judges\[1\]: a int cannot name a judge"),
        ({"judges": ["matrix:cycle.json"] * 2}, "weights by name need judges by name"),
        ({"weights": {"table": 1}}, "weights name .*'table'.* expected one weight for each"),
        ({"rule": "draw", "seed": -1}, "seed is -1"),
        ({"seed": 1}, "seed has no effect with the rule 'mean'"),
        ({"device": "cpu"}, "device is an option of the embedded panel"),
        ({"cache": "."}, "judge 'panel': the cache .* is a folder"),
    ],
)
def test_mistakes_in_a_panel_are_known_early_and_say_whose_they_are(change: dict, message: str):
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(PANEL | change)


@pytest.mark.parametrize("spec", [PANEL, "matrix:cycle.json", "python:wrapped_judges:score"])
def test_a_checked_spec_says_where_answers_are_kept_and_is_built_with_it(spec):  # type: ignore[no-untyped-def]
    checked = parse_judge_spec(spec, cache="c")
    assert checked.around == {"cache": "c"}
    build_judge(checked).pair_win_prob(["p"], ["a"], ["b"])
    assert kept("c") > 0


def test_settings_of_a_combination_need_judges():
    with pytest.raises(MagnetarError, match=r"rule has an effect only beside judges=\[...\]"):
        parse_judge_spec("panel", rule="majority")


def test_the_embedded_panel_stays_pointwise_in_its_cache():
    pytest.importorskip("textstat", reason="the extra `panel` is not installed")
    texts = ["Count sheep slowly in your bed until you fall asleep.", "Drink warm milk.", "No."]
    expected = build_judge("panel").group_win_prob(["How do I sleep?"], [texts])
    for responses in (3, None):
        panel = build_judge("panel", cache="c", record="r")
        assert isinstance(panel, PointwiseJudge)
        np.testing.assert_array_equal(panel.group_win_prob(["How do I sleep?"], [texts]), expected)
        assert panel.stats().get("inner_responses") == responses
    np.testing.assert_array_equal(build_judge("replay:r").group_win_prob(["How do I sleep?"], [texts]), expected)
