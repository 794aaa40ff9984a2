"""`magnetar size`: what a run takes in memory, before anything large is loaded."""

import argparse
from pathlib import Path
from typing import Any

from magnetar.cli.arguments import at_least, options_of, parse_known
from magnetar.errors import ConfigError, unknown_name

__all__ = ["main"]

GIGA = 1e9
FLAGS = {
    "lora": "--lora_r 16",
    "activation_checkpointing": "--activation_checkpointing",
    "sharded": "--sharded",
    "max_tokens_per_pass": "a lower --max_tokens_per_pass",
}


def main(argv: list[str]) -> int:
    """Predict the memory of a run and print its parts.

    Args:
        argv: Arguments after ``magnetar size``.

    Returns:
        Exit status: 0 when it fits, 1 when it does not.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    from transformers import AutoConfig

    from magnetar.methods import METHODS
    from magnetar.modeling.loading import locate_model
    from magnetar.modeling.sizing import memory
    from magnetar.training.roles_needed import needed_roles
    from magnetar.training.sizing import RESERVE, changes_that_fit, gpu_bytes, job_of_run, shape_of

    method = METHODS[args.method]()
    source = locate_model(args.model, None)
    config: Any = AutoConfig.from_pretrained((source.base or source).place)
    shape = shape_of(config, args.model)
    job = job_of_run(
        shape,
        method,
        lora_rank=args.lora_r or None,
        weight_bytes=4 if args.dtype == "float32" else 2,
        compute_bytes=2 if args.bf16 or args.dtype != "float32" else 4,
        sharded=args.sharded,
        inner_epochs=args.inner_epochs,
        prompts=args.per_device_train_batch_size,
        group_size=args.num_generations,
        prompt_tokens=args.max_prompt_length,
        response_tokens=args.max_completion_length,
        tokens_per_pass=args.max_tokens_per_pass,
        responses_at_once=args.max_responses_per_pass,
        devices=args.gpus,
        checkpointing=args.activation_checkpointing,
        engine="vllm" if args.use_vllm else "transformers",
        vllm_devices=args.vllm_gpus,
    )
    need = memory(job)
    lasting = {name: value for name, value in need.lasting.items() if name != "process"}
    print(f"{shape.parameters / GIGA:.2f} billion weights, of which {job.trained / GIGA:.3f} billion train")
    for title, parts in (("all the time", lasting), ("in generation", need.rollout), ("in an update", need.update)):
        print(f"{title + ':':<14} {sum(parts.values()) / GIGA:7.2f} GB")
        for name, value in parts.items():
            if value:
                print(f"    {name:<28} {value / GIGA:7.2f} GB")
    peak, room = gpu_bytes(job), (1.0 - RESERVE) * args.gpu_memory * GIGA
    print(f"at the peak:   {peak / GIGA:7.2f} GB on each GPU, of {args.gpu_memory:g} GB less {RESERVE:.0%} in reserve")
    if peak <= room:
        print("it should fit")
        return 0
    helps = changes_that_fit(job, room, lora_frozen_roles=len(needed_roles(method, args.inner_epochs)) - 1)
    hint = f"; it would with {' or '.join(FLAGS[change] for change in helps)}" if helps else ""
    print(f"it does not fit: the largest part is {need.largest}{hint}. See docs/scaling.md")
    return 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar size",
        description="Predict what a run takes in GPU memory; only the model's configuration is read.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    count = at_least(1)
    option("config", "settings of a run, as `magnetar train --config` reads them; flags win", type=Path)
    option("model", "'demo', a Hub id or a folder")
    option("method", "as in `magnetar train` (default mpo)", default="mpo", choices=sorted(_trainable()))
    option(
        "lora_r",
        "rank of the adapters, on all linear maps; 0 trains all weights (default 16)",
        type=at_least(0),
        default=16,
    )
    option("dtype", "of passes and frozen weights", choices=("bfloat16", "float32"), default="bfloat16")
    option("bf16", "passes in bfloat16, whatever the weights are in", action="store_true")
    option("per_device_train_batch_size", "prompts of a GPU in an update (default 4)", type=count, default=4)
    option("num_generations", "responses to each prompt (default 4)", type=count, default=4)
    option("max_prompt_length", "tokens of a prompt (default 256)", type=count, default=256)
    option("max_completion_length", "tokens of a response (default 256)", type=count, default=256)
    option("max_tokens_per_pass", "token budget of a pass (default 4096)", type=count, default=4096)
    option("max_responses_per_pass", "responses generated at a time (default: all)", type=count)
    option("inner_epochs", "optimiser steps on each batch (default 1)", type=count, default=1)
    option("activation_checkpointing", "compute activations again in the backward pass", action="store_true")
    option(
        "gradient_checkpointing", "its older name", action="store_true", dest="activation_checkpointing", default=False
    )
    option("gpus", "GPUs that share the work (default 1)", type=count, default=1)
    option("sharded", "they share the weights too: FSDP2 or ZeRO-3", action="store_true")
    option("use_vllm", "generate with vLLM in the same processes", action="store_true")
    option("vllm_gpus", "GPUs over which vLLM spreads its weights (default 1)", type=count, default=1)
    option("gpu_memory", "gigabytes of one GPU (default 80)", type=float, default=80.0)
    args = parse_known(parser, argv)
    if args.config is not None:
        parser.set_defaults(**_of_run(args.config, vars(args)))
        args = parse_known(parser, argv)
    if args.model is None:
        raise ConfigError("model is missing; give --model, or --config with the file of a run")
    return args


def _of_run(path: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Values for this command's options from the file of a run, what the file leaves out being as in a run."""
    from dataclasses import MISSING, fields

    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.cli.run_options import RunOptions, read_yaml
    from magnetar.methods import PUBLISHED_NAMES
    from magnetar.training.config import NashConfig

    entries = {entry.name: entry for kind in (RunOptions, NashConfig, ModelConfig) for entry in fields(kind)}
    given = read_yaml(path, set(entries))
    run = {name: e.default for name, e in entries.items() if name in known and e.default is not MISSING} | given
    run["method"] = PUBLISHED_NAMES.get(str(run["method"]), run["method"])
    if run["method"] not in _trainable():
        raise ConfigError(unknown_name("method", str(run["method"]), _trainable()))
    run["model"] = given.get("model") or given.get("model_name_or_path")
    run["dtype"] = given.get("dtype") or "float32"
    run["lora_r"] = run["lora_r"] if given.get("use_peft") else 0
    run["vllm_gpus"] = given.get("vllm_tensor_parallel_size", 1)
    again = given.get("activation_checkpointing") or given.get("gradient_checkpointing")
    run["activation_checkpointing"] = bool(again)
    return {name: value for name, value in run.items() if name in known and name != "config"}


def _trainable() -> list[str]:
    from magnetar.methods import METHODS

    return [name for name, make in METHODS.items() if make().games_only_because is None]
