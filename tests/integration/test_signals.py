"""A run that is told to stop saves, says how to go on, and loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from magnetar.cli.main import main
from magnetar.training.checkpoints import latest_checkpoint

FLAGS = ["--judge", "python:tiny_run_judge:slow", "--max_steps", "60", "--save_strategy", "no", "--eval_holdout", "0"]
FLAGS += ["--inner_epochs", "2", "--kl_estimator", "exact", "--report", "false"]


def wait_for_lines(path: Path, count: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_text().count("\n") < count:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the run ended or hung before step {count}: {process.communicate()}")
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_run_can_go_on(at_work: Path, tmp_path: Path, number: int, status: int) -> None:
    command = ["train", "--config", "run.yaml", *FLAGS, "--output_dir"]
    slow = at_work / "slow"
    slow.touch()
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; from magnetar.cli.main import main; sys.exit(main())", *command, str(run)],
        cwd=at_work,
        # The same arithmetic as in this process: sums depend on the number of threads.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_lines(run / "metrics.jsonl", 3, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
        slow.unlink()
    assert process.returncode == status, err
    checkpoint = latest_checkpoint(run)
    step = int(checkpoint.name.split("-")[1])
    assert 3 <= step < 60
    assert f"stopped by {signal.Signals(number).name}" in err
    assert f"resume_from_checkpoint={checkpoint}" in err
    assert "Traceback" not in err
    assert not (run / "adapter_model.safetensors").exists()

    assert main([*command, str(run), "--resume_from_checkpoint", str(checkpoint)]) == 0
    assert main([*command, str(tmp_path / "whole")]) == 0
    name = "adapter_model.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
