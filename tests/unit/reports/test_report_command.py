"""`magnetar report` finds out what a folder holds, writes its page and figures, and says plainly what is wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from magnetar.cli.main import main
from magnetar.errors import DataError
from magnetar.evaluation import MatchupSummary, evaluation_record, sample_records
from magnetar.evaluation.suite import PromptsRecord, SuiteResult, read_suite, write_suite
from magnetar.reports import write_pipeline_report, write_report, write_suite_report
from magnetar.reports.comparison_files import write_comparison
from magnetar.reports.figures import figure_names
from magnetar.reports.folders import kind_of
from magnetar.reports.pipeline_data import read_pipeline
from magnetar.reports.pipeline_page import suite_groups
from magnetar.reports.text_files import write_text
from unit.reports.conftest import fixture_matchup
from unit.reports.example_pages import write_pipeline
from unit.reports.suite_example import example_suite
from unit.reports.test_comparison_page import found
from unit.reports.test_suite_page import Page


@pytest.fixture
def places(tmp_path: Path, summary: MatchupSummary, make_run: Callable[..., Path]) -> dict[str, Path]:
    """A folder of each kind."""
    write_suite(example_suite(), tmp_path / "suite")
    (tmp_path / "comparison").mkdir()
    write_comparison(found(), tmp_path / "comparison")
    record = {**evaluation_record(summary, {}), "samples": sample_records(fixture_matchup(), 4)}
    (tmp_path / "figures.json").write_text(json.dumps(record))
    return {
        "run": make_run(),
        "suite": tmp_path / "suite",
        "comparison": tmp_path / "comparison",
        "pipeline": write_pipeline(tmp_path / "pipeline", summary),
        "matchup": tmp_path / "figures.json",
    }


def test_a_folder_is_known_by_its_files_and_its_page_is_about_it(places: dict[str, Path], tmp_path: Path) -> None:
    headings = {
        "run": "Magnetar run mpo-demo",
        "suite": "suite: 7 policies",
        "comparison": "methods at equal budget",
        "pipeline": "Pipeline pipeline",
        "matchup": "trained against start",
    }
    for kind, place in places.items():
        assert kind_of(place) == kind
        page = write_report(place, tmp_path / "pages" / f"{kind}.html")
        assert page == tmp_path / "pages" / f"{kind}.html"
        assert headings[kind] in Page(page.read_text()).words
    assert write_report(places["suite"]) == places["suite"] / "report.html"
    assert kind_of(places["suite"] / "suite.json") == "suite"
    renamed = shutil.copy(places["suite"] / "suite.json", tmp_path / "other.json")
    assert kind_of(Path(renamed)) == "suite"
    assert write_suite_report(Path(renamed)) == tmp_path / "report.html"


def test_the_command_writes_pages_and_figures(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["report", str(places["suite"]), "--out", str(tmp_path / "p.html")]) == 0
    assert (tmp_path / "p.html").is_file() and "report: " in capsys.readouterr().err
    assert main(["report", str(places["comparison"]), "--figures", str(tmp_path / "f"), "--form", "svg", "png"]) == 0
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert names == [f"{name}.{form}" for name in ("ablation", "distance", "payoffs") for form in ("png", "svg")]


def test_what_cannot_be_shown_is_refused_in_a_sentence(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    above = tmp_path / "above"
    (above / "deep").mkdir(parents=True)
    shutil.copy(places["suite"] / "suite.json", above / "deep" / "suite.json")
    for place, told in (
        (tmp_path / "nowhere", "no file or folder"),
        (above, f"there is something to show in {above / 'deep'}"),
        (tmp_path / "note.txt", "is no JSON file"),
        (tmp_path / "list.json", "expected a JSON object"),
    ):
        (tmp_path / "note.txt").write_text("x")
        (tmp_path / "list.json").write_text("[]")
        assert main(["report", str(place)]) == 2
        assert told in capsys.readouterr().err
    assert main(["report", str(places["run"]), "--figures", str(tmp_path / "g")]) == 2
    assert "nothing to draw" in capsys.readouterr().err
    assert main(["report", str(places["suite"]), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["report", str(places["suite"]), "--figure", "x"]) == 2
    assert "did you mean 'figures'" in capsys.readouterr().err


def test_a_pipeline_tells_stages_times_products_and_what_is_open(places: dict[str, Path]) -> None:
    page = Page(write_pipeline_report(places["pipeline"]).read_text())
    for told in (
        "6 of 7 finished", "Work 3.3 h", "Commit 0123456789ab", "cores 2", "exploit: under way.",
        "accuracy 0.671, held out pairs 300", "accuracy 64.2% (61.0% to 67.0%)", "Loss of sft",
        "train/MPO/seed-1 30 updates, the magnet moved 1 time", "sha256 77aa", "preference/pairwise",
        "Win rates: judge preference", "Answers side by side",
    ):  # fmt: skip
        assert told in page.words, told


def test_figures_from_before_a_change_are_told_from_those_of_now(places: dict[str, Path]) -> None:
    """A stage that failed or waits for one that did still has what it made of other settings."""
    folder = places["pipeline"]
    entries = [
        {"name": "sft", "status": "failed", "reasons": ["no memory"]},
        {"name": "preference/cost", "status": "finished"},
        {"name": "preference/pairwise", "status": "skipped", "reasons": []},
        {"name": "train/MPO/seed-0", "status": "skipped", "reasons": ["seed changed"]},
        {"name": "exploit", "status": "blocked", "reasons": ["sft failed"]},
        {"name": "evaluate", "status": "blocked", "reasons": ["sft failed"]},
    ]
    (folder / "pipeline.json").write_text(json.dumps({"steps": entries}))
    (folder / "evaluate" / "manifest.json").unlink()  # it was begun anew, and its suite is still there
    words = Page(write_pipeline_report(folder).read_text()).words
    before = "What this page shows of it was made before."
    for told in (
        f"sft: failed (no memory). {before}",
        f"train/MPO/seed-0: skipped (seed changed). {before}",
        f"evaluate: blocked (sft failed). {before}",
        "exploit: blocked (sft failed).",
    ):
        assert told in words
    assert words.count(before) == 3 and "preference/cost: finished" not in words


def test_stages_stand_in_the_order_of_the_pipeline(places: dict[str, Path]) -> None:
    folder = places["pipeline"]
    assert [step.name for step in read_pipeline(folder).steps][:2] == ["sft", "preference/cost"]
    steps: list[dict[str, object]] = [{"name": name} for name in ("preference/cost", "sft")]
    steps.append({"name": "attack", "status": "failed", "reasons": ["the cost model cannot be read"]})
    (folder / "pipeline.json").write_text(json.dumps({"steps": steps}))
    read = read_pipeline(folder)
    assert [step.name for step in read.steps][:3] == ["preference/cost", "sft", "attack"] and len(read.steps) == 8
    page = Page(write_pipeline_report(folder).read_text())
    assert "attack: failed (the cost model cannot be read)." in page.words
    (folder / "pipeline.json").write_text('{"steps": [1]}')
    with pytest.raises(DataError, match="expected an object with a name"):
        read_pipeline(folder)


def add_stage(folder: Path, name: str, suite: SuiteResult, hour: int) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_text(json.dumps({"step": name, "finished": f"2026-11-23T{hour}"}))
    (folder / name / "suite.json").write_text(json.dumps(suite.to_dict()))


def test_stages_that_go_together_are_one_suite_and_others_stand_by_themselves(places: dict[str, Path]) -> None:
    folder, whole = places["pipeline"], example_suite()
    played = replace(whole, attacks=(), exploitability=(), benchmarks=())
    (folder / "evaluate" / "suite.json").write_text(json.dumps(played.to_dict()))
    attacked = SuiteResult(policies=whole.policies, judges=whole.judges, attacks=whole.attacks, notes=["attacked"])
    add_stage(folder, "attack", attacked, 20)
    joined = suite_groups(read_pipeline(folder))
    assert list(joined) == ["evaluate"] and joined["evaluate"].attacks == tuple(whole.attacks)
    assert joined["evaluate"].matchups == tuple(whole.matchups) and "attacked" in joined["evaluate"].notes
    assert "Win rates: judge preference" in Page(write_pipeline_report(folder).read_text()).words

    other = replace(played, prompts=PromptsRecord("other.jsonl", 9), samples=whole.samples[:3])
    add_stage(folder, "evaluate/other", other, 21)
    again = replace(attacked, judges={**whole.judges, "cost": "cost:another"})
    add_stage(folder, "again", again, 22)
    groups = suite_groups(read_pipeline(folder))
    assert list(groups) == ["evaluate", "evaluate/other", "again"], "other prompts; a name that means something else"
    words = Page(write_pipeline_report(folder).read_text()).words
    for told in ("Win rates: judge gpt (evaluate/other)", "Safety under attack (again)", "evaluate: The judge “gpt”"):
        assert told in words
    assert "Answers side by side (evaluate)" in words and "Answers side by side (evaluate/other)" in words
    assert all(f"evaluate/other: {note}" in words for note in other.notes)
    exploited = SuiteResult(
        policies=whole.policies,
        judges=whole.judges,
        exploitability=whole.exploitability,
        settings={"exploitability": {"dataset": "held_out.jsonl"}},
    )
    add_stage(folder, "exploit/held_out", exploited, 23)
    assert "exploit/held_out" in suite_groups(read_pipeline(folder)), (
        "what was measured on other prompts stands by itself"
    )
    names = figure_names(folder)
    assert "evaluate-radar-gpt" in names and "evaluate-other-radar-gpt" in names and "again-attacks" in names


def test_a_damaged_manifest_is_named(places: dict[str, Path]) -> None:
    path = places["pipeline"] / "sft" / "manifest.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"sft/manifest\.json is not JSON"):
        write_report(places["pipeline"])


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "new" / "page.html", "before")

    def fail(*args: object) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(DataError, match="disk is full"):
        write_text(path, "after")
    assert path.read_text() == "before" and [one.name for one in path.parent.iterdir()] == ["page.html"]


def test_half_of_a_surrogate_pair_does_not_cost_the_page(tmp_path: Path) -> None:
    assert write_text(tmp_path / "page.html", "a\ud800b").read_text() == "a?b"


def test_the_page_is_made_of_the_file_alone(places: dict[str, Path], tmp_path: Path) -> None:
    from magnetar.reports.suite_page import suite_page

    assert write_suite_report(places["suite"]).read_text() == suite_page(read_suite(places["suite"]), "suite")
