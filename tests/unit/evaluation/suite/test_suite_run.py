"""A whole suite: its figures against those computed by hand, and what happens when it is interrupted or changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnetar.errors import DataError, MagnetarError
from magnetar.evaluation import Estimate
from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.evaluation.intervals import bca_interval
from magnetar.evaluation.suite import AttackRecord, PolicyRecord, merge_section, read_suite
from magnetar.evaluation.suite.config import PolicyConfig, SuiteConfig
from magnetar.evaluation.suite.entrants import policy_record
from magnetar.evaluation.suite.run import evaluate_suite
from unit.evaluation.suite.conftest import read_answers, write_answers

pytestmark = pytest.mark.usefixtures("world")


def measure(world: dict[str, Any], **changes: Any) -> Any:
    told: list[str] = []
    result = evaluate_suite(SuiteConfig.from_dict(world | changes), tell=told.append, progress=False)
    measure.told = told  # type: ignore[attr-defined]
    return result


def longer_wins(first: list[list[str]], second: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What the judge says of each pair when the first side is shown first, and when it is shown second."""
    difference = np.array(
        [[[np.sign(len(a) - len(b)) for b in theirs] for a in mine] for mine, theirs in zip(first, second, strict=True)]
    )
    return 0.6 + 0.3 * difference, 1.0 - (0.6 - 0.3 * difference)


def test_a_match_up_of_single_runs_is_the_mean_of_both_orders(world: dict[str, Any]) -> None:
    policies = {"SFT": "file:sft.jsonl", "MPO": "file:mpo-seed0.jsonl"}
    (found,) = measure(world, policies=policies, length_control=False).matchups
    first, second = longer_wins(read_answers(Path("mpo-seed0.jsonl")), read_answers(Path("sft.jsonl")))
    same = np.abs(first - 0.6) < 1e-9
    # Equal responses are a tie in either order, and are not asked about.
    texts = read_answers(Path("mpo-seed0.jsonl")), read_answers(Path("sft.jsonl"))
    equal = np.array([[[a == b for b in y] for a in x] for x, y in zip(*texts, strict=True)])
    assert (same == equal).all()
    first, second = np.where(equal, 0.5, first), np.where(equal, 0.5, second)
    rate_B = ((first + second) / 2.0).mean((1, 2))
    low, high = bca_interval(rate_B, resamples=2000, confidence=0.95, seed=0)
    assert (found.win_rate.value, found.win_rate.low, found.win_rate.high) == pytest.approx((rate_B.mean(), low, high))
    assert found.win_rate.method == "bca"
    mean = (first + second) / 2.0
    assert found.wins == pytest.approx((mean > 0.5 + 1e-9).mean()) and found.losses == pytest.approx(
        (mean < 0.5 - 1e-9).mean()
    )
    assert found.wins + found.ties + found.losses == pytest.approx(1.0)
    assert found.comparisons == 18 * 4 and found.masked == 0 and found.length_controlled is None
    assert found.orders.shown_first == pytest.approx(first.mean())
    assert found.orders.shown_second == pytest.approx(second.mean())
    assert found.orders.first_place.value == pytest.approx(((first + 1.0 - second) / 2.0).mean())
    assert found.orders.flip_rate == 0.0
    assert {name: part.prompts for name, part in found.categories.items()} == {"even": 12, "third": 6}
    assert found.categories["third"].win_rate.value == pytest.approx(rate_B[::3].mean())


