"""A comparison that is told to stop keeps what is finished, says how to go on, and then computes only the rest."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from magnetar.cli.games import main

CODE = "import sys; from magnetar.cli.main import main; sys.exit(main())"
GAMES = "random:actions=60"
CELLS = 6


def finished(out: Path) -> int:
    return len(list((out / "curves").glob("*.npz"))) if (out / "curves").exists() else 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_cells(
    tmp_path: Path, number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    seeds = ",".join(map(str, range(CELLS)))
    words = ["compare", "--games", GAMES, "--seeds", seeds, "--methods", "mpo", "--updates", "8000", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "games", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while finished(out) < 2:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    kept = finished(out)
    assert process.returncode == status, err
    assert 2 <= kept < CELLS
    assert "cells are finished and kept" in err and "run the same command to resume" in err
    assert "Traceback" not in err
    with (out / "results.csv").open(newline="") as file:
        assert kept - 1 <= len(list(csv.DictReader(file))) <= kept
    assert not [path for path in out.rglob(".*") if path.is_file()]

    assert main(words) == 0
    assert f"{CELLS} cells: {CELLS - kept} computed, {kept} reused, 0 failed" in capsys.readouterr().out
    assert (out / "index.html").exists()
