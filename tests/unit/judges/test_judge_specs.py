"""Specs, functions and tables: one string names a judge, and what is wrong with it is known without a model."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from magnetar.errors import JudgeError, MissingDependencyError
from magnetar.judges import (
    FunctionJudge,
    MatrixJudge,
    ScoreFunctionJudge,
    Symmetrized,
    build_judge,
    parse_judge_spec,
)
from magnetar.judges.kinds import panels

CYCLE = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]]


def longer_wins(prompts, first, second):
    return [1.0 if len(a) > len(b) else 0.0 for a, b in zip(first, second, strict=True)]


def count_letters(prompts, responses):
    return [float(len(text)) for text in responses]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's module in the working directory, as a console script would have to find it."""
    (tmp_path / "my_own_judges.py").write_text(
        "from magnetar.judges import MatrixJudge\n"
        "def pairs(prompts, first, second):\n    return [0.75] * len(prompts)\n"
        "def score(prompts, responses):\n    return [len(r) for r in responses]\n"
        "def three(prompts, responses):\n    return [1.0, 2.0, 3.0]\n"
        "def wrong(prompts):\n    return []\n"
        "table = MatrixJudge(['a'], [[0.5]])\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield "my_own_judges"
    sys.modules.pop("my_own_judges", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pannel", "unknown judge 'pannel'; did you mean 'panel'"),
        ("rewards:some/model", "did you mean 'reward'"),
        ("", "unknown judge ''"),
        ("reward", "'reward' needs a model; write reward:MODEL"),
        ("matrix:", "'matrix' needs a file"),
        ("panel:big", "'panel' takes nothing behind a colon"),
        ("matrix:missing.json", "there is no file 'missing.json'"),
        ("reward:./no/such/folder", "there is no such folder"),
        ("reward:not a name!", "neither a folder nor a hub name"),
        ("python:json", "not of the form python:package.module:function"),
        ("python:no_such_module:f", "importing 'no_such_module' failed"),
        ("python:json:no_such_function", "module 'json' has no 'no_such_function'"),
        ("python:json:JSONDecoder", "names a type"),
    ],
)
def test_a_wrong_spec_is_one_clear_error(text: str, message: str):
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(text)
    with pytest.raises(JudgeError, match=message):
        build_judge(text)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"model": "m"}, "no 'kind'"),
        ({"kind": "reward", "model": "m", "temprature": 2.0}, "did you mean 'temperature'"),
        ({"kind": "reward", "model": "m", "temperature": 0.0}, "temperature = 0.0, expected a positive number"),
        ({"kind": "reward", "model": "m", "temperature": "hot"}, "temperature = 'hot', expected a number"),
        ({"kind": "reward", "model": 3}, "model = 3 is a int, expected text"),
        ({"kind": "pairwise", "model": "m", "template": "{prompt} {first}"}, r"fields \['first', 'prompt'\]"),
        ({"kind": "pairwise", "model": "m", "symmetrize": "no"}, "expected true or false"),
        ({"kind": "pairwise", "model": "m", "max_length": 1.5}, "max_length = 1.5"),
        ({"kind": "matrix", "file": "x.json", "temperature": 1.0}, "unknown option of judge 'matrix'"),
    ],
)
def test_a_wrong_mapping_is_one_clear_error(mapping: dict, message: str):
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(mapping)


def test_a_spec_and_its_mapping_mean_the_same():
    from_text = parse_judge_spec("reward:some/model", temperature=2.0)
    from_mapping = parse_judge_spec({"kind": "reward", "model": "some/model", "temperature": 2.0})
    assert from_text == from_mapping == parse_judge_spec({"kind": "reward:some/model", "temperature": 2.0})
    assert str(from_text) == "reward:some/model"
    assert parse_judge_spec({"kind": "cost", "model": "m", "temperature": 1.0}, temperature=3.0).options == {
        "temperature": 3.0
    }


def test_importing_the_judges_loads_no_transformers():
    code = "import sys, magnetar.judges; print('transformers' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_a_missing_package_of_the_panel_names_the_extra(monkeypatch):
    monkeypatch.setattr(panels, "PANEL_PACKAGES", ("numpy", "a_package_that_is_not_there"))
    with pytest.raises(
        MissingDependencyError, match=r'needs a_package_that_is_not_there.*pip install "magnetar\[panel\]"'
    ):
        parse_judge_spec("panel")


def test_functions_are_judges_by_their_signature():
    pairs = build_judge(longer_wins, symmetrize=False)
    assert isinstance(pairs, FunctionJudge)
    np.testing.assert_array_equal(pairs.pair_win_prob(["p", "p"], ["aa", "b"], ["b", "cc"]), [1.0, 0.0])
    scores = build_judge(count_letters, temperature=2.0)
    assert isinstance(scores, ScoreFunctionJudge)
    assert scores.pair_win_prob(["p"], ["aaa"], ["b"])[0] == pytest.approx(1 / (1 + np.exp(-1.0)))
    assert isinstance(build_judge(longer_wins), Symmetrized)
    assert build_judge(pairs) is pairs


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lambda prompts: [], {}, r"has the signature \(prompts\), expected \(prompts, first, second\)"),
        (lambda responses: [], {}, r"expected \(prompts, responses\) -> scores"),
        (longer_wins, {"temperature": 2.0}, "temperature = 2.0 has no effect"),
        (count_letters, {"temperature": -1.0}, "temperature = -1.0"),
        (count_letters, {"temperatur": 1.0}, "did you mean 'temperature'"),
        (3, {}, "a int cannot name a judge"),
    ],
)
def test_a_function_of_another_form_is_refused(function, options, message):
    with pytest.raises(JudgeError, match=message):
        build_judge(function, **options)


