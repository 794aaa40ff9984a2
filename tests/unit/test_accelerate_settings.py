"""The settings under `examples/accelerate` are read by accelerate's own loader and launch what they say."""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from processes import FSDP2

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"
KINDS = {
    "one_gpu": (DistributedType.NO, 1),
    "ddp": (DistributedType.MULTI_GPU, 1),
    "fsdp2": (DistributedType.FSDP, 1),
    "fsdp2_nodes": (DistributedType.FSDP, 2),
    "zero3": (DistributedType.DEEPSPEED, 1),
    "zero3_nodes": (DistributedType.DEEPSPEED, 2),
}


def test_there_is_a_file_for_each_kind_of_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_settings(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    kind, nodes = KINDS[name]
    config = load_config_from_file(str(path))
    assert config.distributed_type == kind
    assert config.num_machines == nodes
    text = path.read_text(encoding="utf-8")
    # The command in the heading, as a user would type it with numbers for RANK and HEAD.
    command = " ".join(line.lstrip("# ").rstrip("\\ ") for line in text.split("compute_environment")[0].splitlines())
    found = re.search(r"accelerate launch (--config_file .* --config run\.yaml)", command)
    assert found is not None
    arguments = found[1].replace("RANK", "1").replace("HEAD", "10.0.0.1").replace("examples/accelerate", str(FOLDER))
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments.split()))
    assert args.module and args.training_script == "magnetar.cli.main"
    assert args.training_script_args == ["train", "--config", "run.yaml"]
    assert args.num_processes == {"one_gpu": 1}.get(name, 8 * nodes)
    assert args.use_fsdp == (kind == DistributedType.FSDP)
    assert args.use_deepspeed == (kind == DistributedType.DEEPSPEED)
    if nodes > 1:
        assert (args.machine_rank, args.main_process_ip) == (1, "10.0.0.1")
    if kind == DistributedType.DEEPSPEED:
        assert args.zero_stage == 3


@pytest.mark.parametrize("name", ["fsdp2", "fsdp2_nodes"])
def test_what_is_tested_on_two_processes_is_what_the_settings_say(name: str) -> None:
    args = launch_command_parser().parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), "script.py"])
    args, _, _ = _validate_launch_command(args)
    args.main_process_port = 0
    variables = prepare_multi_gpu_env(args)
    # Slices in pieces and loading by one process have tests of their own.
    apart = {"FSDP_STATE_DICT_TYPE", "FSDP_CPU_RAM_EFFICIENT_LOADING"}
    assert {key: variables[key] for key in FSDP2 if key not in apart} == {
        key: value for key, value in FSDP2.items() if key not in apart
    }
