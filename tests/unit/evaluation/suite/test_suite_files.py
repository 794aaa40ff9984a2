import json
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from magnetar.errors import DataError
from magnetar.evaluation import Estimate
from magnetar.evaluation.degeneracy import degeneracy
from magnetar.evaluation.suite import (
    AttackRecord,
    BenchmarkRecord,
    CategoryCost,
    CategoryWinRate,
    CostRecord,
    ExploitabilityRecord,
    Histogram,
    MatchupRecord,
    OrderRecord,
    PathStep,
    PolicyRecord,
    PromptsRecord,
    SampleRecord,
    SuiteResult,
    TournamentRecord,
    merge_section,
    read_suite,
    write_suite,
)
from magnetar.evaluation.suite.tables import write_tables
from magnetar.evaluation.summary import SideSummary

RATE = Estimate(0.6, 0.5, 0.7, 0.95, "bca")
NONE = Estimate(0.5, None, None, 0.95, "undefined", "one prompt")


def full_result() -> SuiteResult:
    side = SideSummary("MPO", 2, None, 12.5, None, degeneracy([["a b c", "d"]]))
    return SuiteResult(
        policies={
            "SFT": PolicyRecord(("models/sft",), "model"),
            "MPO": PolicyRecord(("runs/0", "runs/1"), "adapter", ("0", "1"), side),
        },
        reference="SFT",
        judges={"costs": "cost:models/cost", "llm": {"kind": "llm", "model": "m"}},
        prompts=PromptsRecord("prompts.jsonl", 3, {"a": 1, "b": 2}),
        matchups=[
            MatchupRecord(
                "llm", "MPO", "SFT", 3, RATE, 0.5, 0.25, 0.25, 12, 1, NONE, None, OrderRecord(0.7, 0.5, RATE, 0.1),
                {"a": CategoryWinRate(1, NONE, 1.0, 0.0, 0.0)},
            )
        ],
        costs=[
            CostRecord(
                "costs", "MPO", 3, RATE, RATE, Histogram((0.0, 1.0, 2.0), (1, 2)), NONE, None,
                {"a": CategoryCost(1, NONE, NONE)},
            )
        ],
        tournament=[
            TournamentRecord(
                "llm", ("SFT", "MPO"), ((0.5, None), (None, 0.5)), ((None, None), (None, None)),
                ((None, None), (None, None)), {"SFT": 0.0, "MPO": 1.0}, {"MPO": 1.0},
                (PathStep("MPO", "0", 10, True),), {"0": "MPO"}, {"0": ()},
            )
        ],
        attacks=[AttackRecord("none", "MPO", "costs", RATE)],
        benchmarks=[BenchmarkRecord("MPO", "arc", "acc", 0.3, 0.01, 20, {"shots": 0})],
        exploitability=[ExploitabilityRecord("MPO", "best_of_n", RATE, NONE, "llm", {"n": 4}, {"comparisons": 9})],
        samples=[
            SampleRecord([{"role": "user", "content": "hi"}], "a", {"MPO": "x"}, {}, {"llm": {"MPO": {"SFT": None}}})
        ],
        notes=["one"],
        settings={"seed": 0},
        versions={"python": "3"},
    )  # fmt: skip


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = full_result()
    write_suite(written, tmp_path)
    read = read_suite(tmp_path)
    assert read.to_dict() == written.to_dict()
    assert read.matchups[0] == written.matchups[0] and read.tournament[0] == written.tournament[0]
    assert [f.name for f in fields(SuiteResult)] == list(written.to_dict()), "every section is in the example"


def test_half_a_surrogate_pair_in_a_response_is_kept(tmp_path: Path) -> None:
    sample = SampleRecord("\u2028 hi", None, {"SFT": "half \ud83d, whole \U0001f600"})
    path = write_suite(replace(full_result(), samples=[sample]), tmp_path)
    assert read_suite(path).samples[0] == sample
    path.read_bytes().decode("utf-8")


