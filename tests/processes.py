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


# Accelerate shards weights on GPUs only. What it calls to do so works on the CPU too, so the processes of a test tell
# it that they have GPUs; their tensors stay on the CPU.
SHARDING = """
from accelerate import PartialState
from accelerate.utils import DistributedType

found_out = PartialState.__init__
def as_on_gpus(state, cpu=False, **kwargs):
    found_out(state, cpu=True, **kwargs)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
PartialState.__init__ = as_on_gpus
"""
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "DS_ACCELERATOR": "cpu"}


def run_two_processes(
    folder: Path, settings: Any, text: str, *imports: Path, variables: dict[str, str] | None = None
) -> None:
    """Run ``text`` on two processes with ``sys.argv[1:] = [folder, settings as JSON]``.

    ``imports`` are the folders it imports from; ``Path``, ``json``, ``os`` and ``sys`` are imported for it.
    ``variables`` of the environment say how accelerate shards weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "script.py"
    paths = [str(path) for path in (*imports, Path(__file__).parent)]
    heading = f"import json, os, sys\nfrom pathlib import Path\n\nsys.path[:0] = {paths}\n"
    script.write_text(heading + (SHARDING if variables else "") + text + ENDING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(port)]
    done = subprocess.run(
        [sys.executable, "-m", *launch, str(script), str(folder), json.dumps(settings)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (variables or {}),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-9000:]
