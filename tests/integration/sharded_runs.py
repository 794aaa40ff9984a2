"""What tests of sharded training share."""

from typing import Any, cast

import torch
from torch import Tensor

from magnetar.modeling.sharding import plain_name, whole_shape
from magnetar.training import NashTrainer


def whole_snapshot(trainer: NashTrainer) -> dict[str, Tensor]:
    """Every tensor that the rest of a run depends on, whole: policy, frozen roles, optimiser."""
    sharding: Any = trainer.roles.sharding
    model = trainer.roles.current
    sharding.settle(model)
    with torch.no_grad():
        tensors = {f"policy.{plain_name(n)}": sharding.whole(t).clone() for n, t in model.named_parameters()}
        tensors |= {f"buffer.{plain_name(n)}": t.clone() for n, t in model.named_buffers()}
        for role, state in trainer.roles.state_dict().items():
            tensors |= {f"{role}.{name}": t for name, t in state.items()}
        if trainer.critic is not None:
            trained = trainer.critic.critic.trained()
            tensors |= {f"critic.{name}": sharding.whole(t).clone() for name, t in trained.items()}
        optimizer: Any = trainer.optimizer
        # DeepSpeed's is in a form of its own; what it holds shows in the steps after.
        for index, state in optimizer.state_dict().get("state", {}).items():
            held = {name: t for name, t in state.items() if torch.is_tensor(t)}
            tensors |= {f"optimizer.{index}.{name}": sharding.whole(t).clone() for name, t in held.items()}
    return tensors


def assert_shares(trainer: NashTrainer) -> None:
    """Every process holds about half of the weights, of each model there is."""
    sharding: Any = trainer.roles.sharding
    models = {id(model): model for model in trainer.roles._modules(cast(Any, tuple(trainer.roles.state_dict())))}
    critics = [] if trainer.critic is None else [trainer.critic.critic.model]
    for model in (trainer.roles.current, *models.values(), *critics):
        sharding.settle(model)
        weights = list(model.parameters())
        held, all_of_it = sum(sharding.part(w).numel() for w in weights), sum(whole_shape(w).numel() for w in weights)
        assert 0.4 * all_of_it < held < 0.6 * all_of_it, (held, all_of_it)