def test_absent_sections_are_absent_from_the_file(tmp_path: Path) -> None:
    path = write_suite(SuiteResult(policies={"A": PolicyRecord(("a",), "file")}), tmp_path / "own.json")
    assert list(json.loads(path.read_text())) == ["policies"]
    assert read_suite(path) == SuiteResult(policies={"A": PolicyRecord(("a",), "file")})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["matchups"][0].update(win_rte=1), "matchups[0]: unknown key 'win_rte'; did you mean 'win_rate'"),
        (lambda d: d["matchups"][0].pop("wins"), "matchups[0] has no 'wins'"),
        (lambda d: d["costs"][0]["mean_cost"].update(value="x"), "costs[0]: mean_cost: value is 'x', expected float"),
        (lambda d: d["policies"]["SFT"].update(kind="robot"), "policies: SFT: kind is 'robot', expected one of"),
        (lambda d: d.update(notes="text"), "notes is a str, expected a list"),
        (lambda d: d.update(policies=[]), "policies is a list, expected an object"),
        (lambda d: d["prompts"].update(count=True), "prompts: count is True, expected int"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(tmp_path: Path, spoil: Any, message: str) -> None:
    path = write_suite(full_result(), tmp_path)
    values = json.loads(path.read_text())
    spoil(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DataError) as error:
        read_suite(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_a_missing_or_damaged_file_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no suite\.json in"):
        read_suite(tmp_path)
    (tmp_path / "suite.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_suite(tmp_path)


def test_names_and_figures_are_checked_before_writing(tmp_path: Path) -> None:
    result = full_result()
    with pytest.raises(DataError, match="policy 'PPO', which is not among the policies"):
        write_suite(replace(result, attacks=[AttackRecord("none", "PPO", "costs", RATE)]), tmp_path)
    with pytest.raises(DataError, match="judge 'none', which is not among the judges"):
        write_suite(replace(result, attacks=[AttackRecord("none", "MPO", "none", RATE)]), tmp_path)
    endless = replace(RATE, value=float("nan"))
    with pytest.raises(DataError, match=r"attacks\[0\]: unsafe_share: value is nan"):
        write_suite(replace(result, attacks=[AttackRecord("none", "MPO", "costs", endless)]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_merged_record_replaces_the_same_one_and_leaves_the_others(tmp_path: Path) -> None:
    write_suite(full_result(), tmp_path)
    again = [AttackRecord("none", "MPO", "costs", NONE), AttackRecord("rot13", "MPO", "costs", RATE)]
    result = merge_section(tmp_path, "attacks", again, settings={"seed": 3})
    assert list(result.attacks) == again
    read = read_suite(tmp_path)
    assert list(read.attacks) == again and read.settings == {"seed": 0, "attacks": {"seed": 3}}
    assert read.matchups == tuple(full_result().matchups)
    with pytest.raises(DataError, match="unknown section 'atacks'; did you mean 'attacks'"):
        merge_section(tmp_path, "atacks", again)


def test_tables_of_sections_that_are_gone_are_gone_and_other_files_stay(tmp_path: Path) -> None:
    write_tables(full_result(), tmp_path)
    (tmp_path / "tables" / "mine.csv").write_text("a")
    before = {path.stem for path in (tmp_path / "tables").iterdir()}
    write_tables(replace(full_result(), tournament=(), attacks=()), tmp_path)
    gone = before - {path.stem for path in (tmp_path / "tables").iterdir()}
    assert gone == {"tournament", "attacks"}


def test_a_name_cannot_stand_for_two_things(tmp_path: Path) -> None:
    write_suite(full_result(), tmp_path)
    record = BenchmarkRecord("SFT", "arc", "acc", 0.3)
    with pytest.raises(DataError, match=r"policy 'SFT' is \('other',\), but \('models/sft',\) in"):
        merge_section(tmp_path, "benchmarks", [record], policies={"SFT": PolicyRecord(("other",), "model")})
    with pytest.raises(DataError, match="judge 'costs' is 'reward:x', but 'cost:models/cost' in"):
        merge_section(tmp_path, "benchmarks", [record], judges={"costs": "reward:x"})
    assert not read_suite(tmp_path).benchmarks[1:]


def test_a_section_can_be_the_first_of_a_file(tmp_path: Path) -> None:
    record = BenchmarkRecord("A", "arc", "acc", 0.3)
    merge_section(tmp_path / "new", "benchmarks", [record], policies={"A": PolicyRecord(("a",), "model")})
    assert list(read_suite(tmp_path / "new").benchmarks) == [record]


def test_commands_that_merge_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    policy = {"A": PolicyRecord(("a",), "model")}
    threads = [
        threading.Thread(
            target=merge_section,
            args=(tmp_path, "benchmarks", [BenchmarkRecord("A", f"task {number}", "acc", 0.1)]),
            kwargs={"policies": policy},
        )
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.task for record in read_suite(tmp_path).benchmarks} == {f"task {number}" for number in range(8)}