def test_wrong_answers_of_a_function_name_the_function():
    def seven(prompts, first, second):
        return [7.0] * len(prompts)

    with pytest.raises(JudgeError, match=r"seven' answered P\[0\] = 7.0"):
        build_judge(seven).pair_win_prob(["p"], ["a"], ["b"])
    with pytest.raises(JudgeError, match=r"returned an array of shape \(2,\), expected scores of shape \(4,\)"):
        build_judge(lambda prompts, responses: [1.0, 2.0]).group_win_prob(["p"], [list("abcd")])


def test_functions_are_imported_from_the_working_directory(module):
    judge = build_judge(f"python:{module}:pairs")
    assert judge.name == f"python:{module}:pairs"
    # The function always says 0.75 for the first: in both orders, which is no preference at all.
    assert judge.pair_win_prob(["p"], ["a"], ["b"])[0] == 0.5
    assert judge.stats()["flip_rate"] == 1.0
    one_order = build_judge(f"python:{module}:pairs", symmetrize=False)
    assert one_order.pair_win_prob(["p"], ["a"], ["b"])[0] == 0.75
    win_prob = build_judge({"kind": "python", "function": f"{module}:score", "temperature": 0.5}).group_win_prob(
        ["p"], [["aa", "b"]]
    )
    assert win_prob[0, 0, 1] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert isinstance(build_judge(f"python:{module}:table"), MatrixJudge)
    with pytest.raises(JudgeError, match="names a int, expected a function or a Judge"):
        parse_judge_spec(f"python:{module}:number")
    with pytest.raises(JudgeError, match=r"python:my_own_judges:wrong has the signature \(prompts\)"):
        parse_judge_spec(f"python:{module}:wrong")
    with pytest.raises(JudgeError, match="'python:my_own_judges:three' returned an array of shape"):
        build_judge(f"python:{module}:three").group_win_prob(["p"], [["a", "b"]])


def test_a_table_answers_by_text():
    judge = MatrixJudge(["rock", "paper", "scissors"], CYCLE)
    win_prob = judge.group_win_prob(["p", "q"], [["paper", "rock"], ["scissors", "scissors"]])
    np.testing.assert_array_equal(win_prob, [[[0.5, 0.1], [0.9, 0.5]], [[0.5, 0.5], [0.5, 0.5]]])
    assert judge.pair_win_prob(["p"], ["rock"], ["scissors"])[0] == 0.2
    np.testing.assert_array_equal(judge.cross_win_prob(["p"], [["rock", "paper"]], [["scissors"]]), [[[0.2], [0.8]]])


def test_a_table_never_guesses():
    with pytest.raises(JudgeError, match="does not know the response 'well'"):
        MatrixJudge(["rock", "paper", "scissors"], CYCLE).group_win_prob(["p"], [["rock", "well"]])


@pytest.mark.parametrize(
    ("responses", "win_prob", "message"),
    [
        (["a", "a"], [[0.5, 0.5], [0.5, 0.5]], "lists the response 'a' twice"),
        (["a", "b"], [[0.5, 0.7], [0.6, 0.5]], r"P\[0, 1\] \+ P\[1, 0\] = 1.3"),
        (["a", "b"], [[0.5, 1.7], [-0.7, 0.5]], r"P\[0, 1\] = 1.7.*first 'a', second 'b'"),
        (["a", "b"], [[0.6, 0.5], [0.5, 0.5]], r"P\[0, 0\] \+ P\[0, 0\] = 1.2"),
        (["a", "b"], [[0.5]], r"shape \(1, 1\), expected win probabilities of shape \(2, 2\)"),
    ],
)
def test_a_table_is_validated(responses, win_prob, message):
    with pytest.raises(JudgeError, match=message):
        MatrixJudge(responses, win_prob)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".csv"])
def test_a_table_is_read_from_a_file(tmp_path: Path, suffix: str):
    file = tmp_path / f"table{suffix}"
    responses = ["rock", "paper, wet", "scissors\n"]
    if suffix == ".json":
        file.write_text(json.dumps({"responses": responses, "win_prob": CYCLE}))
    elif suffix == ".npz":
        np.savez(file, responses=np.array(responses), win_prob=np.array(CYCLE))
    else:
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows(
                [["", *responses], *([r, *row] for r, row in zip(responses, CYCLE, strict=True))]
            )
    judge = build_judge(f"matrix:{file}")
    np.testing.assert_array_equal(judge.group_win_prob(["p"], [responses])[0], CYCLE)
    assert judge.name == f"matrix:{file}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read"),
        ("a.json", "[1]", "holds a list, not an object"),
        ("a.json", '{"responses": ["a"]}', "KeyError: 'win_prob'"),
        ("a.json", '{"responses": "ab", "win_prob": [[0.5]]}', "not a list of texts"),
        ("a.json", '{"responses": ["a", "b"], "win_prob": [[0.5], [0.5, 0.5]]}', "not an array of numbers"),
        ("a.csv", ",a,b\nb,0.5,0.5\na,0.5,0.5\n", "does not repeat the responses"),
        ("a.txt", "", "not a known kind of file"),
    ],
)
def test_a_broken_table_is_one_clear_error_before_any_model(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec(f"matrix:{tmp_path / name}")


def test_a_table_answers_a_large_group_without_asking_pair_by_pair(monkeypatch):
    size = 400
    names = [f"response {i}" for i in range(size)]
    judge = MatrixJudge(names, np.full((size, size), 0.5))
    monkeypatch.setattr(MatrixJudge, "_pair_win_prob", None)  # 640,000 pairs of texts would take seconds
    assert judge.group_win_prob(["p"] * 8, [names] * 8).shape == (8, size, size)