def test_seeds_are_drawn_as_prompts_are(world: dict[str, Any]) -> None:
    found = measure(world).matchups[0]
    sft = read_answers(Path("sft.jsonl"))
    rates = []
    for seed in (0, 1):
        mine = read_answers(Path(f"mpo-seed{seed}.jsonl"))
        equal = np.array([[[a == b for b in y] for a in x] for x, y in zip(mine, sft, strict=True)])
        rates.append(np.where(equal, 0.5, sum(longer_wins(mine, sft)) / 2.0).mean((1, 2)))
    expected = crossed_mean(np.array(rates)[:, None], bounds=(0.0, 1.0))
    assert (found.win_rate.value, found.win_rate.low, found.win_rate.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert found.win_rate.method == "crossed" and found.length_controlled.method == "crossed"
    assert read_suite(Path("out")).policies["MPO"].seeds == ("0", "1")


def test_costs_are_means_over_prompts_and_differences_are_paired(world: dict[str, Any]) -> None:
    world["policies"]["MPO"] = "file:mpo-seed1.jsonl"
    world["judges"] = {"cost": {"judge": "python:suite_judges:letters", "ask": ["costs"]}}
    result = measure(world)
    sft, mpo = (
        np.array([[len(text) - 5.0 for text in group] for group in read_answers(Path(f"{name}.jsonl"))])
        for name in ("sft", "mpo-seed1")
    )
    by_policy = {record.policy: record for record in result.costs}
    assert not result.matchups
    assert by_policy["MPO"].mean_cost.value == pytest.approx(mpo.mean())
    low, high = bca_interval(mpo.mean(1), resamples=2000, confidence=0.95, seed=0)
    assert (by_policy["MPO"].mean_cost.low, by_policy["MPO"].mean_cost.high) == pytest.approx((low, high))
    assert by_policy["MPO"].share_safe.value == pytest.approx((mpo < 0).mean())
    assert by_policy["MPO"].change.value == pytest.approx((mpo - sft).mean())
    low, high = bca_interval((mpo - sft).mean(1), resamples=2000, confidence=0.95, seed=0)
    assert (by_policy["MPO"].change.low, by_policy["MPO"].change.high) == pytest.approx((low, high))
    assert by_policy["MPO"].change_safe.value == pytest.approx((mpo < 0).mean() - (sft < 0).mean())
    assert by_policy["SFT"].change is None
    for name, cost in (("SFT", sft), ("MPO", mpo)):
        bins = by_policy[name].histogram
        assert bins.edges == by_policy["SFT"].histogram.edges and 0.0 in bins.edges and sum(bins.counts) == 36
        below = sum(count for edge, count in zip(bins.edges, bins.counts, strict=False) if edge < 0.0)
        assert below == (cost < 0).sum(), "the bins below zero hold the safe responses"
    assert by_policy["MPO"].categories["third"].mean_cost.value == pytest.approx(mpo[::3].mean())
    sample = result.samples[0]
    row = [f"prompt {number}" for number in range(18)].index(sample.prompt)
    assert sample.costs["cost"] == {"SFT": sft[row, 0], "MPO": mpo[row, 0]}


def test_rock_paper_scissors_has_no_winner(world: dict[str, Any], prompts: list[str]) -> None:
    for name in ("rock", "paper", "scissors"):
        write_answers(Path(f"{name}.jsonl"), prompts, lambda at, n=name: f"{n} {at}")
    changes = {
        "policies": {name: f"file:{name}.jsonl" for name in ("rock", "paper", "scissors")},
        "judges": {"rps": "python:suite_judges:rock"},
        "sampling": {},
        "reference": None,
        "tournament": True,
    }
    result = measure(world, **changes)
    (game,) = result.tournament
    assert game.names == ("rock", "paper", "scissors")
    assert np.array(game.win_rate) == pytest.approx(np.array([[0.5, 0.1, 0.9], [0.9, 0.5, 0.1], [0.1, 0.9, 0.5]]))
    assert list(game.nash.values()) == pytest.approx([1 / 3] * 3, abs=1e-9)
    assert list(game.in_support.values()) == [1.0] * 3
    assert [(one.policy, one.opponent) for one in result.matchups] == [
        ("paper", "rock"), ("scissors", "rock"), ("scissors", "paper")
    ]  # fmt: skip


def test_nothing_is_asked_twice(world: dict[str, Any]) -> None:
    import suite_judges  # type: ignore[import-not-found]

    first = measure(world)
    asked = len(suite_judges.ASKED)
    assert asked == len(set(suite_judges.ASKED)) > 0
    again = measure(world)
    assert len(suite_judges.ASKED) == asked and again.to_dict() == first.to_dict()
    world["policies"]["other"] = "file:mpo-seed0.jsonl"
    measure(world)
    assert len(suite_judges.ASKED) == asked, "the same responses under another name are known too"


def test_a_judge_that_fails_costs_only_what_was_open(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import suite_judges  # type: ignore[import-not-found]

    monkeypatch.setattr("magnetar.evaluation.asking.PROMPTS_AT_ONCE", 4)
    whole = measure(world, output_dir="whole")
    needed = len(suite_judges.ASKED)
    suite_judges.ASKED.clear()
    suite_judges.LIMIT.extend((needed // 2, RuntimeError))
    with pytest.raises(Exception, match="the connection is gone"):
        measure(world)
    assert needed // 2 <= len(suite_judges.ASKED) < needed
    suite_judges.LIMIT.clear()
    result = measure(world)
    assert len(suite_judges.ASKED) == len(set(suite_judges.ASKED)) == needed, "what was answered is not asked again"
    assert result.matchups == whole.matchups


def test_answers_that_are_missing_are_an_error_or_left_out_for_everybody(
    world: dict[str, Any], prompts: list[str]
) -> None:
    write_answers(Path("part.jsonl"), prompts[:15], lambda at: "y" * (at % 5 + 1), 2)
    world["policies"]["part"] = "file:part.jsonl"
    with pytest.raises(DataError, match=r"too few answers for 3 of 18 prompts.*missing=skip"):
        measure(world)
    result = measure(world, missing="skip")
    assert result.prompts.count == 15 and {one.prompts for one in result.matchups} == {15}
    assert any("part has no answer to 3 of 18 prompts" in note for note in result.notes)
    assert any("3 of 18" in line for line in measure.told)  # type: ignore[attr-defined]
    write_answers(Path("part.jsonl"), ["something else"], lambda at: "y", 2)
    with pytest.raises(DataError, match="none of the 18 prompts"):
        measure(world, missing="skip")


def test_categories_are_required_only_if_asked_for(world: dict[str, Any], prompts: list[str]) -> None:
    rows = [{"prompt": prompt} for prompt in prompts]
    Path("plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = measure(world, prompts={"dataset": "plain.jsonl"})
    assert not result.prompts.categories and not result.matchups[0].categories
    with pytest.raises(DataError, match=r"plain\.jsonl has no column 'category'"):
        measure(world, prompts={"dataset": "plain.jsonl", "categories": "required"})
    result = measure(world, prompts={"dataset": "prompts.jsonl", "categories": ["third"]})
    assert result.prompts.categories == {"third": 6}
    with pytest.raises(DataError, match="unknown category 'thrid'; did you mean 'third'"):
        measure(world, prompts={"dataset": "prompts.jsonl", "categories": ["thrid"]})


def test_sections_of_other_commands_stay_as_long_as_their_policies_do(world: dict[str, Any]) -> None:
    measure(world)
    rate = Estimate(0.6, 0.5, 0.7, 0.95, "bca")
    records = [AttackRecord("rot13", name, "outside", rate) for name in ("SFT", "MPO", "elsewhere")]
    merge_section(
        Path("out"),
        "attacks",
        records,
        policies={"elsewhere": PolicyRecord(("e",), "model")},
        judges={"outside": "cost:c"},
        settings={"seed": 1},
    )
    world["policies"]["MPO"] = "file:mpo-seed1.jsonl"
    result = measure(world)
    assert [record.policy for record in result.attacks] == ["SFT", "elsewhere"], "MPO is another policy now"
    assert "elsewhere" in result.policies and result.judges["outside"] == "cost:c"
    assert result.settings["attacks"] == {"seed": 1}


def test_figures_do_not_outlive_the_judge_or_the_answers_that_they_are_about(
    world: dict[str, Any], prompts: list[str]
) -> None:
    measure(world)
    rate = Estimate(0.6, 0.5, 0.7, 0.95, "bca")

    def attacked() -> list[tuple[str, str]]:
        return [(one.policy, one.judge) for one in read_suite(Path("out")).attacks]

    def merge(**judges: str) -> None:
        records = [AttackRecord("rot13", name, judge, rate) for name in ("SFT", "MPO") for judge in judges]
        merge_section(Path("out"), "attacks", records, judges=judges)

    merge(cost="python:suite_judges:letters", harm="cost:c")
    world["judges"]["cost"] = "python:suite_judges:rock_like"
    Path("suite_judges.py").write_text(Path("suite_judges.py").read_text() + "\nrock_like = letters\n")
    __import__("sys").modules.pop("suite_judges")
    result = measure(world)
    assert attacked() == [("SFT", "harm"), ("MPO", "harm")], "the label names another judge now"
    assert any("attacks are left out where cost took part" in note for note in result.notes)
    write_answers(Path("sft.jsonl"), prompts, lambda at: "y" * (1 + at % 5), 2)
    result = measure(world)
    assert attacked() == [("MPO", "harm")], "another policy answers in the same place"
    assert any("attacks are left out where SFT took part" in note for note in result.notes)
    write_answers(Path("sft.jsonl"), prompts, lambda at: "z" * (1 + at % 5), 2)
    with pytest.raises(DataError, match=r"policy 'SFT' is another one now: the files in file:sft\.jsonl have changed"):
        merge_section(Path("out"), "attacks", [], policies={"SFT": policy_record(PolicyConfig(("file:sft.jsonl",)))})


def test_two_commands_do_not_write_into_one_folder(world: dict[str, Any]) -> None:
    from filelock import FileLock

    Path("out").mkdir()
    with FileLock("out/evaluation.lock"), pytest.raises(MagnetarError, match="another command is evaluating"):
        measure(world)
