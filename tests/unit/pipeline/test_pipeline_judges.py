"""Judges in a pipeline: references within them are found and replaced, and what they are made from is looked at."""

import json
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.pipeline.config import PipelineConfig
from magnetar.cli.pipeline.contents import Contents
from magnetar.cli.pipeline.work import Work
from magnetar.data import sources
from magnetar.pipeline.digests import FileDigests
from magnetar.pipeline.plan import Product


@pytest.fixture
def work(tmp_path: Path) -> Work:
    work = Work(PipelineConfig(tmp_path, "demo", {}), Contents(FileDigests(), ask_hub=False))
    for name, kind in (("a", "reward"), ("b", "pairwise")):
        work.step_folder(f"preference/{name}")
        work.offer(f"preference:{name}", Product(f"preference/{name}", "", kind))
    return work


def test_references_are_replaced_wherever_a_judge_can_name_one(work: Work, tmp_path: Path) -> None:
    one, other = (f"{kind}:{tmp_path / 'preference' / name}" for name, kind in (("a", "reward"), ("b", "pairwise")))
    assert work.judge("preference:a") == one
    assert work.judge("python:my.module:judge") == "python:my.module:judge"
    assert work.judge({"model": "preference:b", "temperature": 2.0}) == {
        **{"kind": "pairwise", "model": str(tmp_path / "preference" / "b")},
        "temperature": 2.0,
    }
    panel: dict[str, Any] = {"kind": "panel", "judges": ["preference:a", "preference:b"]}
    assert work.judge(panel)["judges"] == [one, other]
    named = {"kind": "panel", "judges": {"mine": "preference:a", "theirs": "preference:b"}}
    assert work.judge(named)["judges"] == {"mine": one, "theirs": other}


def test_a_judge_is_another_when_anything_that_it_is_made_from_is(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    member = tmp_path / "judge_of_contents.py"
    member.write_text("def score(prompts, responses):\n    return [0.0] * len(responses)\n")
    panel = {"kind": "panel", "judges": {"mine": "python:judge_of_contents:score", "theirs": "panel"}}
    spec = tmp_path / "judge.json"
    spec.write_text(json.dumps(panel))
    before = work.contents.judge(panel), work.contents.judge("judge.json")
    assert before == (work.contents.judge(panel), work.contents.judge("judge.json"))
    spec.write_text(json.dumps({**panel, "rule": "majority"}))  # an option, in the file alone
    assert work.contents.judge("judge.json") != before[1]
    spec.write_text(json.dumps(panel))
    member.write_text(member.read_text() + "# changed\n")
    assert work.contents.judge(panel) != before[0] and work.contents.judge("judge.json") != before[1]


def test_of_a_panel_with_trained_judges_the_others_are_looked_into(work: Work) -> None:
    assert work.judge_contents("preference:a", "the judge") == {}
    assert set(work.judge_contents("panel", "the judge")) == {"the judge"}
    for members, name in (({"mine": "preference:a", "theirs": "panel"}, "theirs"), (["preference:a", "panel"], "1")):
        found = work.judge_contents({"kind": "panel", "judges": members}, "the judge")
        assert found == {f"the judge, {name}": work.contents.judge("panel")}


def test_a_folder_of_a_dataset_is_asked_of_the_hub_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(*names: Any, **options: Any) -> Any:
        asked.update(names=names, **options)
        raise ConnectionError

    monkeypatch.setattr(sources, "load_dataset", load)
    with pytest.raises(sources.DataError, match="cannot be reached"):
        sources.read_source("Anthropic/hh-rlhf", "train", folder="harmless-base")
    assert asked == {"names": ("Anthropic/hh-rlhf", None), "data_dir": "harmless-base", "split": "train"}
