"""What has to run, told from manifests alone: no model is needed to plan."""

import json
import os
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from magnetar.cli.pipeline.provenance import made_otherwise
from magnetar.errors import ConfigError
from magnetar.pipeline.digests import FileDigests, digest_of
from magnetar.pipeline.manifest import (
    Manifest,
    damage,
    inputs_digest,
    outputs_of,
    product_digest,
    read_manifest,
    read_started,
    write_manifest,
    write_started,
)
from magnetar.pipeline.plan import Product, Step, StepState, differences, inputs_of, plan_states, state_of
from magnetar.pipeline.references import Reference, parse_reference, references_in

USES = {Reference("sft", ("model",)): Product("sft", "", "model")}


def steps(folder: Path, **settings: Any) -> list[Step]:
    """A model, and two steps: one uses it, the other does not."""
    first = Step("sft", "sft", folder / "sft", {"learning_rate": 1.0, **settings})
    second = Step("train/a", "train", folder / "a", {"model": "sft:model"}, uses=USES)
    third = Step("preference/p", "preference", folder / "p", {"kind": "cost"})
    return [first, second, third]


def finish(step: Step, states: Any, weights: bytes = b"weights") -> None:
    """Write what a runner would."""
    step.folder.mkdir(parents=True, exist_ok=True)
    (step.folder / "model.safetensors").write_bytes(weights)
    inputs = inputs_of(step, states, "1.0")
    outputs = outputs_of(step.folder, FileDigests())
    manifest = Manifest(step.name, inputs, outputs, inputs_digest(inputs), product_digest(outputs), hours=0.5)
    write_manifest(step.folder, manifest)


def finish_all(found: list[Step]) -> None:
    for step in found:
        finish(step, plan_states(found, "1.0", FileDigests()))


def statuses(found: list[Step], **options: Any) -> list[str]:
    return [state.status for state in plan_states(found, "1.0", FileDigests(), **options).values()]


def test_what_is_finished_and_unchanged_stays(tmp_path: Path) -> None:
    found = steps(tmp_path)
    assert statuses(found) == ["run", "run", "run"]
    finish_all(found)
    assert statuses(found) == ["finished", "finished", "finished"]


def test_a_change_reaches_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    finish_all(steps(tmp_path))
    changed = steps(tmp_path, learning_rate=2.0)
    states = plan_states(changed, "1.0", FileDigests())
    assert [state.status for state in states.values()] == ["run", "perhaps", "finished"]
    assert states["sft"].reasons == ("learning_rate changed from 1.0 to 2.0",)
    assert states["train/a"].reasons == ("sft:model may come out as another",)
    # The same weights come out: nothing follows. Others: what depends on them runs.
    finish(changed[0], states)
    assert statuses(changed) == ["finished", "finished", "finished"]
    finish(changed[0], states, b"others")
    states = plan_states(changed, "1.0", FileDigests())
    assert [state.status for state in states.values()] == ["finished", "run", "finished"]
    assert states["train/a"].reasons == ("sft:model was made again, and is another",)


def test_another_version_of_the_code_makes_everything_again(tmp_path: Path) -> None:
    found = steps(tmp_path)
    finish_all(found)
    states = plan_states(found, "1.1", FileDigests())
    assert {state.status for state in states.values()} == {"run"}
    assert "Magnetar changed from 1.0 to 1.1" in states["sft"].reasons


def test_neutral_settings_and_defaults_change_nothing(tmp_path: Path) -> None:
    found = steps(tmp_path)
    finish_all(found)
    found[0] = replace(
        steps(tmp_path, logging_steps=5, weight_decay=0.0)[0],
        neutral=("logging_steps",),
        defaults={"weight_decay": 0.0},
    )
    assert statuses(found) == ["finished", "finished", "finished"]


