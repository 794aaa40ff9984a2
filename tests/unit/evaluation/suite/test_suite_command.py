"""`magnetar eval --config`: what it prints and writes, and that mistakes are told before any long work."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from magnetar.cli.main import main
from magnetar.evaluation import MatchupSummary
from magnetar.evaluation.suite import read_suite
from unit.evaluation.suite.conftest import write_answers, write_lines


def run(world: dict[str, Any], *flags: str, **changes: Any) -> int:
    Path("suite.yaml").write_text(yaml.safe_dump(world | changes))
    return main(["eval", "--config", "suite.yaml", "--quiet", *flags])


def test_the_command_writes_figures_tables_and_a_page(
    world: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    world["judges"]["cost"] = {"judge": "python:suite_judges:letters", "ask": ["costs", "matchups"]}
    assert run(world, tournament=True) == 0
    printed = capsys.readouterr()
    result = read_suite(Path("out"))
    assert {(one.judge, one.policy, one.opponent) for one in result.matchups} == {
        ("longer", "MPO", "SFT"),
        ("cost", "MPO", "SFT"),
    }
    rate = result.matchups[0].win_rate
    assert f"{rate.value:.1%} [" in printed.out and "Match-ups by category" in printed.out
    for name in ("Policies", "Match-ups", "Costs", "Tournament under judge longer"):
        assert name in printed.out and name in Path("out/suite.md").read_text()
    with Path("out/tables/matchups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["win rate"]) == rate.value and float(rows[0]["win rate low"]) == rate.low
    assert float(rows[0]["ties"]) == result.matchups[0].ties
    assert "<html" in Path("out/report.html").read_text()
    assert "page: out/report.html" in printed.err and "in both orders" in printed.err
    assert len(result.samples) == 18 and set(result.samples[0].responses) == {"SFT", "MPO"}
    sample = result.samples[0]
    mine, other = sample.responses["MPO"], sample.responses["SFT"]
    expected = 0.5 + 0.3 * ((len(mine) > len(other)) - (len(mine) < len(other)))
    assert sample.win_prob["longer"]["MPO"]["SFT"] == pytest.approx(expected)
    assert result.settings["sampling"]["responses"] == 2 and "magnetar" in result.versions


def test_flags_win_over_the_file(world: dict[str, Any], prompts: list[str]) -> None:
    write_answers(Path("part.jsonl"), prompts[:10], lambda at: "yy", 2)
    world["policies"]["part"] = "file:part.jsonl"
    assert run(world) == 2
    assert run(world, "--missing", "skip", "--output_dir", "elsewhere") == 0
    assert read_suite(Path("elsewhere")).prompts is not None and not Path("out/suite.json").exists()


def test_a_stopped_evaluation_says_how_to_go_on(
    world: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnetar.evaluation.asking.PROMPTS_AT_ONCE", 4)
    import suite_judges  # type: ignore[import-not-found]

    suite_judges.LIMIT.extend((5, KeyboardInterrupt))
    assert run(world) == 130
    assert "stopped; answers of policies and judges are kept, repeat the command to go on" in capsys.readouterr().err
    asked = len(suite_judges.ASKED)
    suite_judges.LIMIT.clear()
    assert run(world) == 0 and asked > 0
    assert len(suite_judges.ASKED) == len(set(suite_judges.ASKED)), "nothing was asked twice"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polices": {}}, "unknown field 'polices'; did you mean 'policies'"),
        ({"policies": {}}, "policies is missing"),
        ({"policies": {"A": "file:absent.jsonl"}}, "policies: A: no file 'absent.jsonl'"),
        ({"policies": {"A": []}}, "A is an empty list"),
        ({"policies": {"A": 3}}, "policies: A: 3 is no specification"),
        ({"reference": "STF"}, "reference: unknown policy 'STF'; did you mean 'SFT'"),
        ({"judges": {"j": "panle"}}, "judges: j: unknown judge 'panle'; did you mean 'panel'"),
        ({"judges": {"j": {"judge": "panel", "aks": "costs"}}}, "judges: j: unknown key 'aks'; did you mean 'ask'"),
        ({"judges": {"j": {"judge": "panel", "ask": ["cost"]}}}, "unknown question 'cost'; did you mean 'costs'"),
        ({"judges": {"j": {"judge": "panel", "ask": ["costs"]}}}, "has no costs"),
        ({"prompts": {"split": "test"}}, "prompts: dataset is missing"),
        ({"prompts": "absent.jsonl"}, "absent.jsonl"),
        ({"prompts": {"dataset": "prompts.jsonl", "limit": 0}}, "prompts: limit is 0, expected at least 1"),
        ({"prompts": {"dataset": "prompts.jsonl", "categories": "need"}}, "prompts: categories: unknown value 'need'"),
        ({"sampling": {"temprature": 1}}, "sampling: unknown key 'temprature'; did you mean 'temperature'"),
        ({"sampling": {"temperature": "hot"}}, "sampling: temperature is 'hot', expected a number"),
        ({"sampling": {"temperature": 0}}, "temperature = 0"),
        ({"matchups": "every"}, "matchups: unknown value 'every'"),
        ({"matchups": [["MPO", "SFT"], ["MPO", "PPO"]]}, "matchups: unknown policy 'PPO'"),
        ({"matchups": [["MPO", "MPO"]]}, "'MPO' against itself"),
        ({"matchups": "against_reference", "reference": None}, "there is no reference"),
        ({"tournament": {"policies": ["MPO"]}}, "one player alone"),
        ({"tournament": {"runs": {"r": "nowhere"}}}, "no folder 'nowhere'"),
        ({"tournament": {"runs": {"r": "."}}}, "holds no policy"),
        ({"tournament": {"judges": ["cost"]}}, "tournament: unknown judge 'cost'"),
        ({"missing": "ignore"}, "missing: unknown value 'ignore'"),
        ({"intervals": {"bootstrap": 5}}, "intervals: bootstrap is 5, expected at least 100"),
        ({"intervals": {"confidence": 95}}, "intervals: confidence is 95"),
        ({"length_control": "yes please"}, "length_control is 'yes please', expected true or false"),
        ({"output_dir": "/proc/nowhere"}, "cannot write to '/proc/nowhere'"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anybody_answers(
    world: dict[str, Any],
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("magnetar.evaluation.suite.run.answer_prompts", never)
    assert run(world, **changes) == 2
    error = capsys.readouterr().err
    assert error.startswith("magnetar eval: ") and message in error and "Traceback" not in error
    assert error.count("\n") == 1


def test_a_missing_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--config", "nowhere.yaml"]) == 2
    assert "config file nowhere.yaml does not exist" in capsys.readouterr().err


def test_two_policies_can_be_compared_in_both_orders_by_category(
    world: dict[str, Any], prompts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_answers(Path("part.jsonl"), prompts[:15], lambda at: "y" * (at % 5 + 1))
    arguments = ["eval", "--policy", "file:part.jsonl", "--opponent", "file:sft.jsonl", "--dataset", "prompts.jsonl"]
    arguments += ["--judge", "python:suite_judges:longer", "--json", "eval.json"]
    assert main([*arguments, "--swap", "--categories"]) == 2
    assert "too few answers for 3 of 18 prompts" in capsys.readouterr().err
    assert main([*arguments, "--swap", "--categories", "even", "--missing", "skip"]) == 0
    printed = capsys.readouterr()
    assert "2 of 12 prompts are left out" in printed.err
    summary = MatchupSummary.from_dict(json.loads(Path("eval.json").read_text()))
    assert summary.prompts == 10 and list(summary.categories) == ["even"]
    assert summary.orders is not None and summary.length_controlled is not None
    assert summary.orders.first_place.value == pytest.approx(0.6, abs=0.05), "the judge favours the first by 0.1"
    assert summary.win_rate.value == pytest.approx((summary.orders.shown_first + summary.orders.shown_second) / 2.0)
    assert f"the first place wins {summary.orders.first_place.value:.1%}" in printed.out
    assert f"at equal length: {summary.length_controlled.value:.1%}" in printed.out
    write_lines(Path("plain.jsonl"), [{"prompt": prompt} for prompt in prompts])
    arguments[arguments.index("prompts.jsonl")] = "plain.jsonl"
    assert main([*arguments, "--categories"]) == 2
    assert "plain.jsonl has no column 'category'" in capsys.readouterr().err
