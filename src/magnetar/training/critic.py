"""The critic beside the policy: how it is made, optimised, kept in checkpoints."""

import pickle
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from magnetar.errors import CheckpointError, ModelError
from magnetar.methods import Method
from magnetar.modeling.critic import Critic, make_critic
from magnetar.modeling.fully_sharded import FullySharded
from magnetar.modeling.loading import load_policy
from magnetar.modeling.logprobs import packing_support
from magnetar.modeling.sharding import Sharding, WholeWeights, plain_name
from magnetar.training.checkpoints import innermost
from magnetar.training.config import CRITIC_LEARNING_RATE, NashConfig
from magnetar.training.preparation import prepare_model
from magnetar.training.sharding import shard_model

__all__ = ["CriticTraining", "critic_for"]

CRITIC_FILE = "critic.safetensors"
OPTIMIZER_FILE = "critic_optimizer.pt"


class CriticTraining:
    """One critic in the optimiser of the policy, with a learning rate of its own.

    It is no part of the model that transformers wraps and saves: its gradients are averaged over processes here, once a
    step, unless its weights are in shards, whose gradients FSDP averages. Then its part of the optimiser's state is
    saved and loaded here too, since that of the policy is by the names of the policy's weights.
    """

    def __init__(self, critic: Critic, learning_rate: float, obstacle: str | None = None) -> None:
        """Remember what learns.

        Args:
            critic: The model.
            learning_rate: Its own.
            obstacle: Why it cannot read packed groups; None if it can, or is a copy of a policy that answers for it.
        """
        self.critic = critic
        self.obstacle = obstacle
        self._learning_rate = learning_rate

    def shard(self, sharding: Sharding, accelerator: Accelerator) -> None:
        """Spread the weights over processes as the policy's are; nothing happens when they are."""
        if self.critic.sharding is sharding:
            return
        assert isinstance(sharding, FullySharded)
        self.critic.shard(
            sharding, lambda model: shard_model(accelerator, model, holds_weights=True), accelerator.device
        )
        sharding.begin(self.critic.model)

    def add_to(self, optimizer: Optimizer, weight_decay: float | None, decayed: Collection[str]) -> None:
        """Give the optimiser the critic's parameters as groups of their own, unless it has them.

        Args:
            optimizer: The policy's.
            weight_decay: As for the policy; None for the optimiser's own.
            decayed: Names of the parameters that it holds for; the others, as in the policy, have none.
        """
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        new = {name: p for name, p in self.critic.trained().items() if id(p) not in known}
        decays = {name: bool(weight_decay) and name in {plain_name(n) for n in decayed} for name in new}
        # Optimisers cannot treat weights in shards and whole ones, as the value head's, in one go.
        for decay, in_shards in product((True, False), (True, False)):
            group = [p for name, p in new.items() if decays[name] is decay and isinstance(p, DTensor) is in_shards]
            if group:
                own = {} if weight_decay is None else {"weight_decay": weight_decay if decay else 0.0}
                optimizer.add_param_group({"params": group, "lr": self._learning_rate, **own})

    def before_step(self, accelerator: Accelerator, max_grad_norm: float) -> float:
        """Average the gradients over processes and clip them by themselves; returns their norm before clipping."""
        parameters = [p for p in self.critic.trained().values() if p.grad is not None]
        if accelerator.num_processes > 1:
            for parameter in parameters:
                if not isinstance(parameter, DTensor):
                    gradient = cast(Tensor, parameter.grad)
                    parameter.grad = cast(Any, accelerator.reduce(gradient, reduction="mean"))
        gradients = [cast(Tensor, p.grad) for p in parameters]
        kinds = [[g for g in gradients if isinstance(g, DTensor) is in_shards] for in_shards in (True, False)]
        norm = nn.utils.get_total_norm([_whole_norm(kind) for kind in kinds if kind])
        if max_grad_norm > 0:
            for gradient in gradients:
                part = self.critic.sharding.part(gradient)
                part.mul_((max_grad_norm / (norm + 1e-6)).clamp(max=1.0).to(part.device))
        return float(norm)

    def after_step(self) -> None:
        """Forget the gradients: transformers forgets those of the policy alone."""
        self.critic.zero_grad(set_to_none=True)

    def save(self, folder: Path, optimizer: Optimizer, *, writes: bool) -> None:
        """Write what learned into a checkpoint; where weights are in shards every process takes part and one writes.

        Args:
            folder: The checkpoint.
            optimizer: The policy's and the critic's.
            writes: Whether this process writes.
        """
        self.critic.save(folder / CRITIC_FILE, writes=writes)
        if isinstance(self.critic.sharding, WholeWeights):
            return  # all of the optimiser's state is in its own file
        record: dict[str, Any] = {}
        for name, parameter, group in self._places(optimizer):
            state = {
                key: self.critic.sharding.whole(value).detach().cpu() if isinstance(value, Tensor) else value
                for key, value in optimizer.state.get(parameter, {}).items()
            }
            settings = {key: value for key, value in group.items() if key != "params"}
            record[name] = {"state": state, "settings": settings}
        if writes:
            torch.save(record, folder / OPTIMIZER_FILE)

    def load(self, folder: Path) -> None:
        """Read the weights that `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or of another critic.
        """
        self.critic.load(folder / CRITIC_FILE)

    def load_optimizer(self, folder: Path, optimizer: Optimizer) -> None:
        """Read the critic's part of the optimiser's state, which `save` writes where weights are in shards.

        Args:
            folder: A checkpoint of weights in shards; the critic's may be whole now.
            optimizer: With the critic's groups.

        Raises:
            CheckpointError: The file is missing, damaged, or of another critic.
        """
        path = folder / OPTIMIZER_FILE
        try:
            record = torch.load(path, weights_only=True)
            saved = {name: (record[name]["state"], record[name]["settings"]) for name in self.critic.trained()}
        except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, EOFError) as error:
            raise CheckpointError(
                f"{path}, the critic's part of the optimiser, cannot be read ({error}); resume from an older checkpoint"
            ) from error
        everything = optimizer.state_dict()
        indices = [index for group in everything["param_groups"] for index in group["params"]]
        by_id = dict(zip((id(p) for group in optimizer.param_groups for p in group["params"]), indices, strict=True))
        groups = {index: group for group in everything["param_groups"] for index in group["params"]}
        for name, parameter, _ in self._places(optimizer):
            state, settings = saved[name]
            index = by_id[id(parameter)]
            groups[index].update(settings)
            beside = self.critic.sharding.beside
            everything["state"][index] = {key: beside(parameter, value) for key, value in state.items()}
        optimizer.load_state_dict(everything)

    @contextmanager
    def out_of(self, optimizer: Optimizer) -> Iterator[None]:
        """Take the critic's groups and state out of the optimiser for the length of a block.

        What saves and loads the optimiser by names of the policy's weights knows no others.
        """
        inner = innermost(optimizer)
        own = {id(p) for p in self.critic.trained().values()}
        groups = [group for group in inner.param_groups if any(id(p) in own for p in group["params"])]
        inner.param_groups = [group for group in inner.param_groups if not any(id(p) in own for p in group["params"])]
        parameters = [p for group in groups for p in group["params"]]
        state = {p: inner.state.pop(p) for p in parameters if p in inner.state}
        try:
            yield
        finally:
            inner.param_groups.extend(groups)
            inner.state.update(state)

    def _places(self, optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
        """Name and optimiser's group of each parameter, in the order of the optimiser, which all processes share."""
        names = {id(p): name for name, p in self.critic.trained().items()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in names:
                    yield names[id(parameter)], parameter, group


def _whole_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of gradients of one kind; that of shards is over all processes."""
    norm = nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def critic_for(method: Method, model: nn.Module, args: NashConfig) -> CriticTraining | None:
    """The critic that a method needs, started from the policy or from ``critic_model``.

    Args:
        method: Says whether it needs one.
        model: The policy before roles are added to it and before it is wrapped.
        args: Settings.

    Returns:
        None for a method without a critic.

    Raises:
        ModelError: The class of the model cannot be a critic, or ``critic_model`` cannot be loaded.
    """
    if not method.sampled_objective.needs_value:
        return None
    start: Any = model
    obstacle = None
    if args.critic_model is not None:
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        try:
            loaded, _ = load_policy(args.critic_model, dtype=dtype, is_trainable=True)
        except ModelError as error:
            raise ModelError(f"critic_model is {args.critic_model!r}: {error}") from error
        start = loaded
        if isinstance(model, PeftModel) and not isinstance(loaded, PeftModel):
            start = get_peft_model(cast(Any, loaded), deepcopy(model.peft_config[model.active_adapters[0]]))
        start = prepare_model(cast(Any, start), None, args)
        rows, needed = (cast(Any, m).get_input_embeddings().weight.shape[0] for m in (start, model))
        if rows < needed:
            raise ModelError(
                f"critic_model {args.critic_model!r} knows {rows} tokens and the policy {needed}; it reads the "
                "policy's tokens, so give a model with the same tokenizer"
            )
        obstacle = packing_support(start)  # before its output layer goes
    return CriticTraining(make_critic(start), args.critic_learning_rate or CRITIC_LEARNING_RATE, obstacle)
