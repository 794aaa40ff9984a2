"""The rollout engine that the settings of a run ask for."""

from typing import Any, cast

import torch
from torch import nn

from magnetar.modeling.decoding_weights import MergeChoice
from magnetar.rollout import RolloutEngine, TransformersEngine
from magnetar.training.config import NashConfig

__all__ = ["make_engine"]


def make_engine(args: NashConfig, model: nn.Module, tokenizer: Any) -> RolloutEngine:
    """Build the engine; vLLM is not started yet.

    Args:
        args: Settings of the run.
        model: The policy.
        tokenizer: Its tokenizer.

    Raises:
        MissingDependencyError: vLLM is to run here and is not installed.
        ConfigError: Settings that vLLM cannot work with.
    """
    if not args.use_vllm:
        return TransformersEngine(
            tokenizer,
            args.sampling,
            max_batch_responses=args.max_responses_per_pass,
            merge=cast(MergeChoice, args.merge_for_rollouts),
        )
    from magnetar.rollout.vllm import ColocatedSettings, ServerSettings, vllm_engine

    args.check_engine()
    if args.vllm_mode == "server":
        settings: Any = ServerSettings(
            base_url=args.vllm_server_base_url,
            timeout_seconds=args.vllm_server_timeout,
            sync_folder=args.vllm_sync_folder,
            world_size=args.world_size,
            rank=args.process_index,
        )
    else:
        settings = ColocatedSettings(
            max_model_len=args.vllm_max_model_length or args.max_prompt_length + args.max_completion_length,
            dtype=_dtype(args, model),
            gpu_memory_utilization=args.vllm_gpu_memory_utilization,
            tensor_parallel_size=args.vllm_tensor_parallel_size,
            enforce_eager=args.vllm_enforce_eager,
            enable_sleep_mode=args.vllm_enable_sleep_mode,
            max_num_seqs=args.max_responses_per_pass,
            sync_folder=args.vllm_sync_folder,
            world_size=args.world_size,
            rank=args.process_index,
            local_rank=args.local_process_index,
        )
    return cast(RolloutEngine, vllm_engine(tokenizer, args.sampling, settings))


def _dtype(args: NashConfig, model: nn.Module) -> str:
    """The precision that the policy is trained in: that of its passes, else that of its unquantised weights."""
    if args.vllm_dtype != "auto":
        return args.vllm_dtype
    if args.bf16 or args.fp16:
        return "bfloat16" if args.bf16 else "float16"
    floating = (p.dtype for p in model.parameters() if p.is_floating_point() and not p.requires_grad)
    trained = (p.dtype for p in model.parameters() if p.is_floating_point())
    return str(next(floating, None) or next(trained, torch.float32)).removeprefix("torch.")
