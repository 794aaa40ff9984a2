"""What a run takes on each GPU, from its settings: said before anything large is loaded."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import str_to_bool

from magnetar.errors import ModelError
from magnetar.methods import Method
from magnetar.modeling.sizing import Job, ModelShape, memory
from magnetar.modeling.vocabulary import CHUNK_LOGITS_ELSEWHERE
from magnetar.training.config import NashConfig
from magnetar.training.roles_needed import needed_roles
from magnetar.training.sharding import will_be_sharded

__all__ = [
    "RESERVE",
    "changes_that_fit",
    "device_bytes_of",
    "gpu_bytes",
    "job_of_run",
    "job_of_settings",
    "shape_of",
    "warning_of_memory",
]

RESERVE = 0.1
"""Part of a GPU's memory that is left for its context and for fragmentation."""
GIGA = 1e9
LORA_RANK = 16
"""Of the adapters that are proposed to a run which trains all weights."""
CHANGES = {
    "lora": f"use_peft: true (lora_r: {LORA_RANK})",
    "activation_checkpointing": "activation_checkpointing: true",
    "sharded": "shards (accelerate launch --config_file examples/accelerate/fsdp2.yaml)",
    "max_tokens_per_pass": "a lower max_tokens_per_pass",
}


def shape_of(config: Any, name: str) -> ModelShape:
    """A model's shape by its configuration.

    Args:
        config: Of transformers.
        name: What the user calls the model.

    Raises:
        ModelError: Its sizes cannot be read.
    """
    try:
        return ModelShape.from_config(config)
    except AttributeError as error:
        raise ModelError(
            f"the sizes of {name!r} ({config.model_type}) cannot be read ({error}); expected a decoder with "
            "gated feed-forward layers, such as Llama, Qwen or Mistral"
        ) from error


def job_of_run(
    shape: ModelShape,
    method: Method,
    *,
    lora_rank: int | None,
    weight_bytes: int,
    sharded: bool,
    inner_epochs: int = 1,
    **sizes: Any,
) -> Job:
    """The job that a run is.

    Args:
        shape: Of the policy.
        method: What is trained.
        lora_rank: Of the adapters; None trains all weights.
        weight_bytes: Of a weight as it is loaded.
        sharded: Whether weights are in shards.
        inner_epochs: Optimiser steps on each batch.
        **sizes: Further fields of `Job`.
    """
    objective, lora = method.sampled_objective, lora_rank is not None
    steps = inner_epochs * (2 if method.prediction == "extragradient" else 1)
    reused = steps > 1 or method.sample_from != "current"
    given: dict[str, Any] = {
        "frozen_roles": len(needed_roles(method, inner_epochs)) - lora,
        "weight_bytes": weight_bytes,
        "compute_bytes": weight_bytes,
        # Adapters are kept in float32, and so are weights that are sharded.
        "trained_bytes": 4 if lora or sharded else weight_bytes,
        "exact_kl": objective.needs_magnet_distribution + (objective.needs_behavior_distribution and reused),
        "critic": objective.needs_value,
    }
    return Job(shape, lora_rank=lora_rank, sharded=sharded, **(given | sizes))


def job_of_settings(
    shape: ModelShape, args: NashConfig, *, lora_rank: int | None, weight_bytes: int, chunk_logits: int | None
) -> Job:
    """The job that the settings of a run describe, on each of its devices.

    Args:
        shape: Of the policy.
        args: Settings of the trainer.
        lora_rank: Of the adapters; None trains all weights.
        weight_bytes: Of a weight as it is loaded.
        chunk_logits: Logits that a pass holds at a time on the device.
    """
    method = args.build_method()
    job = job_of_run(
        shape,
        method,
        lora_rank=lora_rank,
        weight_bytes=weight_bytes,
        sharded=will_be_sharded(args),
        inner_epochs=args.inner_epochs,
        compute_bytes=2 if args.bf16 or args.fp16 else weight_bytes,
        prompts=args.per_device_train_batch_size,
        group_size=args.num_generations,
        prompt_tokens=args.max_prompt_length,
        response_tokens=args.max_completion_length,
        tokens_per_pass=args.max_tokens_per_pass,
        responses_at_once=args.max_responses_per_pass,
        devices=max(args.world_size, 1),
        # Offloaded activations leave about as much on the device as those that are computed again.
        checkpointing=bool(args.activation_checkpointing or args.activation_offloading),
        chunk_logits=chunk_logits,
    )
    return replace(job, frozen_roles=min(job.frozen_roles, 1)) if args.frozen_roles_on_cpu else job


