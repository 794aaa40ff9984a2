"""Starts a script on two processes, as users start theirs."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

# Threads of the process group outlive it, and on a busy machine they abort an interpreter that ends in its own time.
ENDING = """
import torch.distributed
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


def run_two_processes(folder: Path, settings: Any, text: str, *imports: Path) -> None:
    """Run ``text`` on two processes with ``sys.argv[1:] = [folder, settings as JSON]``.

    ``imports`` are the folders it imports from; ``Path``, ``json``, ``os`` and ``sys`` are imported for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script.py"
    paths = [str(path) for path in (*imports, Path(__file__).parent)]
    heading = f"import json, os, sys\nfrom pathlib import Path\n\nsys.path[:0] = {paths}\n"
    script.write_text(heading + text + ENDING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)]
    done = subprocess.run(
        [sys.executable, "-m", *launch, str(script), str(folder), json.dumps(settings)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
