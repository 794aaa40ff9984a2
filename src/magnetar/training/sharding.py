"""Which ways of sharding weights a run can use, and how roles follow the policy into its shards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedType, str_to_bool
from torch import nn
from transformers import TrainingArguments

from magnetar.errors import ConfigError
from magnetar.methods import Method
from magnetar.modeling.fully_sharded import FullySharded
from magnetar.modeling.roles import Roles
from magnetar.modeling.zero_sharded import ZeroSharded
from magnetar.training.config import NashConfig

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
__all__ = [
    "agreed",
    "check_sharding",
    "keep_outputs_precise",
    "loading_whole_models",
    "shard_model",
    "shard_roles",
    "will_be_sharded",
]


def will_be_sharded(args: TrainingArguments) -> bool:
    """Whether the launcher or the settings ask for sharded weights."""
    if args.world_size == 1:
        return False
    by_launcher = str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) == 1
    zero: Any = args.deepspeed_plugin
    return bool(by_launcher or args.fsdp or (zero is not None and zero.zero_stage == 3))


def check_sharding(
    accelerator: Accelerator, args: NashConfig, method: Method, *, has_critic: bool, has_adapter: bool = False
) -> None:
    """Refuse what does not work with sharded weights.

    Raises:
        ConfigError: It is asked for.
    """
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ConfigError("fsdp_version is 1, which flattens weights so that roles cannot move; set fsdp_version: 2")
    kind = accelerator.distributed_type
    zero: Any = accelerator.state.deepspeed_plugin if kind == DistributedType.DEEPSPEED else None
    if zero is not None and zero.zero_stage != 3:
        raise ConfigError(
            f"zero_stage is {zero.zero_stage}, of which every process holds all weights; "
            "set zero_stage: 3, or launch with data parallelism (accelerate launch --multi_gpu)"
        )
    if kind == DistributedType.DEEPSPEED and method.prediction != "none":
        raise ConfigError(
            f"method {method.name!r} sets weights back or keeps those before a step, which DeepSpeed does not allow; "
            "shard with FSDP2 instead, or use a method without a prediction, such as 'mpo'"
        )
    if kind not in SHARDED:
        return
    if args.world_size == 1:
        raise ConfigError(
            "the launcher shards weights over 1 process, which has them all; start without FSDP or DeepSpeed"
        )
    state: Any = accelerator.state
    if kind == DistributedType.FSDP and has_adapter and state.fsdp_plugin.activation_checkpointing:
        raise ConfigError(
            "fsdp_activation_checkpointing is true, whose wrappers hide an adapter's weights from PEFT, so that "
            "checkpoints would hold none; set it to false, and gradient_checkpointing: true in the run's settings"
        )
    if has_critic and kind == DistributedType.DEEPSPEED:
        raise ConfigError(
            f"method {method.name!r} has a critic, and DeepSpeed steps one model; shard with FSDP2 "
            "(examples/accelerate/fsdp2.yaml), or use a method without a critic, such as 'rloo' or 'grpo'"
        )
    if args.frozen_roles_on_cpu:
        raise ConfigError(
            "frozen_roles_on_cpu is set, but the roles are sharded with the policy; remove it, and set "
            "fsdp_offload_params: true in accelerate's settings if the shards are still too large"
        )


def keep_outputs_precise(accelerator: Accelerator) -> None:
    """Let models in shards return what they computed: log-probabilities and values, in float32.

    With mixed precision accelerate has FSDP round every output to the precision of passes, three digits, which is meant
    for logits.
    """
    plugin: Any = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None and plugin.mixed_precision_policy is not None:
        plugin.mixed_precision_policy = replace(plugin.mixed_precision_policy, output_dtype=None)


@contextmanager
def loading_whole_models() -> Iterator[None]:
    """Inside, models are loaded as if nothing was sharded: a judge is not part of what is.

    While a run is set up for sharding, transformers would give a judge's weights to the first process alone (FSDP), or
    in pieces that only DeepSpeed's engine puts together (ZeRO-3).
    """
    from transformers.integrations import deepspeed

    lazily = os.environ.pop("FSDP_CPU_RAM_EFFICIENT_LOADING", None)
    config = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if lazily is not None:
            os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = lazily
        deepspeed._hf_deepspeed_config_weak_ref = config


def agreed(value: str, processes: int) -> str:
    """The first process's value: the others may not have the weights that it was found from."""
    if processes == 1 or not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def shard_roles(roles: Roles, accelerator: Accelerator, engine: Any = None) -> None:
    """Let the roles follow a policy whose weights have just been sharded.

    Args:
        roles: With the policy.
        accelerator: Which sharded it.
        engine: DeepSpeed's around the policy, if it was that.
    """
    if accelerator.distributed_type == DistributedType.FSDP:

        def prepare(model: nn.Module) -> nn.Module:
            return shard_model(accelerator, model, holds_weights=False)

        sharding = FullySharded(accelerator.device, prepare)
        sharding.begin(roles.current)
        roles.shard(sharding)
    elif accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = _settings_of_frozen_models(accelerator)
        roles.shard(ZeroSharded(accelerator.device, roles.current, engine, lambda model: _frozen_engine(model, config)))


def _settings_of_frozen_models(accelerator: Accelerator) -> dict[str, Any]:
    """DeepSpeed's settings for models that do not train."""
    config = deepcopy(cast(Any, accelerator.state.deepspeed_plugin).deepspeed_config)
    for name in ("optimizer", "scheduler"):
        config.pop(name, None)
    config["zero_optimization"].pop("offload_optimizer", None)
    return config


def _frozen_engine(model: nn.Module, config: dict[str, Any]) -> Any:
    """An engine that gathers the weights of a model that does not train, layer by layer."""
    import deepspeed  # pyright: ignore[reportMissingImports] - only where it is used

    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()
    return engine


def shard_model(accelerator: Accelerator, model: nn.Module, *, holds_weights: bool) -> nn.Module:
    """Shard a model by the policy's settings for FSDP2, in place.

    Args:
        accelerator: Which shards the policy.
        model: To shard.
        holds_weights: Whether it has weights: all on every process, or where the policy was loaded by the first process
            alone, all on that one. Otherwise they are on the meta device.
    """
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    plugin: Any = accelerator.state.fsdp_plugin
    sends_weights = plugin.cpu_ram_efficient_loading
    plugin.cpu_ram_efficient_loading = sends_weights and holds_weights
    try:
        return cast(nn.Module, fsdp2_prepare_model(accelerator, model))
    finally:
        plugin.cpu_ram_efficient_loading = sends_weights
