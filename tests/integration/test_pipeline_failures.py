"""What goes wrong while nobody looks: errors, kills, a full disk, changes of mind. Steps only write small files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import Killed, pipeline, ran, write_config, write_place

import magnetar.cli.pipeline.run as runner
from magnetar.cli.pipeline.work import Work
from magnetar.errors import DataError
from magnetar.pipeline.plan import Step

FEW: dict[str, Any] = {"train": None, "report": None}
STEPS = ("data/pairs", "sft", "preference/judge", "preference/cost", "evaluate")
PAIR = {"first": "a", "second": "b", "win_prob": 1.0, "first_safe": True, "second_safe": False}
CHANGED = {"preference.cost.learning_rate": 1e-3}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("failures"))


@pytest.fixture
def place(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model", "pairs.jsonl"):
        (tmp_path / name).symlink_to(workplace / name)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "p.yaml", **FEW)
    return tmp_path


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:
    """Steps that stop, after a checkpoint; all others write what their settings say, in place of weights."""
    stopping: dict[str, BaseException] = {}

    def work(step: Step, work: Work, resume: bool) -> dict[str, Any]:
        (step.folder / "checkpoint-1").mkdir(exist_ok=True)
        if step.name in stopping:
            raise stopping[step.name]
        told = json.dumps({"resumed": resume, **step.settings}, default=str)
        (step.folder / "model.safetensors").write_text(told)
        for part in ("held_out", "learn", "evaluate", "prompts") if step.stage == "data" else ():
            (step.folder / f"{part}.jsonl").write_text(json.dumps({"prompt": part, **PAIR}) + "\n")
        return {}

    monkeypatch.setattr(runner, "run_step", work)
    monkeypatch.setattr(runner, "git_state", lambda: None)  # asked for each step, and slow
    return stopping


def overview(place: Path) -> dict[str, str]:
    found = json.loads((place / "out" / "pipeline.json").read_text())["steps"]
    return {step["name"]: step["status"] for step in found}


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error:\nan illegal access"), pytest.param(DataError("no rows"), marks=pytest.mark.slow)],
)
def test_whatever_fails_is_named_with_its_log_and_the_others_go_on(
    error: Exception, place: Path, stops: dict[str, BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    stops["preference/cost"] = error
    assert pipeline(place / "p.yaml") == 1
    console = capfd.readouterr().err
    log = Path("out/preference/cost/failure.txt")
    line = next(line for line in console.splitlines() if "preference/cost failed: " in line)
    assert " ".join(str(error).split()) in line and str(log) in line
    assert type(error).__name__ in log.read_text() and "Traceback" in log.read_text()
    states = overview(place)
    assert [name for name in STEPS if states[name] != "finished"] == ["preference/cost", "evaluate"]
    assert (states["preference/cost"], states["evaluate"]) == ("failed", "blocked")
    assert "evaluate: preference:cost is needed, and preference/cost failed" in console
    # Mended, it goes on, and the trouble of before is no product.
    stops.clear()
    assert pipeline(place / "p.yaml") == 0
    assert ran(capfd.readouterr().err) == ["preference/cost", "evaluate"]
    assert json.loads(Path("out/preference/cost/model.safetensors").read_text())["resumed"]
    assert not log.exists() and set(overview(place).values()) == {"finished"}


def test_a_change_of_mind_in_the_middle_loses_neither_run(
    place: Path, stops: dict[str, BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    """Finished with one setting, half-way with another: whichever is asked for next, what there is of it is used."""
    assert pipeline(place / "p.yaml") == 0
    stops["preference/cost"] = Killed()
    with pytest.raises(Killed):
        pipeline(write_config(place / "q.yaml", CHANGED, **FEW))
    stops.clear()
    capfd.readouterr()
    assert pipeline(place / "p.yaml", "--dry_run") == 0
    assert "made or begun before from the same inputs: that would be put back" in capfd.readouterr().out
    assert pipeline(place / "p.yaml") == 0
    console = capfd.readouterr().err
    assert ran(console) == [] and "preference/cost: made before from the same inputs" in console
    assert pipeline(place / "q.yaml", "--only", "preference") == 0
    console = capfd.readouterr().err
    assert "preference/cost: begun before from the same inputs" in console
    assert json.loads(Path("out/preference/cost/model.safetensors").read_text())["resumed"]


def test_a_kill_while_results_change_places_loses_nothing(
    place: Path, stops: dict[str, BaseException], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    only = ["--only", "data", "preference/cost"]
    assert pipeline(place / "p.yaml", *only) == 0
    assert pipeline(write_config(place / "q.yaml", CHANGED, **FEW), *only) == 0
    renames: list[int] = []
    rename = Path.rename
    for kill_at in (1, 2, 3):
        renames.clear()

        def once(self: Path, target: Any, kill_at: int = kill_at) -> Path:
            renames.append(1)
            if len(renames) == kill_at:
                raise Killed
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", once)
            with pytest.raises(Killed):
                pipeline(place / "p.yaml", *only)
        capfd.readouterr()
        assert pipeline(place / "p.yaml", *only) == 0
        console = capfd.readouterr().err
        assert "made before from the same inputs" in console and ran(console) == []
        assert pipeline(place / "q.yaml", *only) == 0
        assert ran(capfd.readouterr().err) == []


def test_files_of_others_are_never_removed(
    place: Path, stops: dict[str, BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    mine = place / "out" / "sft" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("all of it")
    for flags in (["--dry_run"], []):
        assert pipeline(place / "p.yaml", *flags) == 2
        error = capfd.readouterr().err
        assert "out/sft is where sft would be made, but it holds files that no pipeline wrote" in error
    assert mine.read_text() == "all of it"
    shutil.rmtree(mine.parent)
    mine.parent.mkdir()  # an empty folder is in nobody's way
    assert pipeline(place / "p.yaml") == 0


@pytest.mark.parametrize("damaged", ["manifest.json", "started.json"])
def test_what_nobody_can_read_is_put_aside_not_removed(
    damaged: str, place: Path, stops: dict[str, BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    if damaged == "started.json":
        stops["sft"] = Killed()
        with pytest.raises(Killed):
            pipeline(place / "p.yaml")
        stops.clear()
    else:
        assert pipeline(place / "p.yaml", "--only", "data", "sft") == 0
    (place / "out" / "sft" / "kept.txt").write_text("hours of work")
    (place / "out" / "sft" / damaged).write_text("{")
    assert pipeline(place / "p.yaml", "--only", "data", "sft") == 0
    assert ran(capfd.readouterr().err)[-1] == "sft"
    assert (place / "out" / "earlier" / "sft-unreadable" / "kept.txt").read_text() == "hours of work"


def test_a_full_disk_fails_the_step_and_says_so(
    place: Path, stops: dict[str, BaseException], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing can be written any more once the second step has begun, its own failure included."""
    full = OSError(28, "No space left on device")
    original: Callable[..., None] = runner.write_json

    def write(path: Path, values: Any) -> None:
        if "sft" in stops:
            raise full
        original(path, values)

    def run_step(step: Step, work: Work, resume: bool) -> dict[str, Any]:
        if step.stage == "data":
            return plain(step, work, resume)
        stops["sft"] = full
        raise full

    plain = runner.run_step
    monkeypatch.setattr(runner, "run_step", run_step)
    monkeypatch.setattr(runner, "write_json", write)
    monkeypatch.setattr("magnetar.pipeline.manifest.write_json", write)
    assert pipeline(place / "p.yaml", "--only", "data", "sft") == 1
    console = capfd.readouterr().err
    assert "missing: sft: OSError: [Errno 28] No space left on device" in console
    assert "pipeline.json was not brought up to date" in console and "Traceback" not in console


def test_hours_count_what_a_kill_cut_short(
    place: Path, stops: dict[str, BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed attempts cannot say how long they took: they count until the last file that they wrote."""
    import os
    import time

    stops["sft"] = Killed()
    with monkeypatch.context() as patch:
        patch.setattr("magnetar.cli.pipeline.run.write_started", _as_a_kill_would(runner.write_started))
        with pytest.raises(Killed):
            pipeline(place / "p.yaml", "--only", "data", "sft")
    started = place / "out" / "sft" / "started.json"
    late = time.time() + 1800
    (started.parent / "metrics.jsonl").write_text("")
    os.utime(started.parent / "metrics.jsonl", (late, late))
    stops.clear()
    assert pipeline(place / "p.yaml", "--only", "data", "sft") == 0
    assert json.loads((started.parent / "manifest.json").read_text())["hours"] == pytest.approx(0.5, abs=0.01)


def _as_a_kill_would(write: Callable[..., None]) -> Callable[..., None]:
    """Only the start of an attempt is written down."""

    def written(*args: Any, since: float | None = None) -> None:
        if since is not None:
            write(*args, since=since)

    return written
