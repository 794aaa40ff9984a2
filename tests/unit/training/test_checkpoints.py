"""A checkpoint counts only once its mark is written."""

from pathlib import Path

import pytest

from magnetar.errors import CheckpointError
from magnetar.training import NashConfig, checkpoints


@pytest.fixture
def args(tmp_path: Path) -> NashConfig:
    return NashConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")


def make(run: Path, args: NashConfig, *steps: int) -> None:
    for step in steps:
        folder = run / f"checkpoint-{step}"
        folder.mkdir()
        checkpoints.write_state(folder, args, {"step": step, "update": step, "magnet_moves": []})


def test_the_newest_complete_checkpoint_is_found_by_number(tmp_path: Path, args: NashConfig) -> None:
    make(tmp_path, args, 9, 100, 20)
    (tmp_path / "checkpoint-300").mkdir()  # cut short
    (tmp_path / "checkpoint-best").mkdir()
    assert [p.name for p in checkpoints.complete_checkpoints(tmp_path)] == [f"checkpoint-{n}" for n in (9, 20, 100)]
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-100"
    checkpoints.mark_incomplete(tmp_path / "checkpoint-100")
    assert checkpoints.latest_checkpoint(tmp_path).name == "checkpoint-20"
    checkpoints.mark_incomplete(tmp_path / "checkpoint-400")  # not there yet: nothing to do


def test_only_incomplete_checkpoints_are_cleaned_up(tmp_path: Path, args: NashConfig) -> None:
    make(tmp_path, args, 1)
    (tmp_path / "checkpoint-2").mkdir()
    for step in (1, 2, 3):
        checkpoints.remove_incomplete(tmp_path / f"checkpoint-{step}")
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def test_replacing_a_run_removes_its_checkpoints_and_nothing_else(tmp_path: Path, args: NashConfig) -> None:
    make(tmp_path, args, 1, 2)
    for name in ("checkpoint-notes", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").write_text("a file of the user's")
    checkpoints.remove_all(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-7", "checkpoint-notes", "other"]


def test_a_half_written_mark_is_no_mark(tmp_path: Path, args: NashConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()

    def cut_short(self: Path, text: str, encoding: str | None = None) -> int:
        with self.open("w") as file:
            file.write(text[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(OSError, match="No space"):
        checkpoints.write_state(folder, args, {})
    assert checkpoints.complete_checkpoints(tmp_path) == []


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, args: NashConfig) -> None:
    make(tmp_path, args, 1)
    folder = tmp_path / "checkpoint-1"
    assert checkpoints.read_state(folder, args)["step"] == 1
    for name, value in {"method": "mpo_rt", "num_generations": 5, "seed": 1, "temperature": 0.5}.items():
        other = NashConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", **{name: value})
        with pytest.raises(CheckpointError, match=f"{name}="):
            checkpoints.read_state(folder, other)
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoints.latest_checkpoint(tmp_path / "nowhere")