def gpu_bytes(job: Job, pool: float = 0.0, *, pool_is_given_back: bool = False, generates: bool = True) -> float:
    """Bytes on a GPU at the peak: without the process itself, which is in main memory.

    Args:
        job: What is run.
        pool: Bytes that vLLM keeps for itself on the same GPU.
        pool_is_given_back: Whether it does so in generation only.
        generates: Whether the training process generates itself.
    """
    need = memory(job)
    lasting = sum(value for name, value in need.lasting.items() if name != "process")
    rollout = (sum(need.rollout.values()) if generates else 0.0) + pool
    update = sum(need.update.values()) + (0.0 if pool_is_given_back else pool)
    return lasting + max(rollout, update)


def changes_that_fit(job: Job, room: float, *, lora_frozen_roles: int, **pool: Any) -> list[str]:
    """Names of single changes with which a job that is too large would fit.

    Args:
        job: What is run.
        room: Bytes that there are.
        lora_frozen_roles: Frozen roles with adapters.
        **pool: As for `gpu_bytes`.

    Returns:
        Of "lora", "activation_checkpointing", "sharded" and "max_tokens_per_pass".
    """
    changes: dict[str, dict[str, Any]] = {
        "activation_checkpointing": {"checkpointing": True},
        "sharded": {"sharded": True, "trained_bytes": 4},
        "max_tokens_per_pass": {"tokens_per_pass": job.row_tokens},
    }
    if job.lora_rank is None:
        changes["lora"] = {"lora_rank": LORA_RANK, "frozen_roles": lora_frozen_roles, "trained_bytes": 4}
    if job.devices == 1:
        del changes["sharded"]
    found = {name: replace(job, **change) for name, change in changes.items()}
    return [name for name in CHANGES if name in found and gpu_bytes(found[name], **pool) <= room]


def device_bytes_of(args: NashConfig) -> float | None:
    """Memory of the GPU that a process of the run uses; None on a CPU, whose memory is not the run's alone."""
    if args.device.type != "cuda":
        return None
    return float(torch.cuda.get_device_properties(args.device).total_memory)


def warning_of_memory(
    args: NashConfig, config: Any, name: str, *, lora_rank: int | None, dtype: str, device_bytes: float
) -> str | None:
    """One line for a run that will probably not fit on its GPU, with what to change.

    Args:
        args: Settings of the trainer.
        config: The model's, of transformers.
        name: What the user calls the model.
        lora_rank: Of the adapters; None trains all weights.
        dtype: In which weights are loaded; "auto" for the configuration's.
        device_bytes: Memory of the GPU.

    Returns:
        None if it fits, or if nothing can be predicted: a model whose sizes are not known, or weights that are kept in
        main memory between passes.
    """
    try:
        shape = shape_of(config, name)
    except ModelError:
        return None
    if _keeps_weights_in_main_memory(args):
        return None
    known = dtype if dtype != "auto" else str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    job = job_of_settings(
        shape,
        args,
        lora_rank=lora_rank,
        weight_bytes=4 if known == "float32" else 2,
        chunk_logits=CHUNK_LOGITS_ELSEWHERE,
    )
    pool: dict[str, Any] = {"generates": not args.use_vllm}
    if args.use_vllm and args.vllm_mode == "colocate":
        pool |= {"pool": args.vllm_gpu_memory_utilization * device_bytes}
        pool |= {"pool_is_given_back": args.vllm_enable_sleep_mode}
    room, peak = (1.0 - RESERVE) * device_bytes, gpu_bytes(job, **pool)
    if peak <= room:
        return None
    lora_frozen = len(needed_roles(args.build_method(), args.inner_epochs)) - 1
    helps = changes_that_fit(job, room, lora_frozen_roles=lora_frozen, **pool)
    largest = memory(job).largest
    advice = f"it would fit with {' or '.join(CHANGES[change] for change in helps)}" if helps else _advice(job)
    return (
        f"warning: this run will probably not fit: about {peak / GIGA:.0f} GB on each GPU at the peak, of "
        f"{device_bytes / GIGA:.0f} GB less {RESERVE:.0%} in reserve; the largest part is {largest}; {advice} "
        "(`magnetar size` says more)"
    )


def _advice(job: Job) -> str:
    return "no single change is enough" + ("" if job.devices > 1 else "; shard the weights over several GPUs")


def _keeps_weights_in_main_memory(args: NashConfig) -> bool:
    """Whether shards are in main memory between passes, as FSDP's and DeepSpeed's offloading does."""
    settings: Mapping[str, Any] = args.fsdp_config if isinstance(args.fsdp_config, Mapping) else {}
    by_launcher = str_to_bool(os.environ.get("FSDP_OFFLOAD_PARAMS", "false")) == 1
    plugin: Any = args.deepspeed_plugin
    zero = {} if plugin is None else plugin.deepspeed_config.get("zero_optimization", {})
    offloads = [zero.get(name, {}) or {} for name in ("offload_param", "offload_optimizer")]
    by_zero = any(offload.get("device", "none") not in (None, "none") for offload in offloads)
    return by_launcher or bool(settings.get("offload_params")) or by_zero
