"""`magnetar size`: what a run takes in memory, before anything large is loaded."""

import argparse
from dataclasses import replace
from typing import Any

from magnetar.cli.arguments import at_least, options_of, parse_known
from magnetar.errors import ModelError

__all__ = ["main"]

GIGA = 1e9
RESERVE = 0.1


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
    from magnetar.modeling.sizing import Job, ModelShape, memory
    from magnetar.training.roles_needed import needed_roles

    method = METHODS[args.method]()
    source = locate_model(args.model, None)
    config: Any = AutoConfig.from_pretrained((source.base or source).place)
    try:
        shape = ModelShape.from_config(config)
    except AttributeError as error:
        raise ModelError(
            f"the sizes of {args.model!r} ({config.model_type}) cannot be read ({error}); expected a decoder with "
            "gated feed-forward layers, such as Llama, Qwen or Mistral"
        ) from error
    objective, lora = method.sampled_objective, args.lora_r > 0
    bytes_each = 4 if args.dtype == "float32" else 2
    job = Job(
        shape,
        lora_rank=args.lora_r or None,
        frozen_roles=len(needed_roles(method, args.inner_epochs)) - lora,
        weight_bytes=bytes_each,
        compute_bytes=bytes_each,
        # Adapters are kept in float32, and so are weights that are sharded.
        trained_bytes=4 if lora or args.sharded else bytes_each,
        prompts=args.per_device_train_batch_size,
        group_size=args.num_generations,
        prompt_tokens=args.max_prompt_length,
        response_tokens=args.max_completion_length,
        tokens_per_pass=args.max_tokens_per_pass,
        responses_at_once=args.max_responses_per_pass,
        devices=args.gpus,
        sharded=args.sharded,
        checkpointing=args.gradient_checkpointing,
        exact_kl=objective.needs_magnet_distribution or objective.needs_behavior_distribution,
        critic=objective.needs_value,
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
                print(f"    {name:<22} {value / GIGA:7.2f} GB")
    peak = need.peak - need.lasting["process"]
    room = (1.0 - RESERVE) * args.gpu_memory * GIGA
    fits = peak <= room
    print(f"at the peak:   {peak / GIGA:7.2f} GB on each GPU, of {args.gpu_memory:g} GB less {RESERVE:.0%} in reserve")
    if fits:
        print("it should fit")
        return 0
    others: dict[str, dict[str, Any]] = {
        "--sharded": {"sharded": True},
        "--gradient_checkpointing": {"checkpointing": True},
    }
    others["--lora_r 16"] = {"lora_rank": 16, "frozen_roles": len(needed_roles(method, args.inner_epochs)) - 1}
    helps = [
        option
        for option, change in others.items()
        if memory(replace(job, **change)).peak - need.lasting["process"] <= room
    ]
    hint = f"; it would with {' or '.join(helps)}" if helps else ""
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
    option("model", "'demo', a Hub id or a folder", required=True)
    option("method", "as in `magnetar train` (default mpo)", default="mpo", choices=sorted(_trainable()))
    option(
        "lora_r",
        "rank of the adapters, on all linear maps; 0 trains all weights (default 16)",
        type=at_least(0),
        default=16,
    )
    option("dtype", "of passes and frozen weights", choices=("bfloat16", "float32"), default="bfloat16")
    option("per_device_train_batch_size", "prompts of a GPU in an update (default 4)", type=count, default=4)
    option("num_generations", "responses to each prompt (default 4)", type=count, default=4)
    option("max_prompt_length", "tokens of a prompt (default 256)", type=count, default=256)
    option("max_completion_length", "tokens of a response (default 256)", type=count, default=256)
    option("max_tokens_per_pass", "token budget of a pass (default 4096)", type=count, default=4096)
    option("max_responses_per_pass", "responses generated at a time (default: all)", type=count)
    option("inner_epochs", "optimiser steps on each batch (default 1)", type=count, default=1)
    option("gradient_checkpointing", "compute activations again in the backward pass", action="store_true")
    option("gpus", "GPUs that share the work (default 1)", type=count, default=1)
    option("sharded", "they share the weights too: FSDP2 or ZeRO-3", action="store_true")
    option("use_vllm", "generate with vLLM in the same processes", action="store_true")
    option("vllm_gpus", "GPUs over which vLLM spreads its weights (default 1)", type=count, default=1)
    option("gpu_memory", "gigabytes of one GPU (default 80)", type=float, default=80.0)
    return parse_known(parser, argv)


def _trainable() -> list[str]:
    from magnetar.methods import METHODS

    return [name for name, make in METHODS.items() if make().games_only_because is None]
