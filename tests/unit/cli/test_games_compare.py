import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from magnetar import games
from magnetar.cli.games import compare, main
from magnetar.errors import NonFiniteLossError
from magnetar.games.comparison.cells import CellResult
from magnetar.games.comparison.choices import Cell

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the cells that were really computed."""
    labels: list[str] = []
    run_cell = compare.run_cell

    def counted(cell: Cell, game: games.PreferenceGame) -> CellResult:
        labels.append(f"{cell.choice.label} on {cell.game.label}")
        return run_cell(cell, game)

    monkeypatch.setattr(compare, "run_cell", counted)
    return labels


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out, which take most of the time."""
    monkeypatch.setattr(compare, "_draw", lambda *_: "no page")


def words(
    out: Path, games: str = "biased_rps,random:actions=4", methods: str = "mpo,mmd", updates: int = 30
) -> list[str]:
    return ["compare", "--games", games, "--methods", methods, "--updates", str(updates), "--out", str(out)]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "new" / "out"
    assert main([*words(out), "--format", "pdf", "--targets", "0.12,1e-9"]) == 0
    assert "4 cells: 4 computed, 0 reused, 0 failed" in capsys.readouterr().out
    table = rows(out)
    assert [(row["game"], row["method"]) for row in table] == [
        ("biased_rps", "mpo"), ("biased_rps", "mmd"), ("random:actions=4", "mpo"), ("random:actions=4", "mmd"),
    ]  # fmt: skip
    skewed = np.array([6, 3, 2]) / 11
    trace = games.run(compare.choose_method("mpo").method, games.biased_rps(), updates=30, initial=skewed)
    first = table[0]
    assert float(first["final_gap"]) == trace.duality_gap[-1]
    assert float(first["best_gap"]) == trace.duality_gap.min()
    assert float(first["average_gap"]) == trace.average_gap[-1]
    assert int(first["evaluations_to_0.12"]) == trace.evaluations_to(0.12)
    assert (first["evaluations_to_1e-9"], first["actions"], first["failure"]) == ("", "3", "")
    names = {path.name.rsplit("-", 1)[0] + path.suffix for path in (out / "plots").iterdir()}
    assert {"gap_biased_rps.svg", "gap_biased_rps.pdf", "simplex_biased_rps.svg", "profile.svg"} <= names | {
        path.name for path in (out / "plots").iterdir()
    }
    assert len(list((out / "plots").glob("simplex_*"))) == 2
    assert (out / "index.html").stat().st_size > 10_000
    assert not list(out.rglob(".*"))


def test_running_again_computes_nothing_and_draws_the_same(tmp_path: Path, ran: list[str], capsys: Capture) -> None:
    assert main(words(tmp_path)) == 0
    assert len(ran) == 4
    before = (tmp_path / "results.csv").read_bytes(), (tmp_path / "index.html").read_bytes()
    assert main(words(tmp_path)) == 0
    assert len(ran) == 4
    assert "0 computed, 4 reused" in capsys.readouterr().out
    assert ((tmp_path / "results.csv").read_bytes(), (tmp_path / "index.html").read_bytes()) == before
    assert main([*words(tmp_path), "--recompute"]) == 0
    assert len(ran) == 8


@pytest.mark.usefixtures("undrawn")
def test_only_what_changed_is_computed_again(tmp_path: Path, ran: list[str]) -> None:
    np.save(tmp_path / "mine.npy", games.biased_rps().P)
    out = tmp_path / "out"
    mine = str(tmp_path / "mine.npy")
    assert main(words(out, f"{mine},rps")) == 0
    ran.clear()
    assert main(words(out, f"{mine},rps", "mpo:step_size=0.5,mmd")) == 0
    assert ran == ["mpo:step_size=0.5 on mine", "mpo:step_size=0.5 on rps"]
    ran.clear()
    np.save(tmp_path / "mine.npy", games.rps().P)
    assert main(words(out, f"{mine},rps", "mpo:step_size=0.5,mmd")) == 0
    assert ran == ["mpo:step_size=0.5 on mine", "mmd on mine"]
    ran.clear()
    assert main(words(out, "rps", "mmd", updates=31)) == 0
    assert main([*words(out, "rps", "mmd"), "--initial", "uniform"]) == 0
    assert ran == ["mmd on rps", "mmd on rps"]
    ran.clear()
    assert main([*words(out, f"{mine},rps"), "--targets", "0.3"]) == 0
    assert ran == ["mpo on mine"]
    assert [row["method"] for row in rows(out)] == ["mpo", "mmd", "mpo", "mmd"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "swapped", "text"])
