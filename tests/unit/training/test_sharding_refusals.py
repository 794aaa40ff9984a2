"""What sharded weights cannot do yet is refused with what to do instead, before any work."""

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

from magnetar.errors import ConfigError
from magnetar.methods import METHODS
from magnetar.training.sharding import check_sharding


def check(kind: DistributedType, method: str = "mpo", *, fsdp2: bool = True, stage: int = 3, **settings: Any) -> None:
    adapter = settings.pop("adapter", False)
    accelerator: Any = SimpleNamespace(
        distributed_type=kind,
        is_fsdp2=fsdp2,
        state=SimpleNamespace(
            deepspeed_plugin=SimpleNamespace(zero_stage=stage),
            fsdp_plugin=SimpleNamespace(activation_checkpointing=settings.pop("wrapped", False)),
        ),
    )
    args: Any = SimpleNamespace(**({"frozen_roles_on_cpu": False, "inner_epochs": 1, "world_size": 2} | settings))
    made = METHODS[method]()
    check_sharding(accelerator, args, made, has_critic=made.sampled_objective.needs_value, has_adapter=adapter)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": DistributedType.FSDP, "fsdp2": False}, "fsdp_version: 2"),
        ({"kind": DistributedType.DEEPSPEED, "stage": 2}, "zero_stage: 3"),
        ({"kind": DistributedType.DEEPSPEED, "method": "egpo"}, "FSDP2"),
        ({"kind": DistributedType.DEEPSPEED, "method": "omwu"}, "FSDP2"),
        ({"kind": DistributedType.DEEPSPEED, "method": "ppo"}, "critic.*fsdp2.yaml"),
        ({"kind": DistributedType.FSDP, "adapter": True, "wrapped": True}, "gradient_checkpointing"),
        ({"kind": DistributedType.FSDP, "world_size": 1}, "start without FSDP"),
        ({"kind": DistributedType.FSDP, "frozen_roles_on_cpu": True}, "fsdp_offload_params"),
    ],
)
def test_refused_with_the_way_out(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(**given)


def test_what_works_is_not_refused() -> None:
    for method in ("mpo", "nash_md", "egpo", "omwu", "ppo"):
        check(DistributedType.FSDP, method, inner_epochs=2)
    check(DistributedType.DEEPSPEED, "mpo", inner_epochs=3)
    check(DistributedType.MULTI_GPU, "ppo", frozen_roles_on_cpu=True, fsdp2=False)