def test_a_step_that_was_begun_goes_on_only_with_the_same_inputs(tmp_path: Path) -> None:
    found = steps(tmp_path)
    write_started(found[0].folder, inputs_of(found[0], {}, "1.0"), 0.25)
    assert statuses(found)[0] == "resume"
    other = steps(tmp_path, learning_rate=3.0)
    state = plan_states(other, "1.0", FileDigests())["sft"]
    assert state.status == "run" and "learning_rate changed from 1.0 to 3.0" in state.reasons


def test_a_skipped_step_is_used_as_it_is_or_blocks(tmp_path: Path) -> None:
    found = steps(tmp_path)
    assert statuses(found, skipped={"sft"}) == ["skipped", "blocked", "run"]
    finish_all(found)
    changed = steps(tmp_path, learning_rate=2.0)
    assert statuses(changed, skipped={"sft"}) == ["skipped", "finished", "finished"]
    # What can do without it is made without it.
    for step in found:
        shutil.rmtree(step.folder)
    found[1] = replace(found[1], optional=tuple(USES))
    assert statuses(found, skipped={"sft"}) == ["skipped", "run", "run"]


def test_a_step_needs_what_failed_unless_it_can_do_without(tmp_path: Path) -> None:
    second = steps(tmp_path)[1]
    before = {"sft": StepState("failed", ("no memory",))}
    state = state_of(second, before, "1.0", FileDigests())
    assert (state.status, state.reasons) == ("blocked", ("sft:model is needed, and sft failed",))
    state = state_of(replace(second, optional=tuple(USES)), before, "1.0", FileDigests())
    assert state.status == "run"
    assert inputs_of(replace(second, optional=tuple(USES)), before, "1.0")["uses"] == {}


def test_a_folder_that_no_pipeline_wrote_is_refused_not_removed(tmp_path: Path) -> None:
    found = steps(tmp_path)
    found[0].folder.mkdir()
    assert statuses(found)[0] == "run"  # empty
    (found[0].folder / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"sft is where sft would be made, but it holds files that no pipeline wrote"):
        statuses(found)
    # One that keeps what is in its folder moves nothing.
    assert statuses([replace(found[0], keeps=True)]) == ["run"]


def test_settings_are_compared_as_a_manifest_gives_them_back(tmp_path: Path) -> None:
    """YAML reads dates, and code writes tuples; a file has neither."""
    found = steps(tmp_path, since=date(2024, 1, 1), modules=("q_proj", "v_proj"))
    finish_all(found)
    assert statuses(found) == ["finished", "finished", "finished"]


def test_an_attempt_that_was_killed_counts_until_its_last_file(tmp_path: Path) -> None:
    write_started(tmp_path, {}, 1.5, since=1e9)
    for name, hours in (("one", 0.25), ("two", 0.5)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1e9 + 3600 * hours, 1e9 + 3600 * hours))
    os.utime(tmp_path / "started.json", (1e9, 1e9))
    assert read_started(tmp_path) == ({}, 2.0)
    write_started(tmp_path, {}, 1.5)  # between attempts
    assert read_started(tmp_path) == ({}, 1.5)


def test_kept_steps_say_with_what_other_code_they_were_made() -> None:
    one = Manifest("a", {}, {}, "", "", versions={"magnetar": "1", "trl": "1.15"}, git={"commit": "a" * 40})
    other = replace(one, versions={"magnetar": "1", "trl": "1.16"}, git=None)
    now = {"magnetar": "1", "trl": "1.16"}
    assert made_otherwise([one, one, other], {"commit": "b" * 40}, now) == [
        "2 with commit aaaaaaaaaa (now bbbbbbbbbb)",
        "2 with trl 1.15 (now 1.16)",
    ]
    assert made_otherwise([other], {"commit": "b" * 40}, now) == []