def test_damaged_cells_are_noticed_and_computed_again(
    tmp_path: Path, ran: list[str], capsys: Capture, damage: str
) -> None:
    assert main(words(tmp_path, "rps")) == 0
    good = rows(tmp_path)
    mmd, mpo = sorted((tmp_path / "curves").iterdir())
    content = mpo.read_bytes()
    broken = {
        "truncated": content[: len(content) // 2],
        "flipped": content[:200] + bytes([content[200] ^ 0xFF]) + content[201:],
        "empty": b"",
        "swapped": mmd.read_bytes(),
        "text": b"not an archive",
    }[damage]
    mpo.write_bytes(broken)
    ran.clear()
    capsys.readouterr()
    assert main(words(tmp_path, "rps")) == 0
    assert ran == ["mpo on rps"]
    captured = capsys.readouterr()
    assert re.search(rf"{mpo.name} (is damaged|holds another cell).*computing it again", captured.err)
    assert [row["final_gap"] for row in rows(tmp_path)] == [row["final_gap"] for row in good]


def test_a_failing_cell_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    run_cell = compare.run_cell

    def failing(cell: Cell, game: games.PreferenceGame) -> CellResult:
        if cell.choice.name == "mpo" and cell.game.label == "rps":
            raise NonFiniteLossError("no luck <today>")
        return run_cell(cell, game)

    monkeypatch.setattr(compare, "run_cell", failing)
    assert main(words(tmp_path, "rps,biased_rps")) == 1
    captured = capsys.readouterr()
    assert "3 computed, 0 reused, 1 failed" in captured.out
    assert "mpo on rps failed: no luck <today>" in captured.err
    failed = rows(tmp_path)[0]
    assert (failed["failure"], failed["final_gap"]) == ("no luck <today>", "")
    assert "no luck &lt;today&gt;" in (tmp_path / "index.html").read_text()
    monkeypatch.setattr(compare, "run_cell", run_cell)
    assert main(words(tmp_path, "rps,biased_rps")) == 0
    assert "1 computed, 3 reused, 0 failed" in capsys.readouterr().out


def test_all_cells_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(cell: Cell, game: games.PreferenceGame) -> CellResult:
        raise NonFiniteLossError("no luck")

    monkeypatch.setattr(compare, "run_cell", failing)
    assert main(words(tmp_path, "rps")) == 1
    assert "No method finished on this game" in (tmp_path / "index.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_an_interruption_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    counted = compare.run_cell

    def interrupted(cell: Cell, game: games.PreferenceGame) -> CellResult:
        if len(ran) == 3:
            raise KeyboardInterrupt
        return counted(cell, game)

    monkeypatch.setattr(compare, "run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"3 of 4 cells are finished and kept in .*run the same command"):
        main(words(tmp_path))
    assert len(rows(tmp_path)) == 3
    monkeypatch.setattr(compare, "run_cell", counted)
    assert main(words(tmp_path)) == 0
    assert len(ran) == 4


@pytest.mark.usefixtures("undrawn")
def test_steps_beyond_float64_end_in_rows_not_in_tracebacks(tmp_path: Path, capsys: Capture) -> None:
    code = main(
        words(tmp_path, "biased_rps", "mpo:step_size=1e308,mirror_descent:step_size=1e308,omwu:step_size=1e300")
    )
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    failed = [row for row in rows(tmp_path) if row["failure"]]
    assert code == (1 if failed else 0)
    for row in rows(tmp_path):
        assert row["failure"] or np.isfinite(float(row["final_gap"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--methods": "mpo,mmdd"}, "unknown method 'mmdd'; did you mean 'mmd'?"),
        ({"--methods": "mpo:stepsize=1"}, "did you mean 'step_size'?"),
        ({"--methods": ","}, "no methods to run"),
        ({"--games": "rps,biased_rsp"}, "unknown game 'biased_rsp'; did you mean 'biased_rps'?"),
        ({"--games": ","}, "no games to play"),
        ({"--games": "nowhere.npy"}, "nowhere.npy: no such file"),
        ({"--updates": "-1"}, "updates is -1, expected at least 0"),
        ({"--targets": "1e-2,soon"}, "--targets is '1e-2,soon', expected gaps such as"),
        ({"--targets": "0"}, "strictly between 0 and 1"),
        ({"--seeds": "0,x"}, "--seeds is '0,x', expected integers"),
        ({"--seeds": "-1"}, "expected integers of at least 0"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    tmp_path: Path, ran: list[str], capsys: Capture, change: dict[str, str], message: str
) -> None:
    given = {"--games": "rps", "--methods": "mpo", "--updates": "5", "--out": str(tmp_path / "out")} | change
    assert main(["compare", *(f"{key}={value}" for key, value in given.items())]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert ran == [] and not (tmp_path / "out").exists()


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, ran: list[str], capsys: Capture) -> None:
    (tmp_path / "thesis.tex").write_text("my life's work")
    assert main(words(tmp_path)) == 2
    assert "holds something else than a comparison (thesis.tex)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main(words(tmp_path / "thesis.tex")) == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert main(words(tmp_path / "thesis.tex" / "deeper")) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert ran == []


def test_comparisons_of_another_format_are_left_alone(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps({"format": 99}))
    assert main(words(tmp_path)) == 2
    assert "is of format 99, expected 1" in capsys.readouterr().err
    (tmp_path / "comparison.json").write_text("[")
    assert main(words(tmp_path)) == 2
    assert "comparison.json is damaged" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folders_that_are_not_writable(tmp_path: Path, capsys: Capture) -> None:
    tmp_path.chmod(0o500)
    try:
        assert main(words(tmp_path / "out")) == 2
    finally:
        tmp_path.chmod(0o700)
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("magnetar.cli.games.cell_files.np.savez_compressed", full)
    assert main(words(tmp_path)) == 2
    assert "cannot be written ([Errno 28] No space left on device); free some space" in capsys.readouterr().err
    assert list((tmp_path / "curves").iterdir()) == []