def test_damage_is_found_by_size_time_or_reading(tmp_path: Path) -> None:
    found = steps(tmp_path)
    finish_all(found)
    weights, manifest = found[0].folder / "model.safetensors", read_manifest(found[0].folder)
    assert manifest is not None
    stat = weights.stat()
    os.utime(weights, ns=(0, 0))  # a copy: other time, same bytes
    assert damage(found[0].folder, manifest, FileDigests()) is None
    weights.write_bytes(b"Weights")
    assert damage(found[0].folder, manifest, FileDigests()) == "model.safetensors was changed after it was made"
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert damage(found[0].folder, manifest, FileDigests()) is None  # nothing but reading can tell
    assert damage(found[0].folder, manifest, FileDigests(), thorough=True) is not None
    weights.unlink()
    assert damage(found[0].folder, manifest, FileDigests()) == "model.safetensors was removed"
    assert statuses(found)[0] == "run"


def test_a_damaged_manifest_makes_its_step_again_with_the_reason(tmp_path: Path) -> None:
    found = steps(tmp_path)
    finish_all(found)
    (found[0].folder / "manifest.json").write_text('{"format": 1')
    state = plan_states(found, "1.0", FileDigests())["sft"]
    assert state.status == "run" and "cannot be read" in state.reasons[0]


def test_what_people_are_told_is_no_product(tmp_path: Path) -> None:
    """Logs, checkpoints and a card's facts of the training do not decide what others compute."""
    (tmp_path / "checkpoint-1").mkdir()
    for name in ("model.safetensors", "metrics.jsonl", "report.html", "checkpoint-1/model.safetensors"):
        (tmp_path / name).write_text("one")
    (tmp_path / "magnetar_judge.json").write_text(
        json.dumps({"kind": "cost", "temperature": 1.0, "training": {"a": 1}})
    )
    before = product_digest(outputs_of(tmp_path, FileDigests()))
    for name in ("metrics.jsonl", "report.html", "checkpoint-1/model.safetensors"):
        (tmp_path / name).write_text("another")
    (tmp_path / "magnetar_judge.json").write_text(
        json.dumps({"temperature": 1.0, "kind": "cost", "training": {"a": 2}})
    )
    assert product_digest(outputs_of(tmp_path, FileDigests())) == before
    (tmp_path / "magnetar_judge.json").write_text(json.dumps({"kind": "cost", "temperature": 2.0}))
    assert product_digest(outputs_of(tmp_path, FileDigests())) != before


def test_differences_name_the_entry_that_changed() -> None:
    old = {"settings": {"a": {"x": 1, "y": 2}, "b": 1}, "data": {"f": "1", "g": "1"}, "uses": {}, "code": "1"}
    new = {"settings": {"a": {"x": 1, "y": 3}}, "data": {"f": "2", "h": "1"}, "uses": {"sft:model": "1"}, "code": "1"}
    assert differences(old, new) == [
        "a.y changed from 2 to 3",
        "b changed from 1 to 'nothing'",
        "the content of f changed",
        "g is gone",
        "h is new",
        "sft:model is new",
    ]


def test_digests_of_files_are_remembered_and_not_trusted_blindly(tmp_path: Path) -> None:
    file, memory = tmp_path / "data.jsonl", tmp_path / "memory.json"
    file.write_text("one")
    digests = FileDigests(memory)
    first = digests.of(file)
    digests.keep()
    assert FileDigests(memory).of(file) == first
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert FileDigests(memory).of(file) != first
    memory.write_text("{")  # it only saves time
    assert FileDigests(memory).of(file) != first


def test_digest_of_values_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})


def test_references_are_told_from_names() -> None:
    assert parse_reference("train:no self-play/round-2") == Reference("train", ("no self-play", "round-2"))
    for name in ("demo", "org/model", "cost:folder", "llm:gpt-4o", 3, None, "https://host/x"):
        assert parse_reference(name) is None
    settings = {"a": ["sft:model", {"b": "preference:cost"}], "c": "sft:model"}
    assert [str(reference) for reference in references_in(settings)] == ["sft:model", "preference:cost"]
    with pytest.raises(ConfigError, match="names nothing"):
        parse_reference("preference:")
