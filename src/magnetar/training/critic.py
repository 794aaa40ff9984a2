"""The critic beside the policy: how it is made, optimised, kept in checkpoints."""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from peft import PeftModel, get_peft_model
from torch import nn
from torch.optim import Optimizer

from magnetar.errors import ModelError
from magnetar.methods import Method
from magnetar.modeling.critic import Critic, make_critic
from magnetar.modeling.loading import load_policy
from magnetar.modeling.logprobs import packing_support
from magnetar.training.config import CRITIC_LEARNING_RATE, NashConfig
from magnetar.training.preparation import prepare_model

__all__ = ["CriticTraining", "critic_for"]

CRITIC_FILE = "critic.safetensors"


class CriticTraining:
    """One critic in the optimiser of the policy, with a learning rate of its own.

    It is no part of the model that transformers wraps and saves: its gradients are averaged over processes here, once a
    step.
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

    def add_to(self, optimizer: Optimizer, weight_decay: float | None, decayed: Collection[str]) -> None:
        """Give the optimiser the critic's parameters as groups of their own, unless it has them.

        Args:
            optimizer: The policy's.
            weight_decay: As for the policy; None for the optimiser's own.
            decayed: Names of the parameters that it holds for; the others, as in the policy, have none.
        """
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        new = {name: p for name, p in self.critic.trained().items() if id(p) not in known}
        some = [p for name, p in new.items() if weight_decay and name in decayed]
        rest = [p for name, p in new.items() if not (weight_decay and name in decayed)]
        if some:
            optimizer.add_param_group({"params": some, "lr": self._learning_rate, "weight_decay": weight_decay})
        if rest:
            own = {} if weight_decay is None else {"weight_decay": 0.0}
            optimizer.add_param_group({"params": rest, "lr": self._learning_rate, **own})

    def before_step(self, accelerator: Accelerator, max_grad_norm: float) -> float:
        """Average the gradients over processes and clip them by themselves; returns their norm before clipping."""
        parameters = [p for p in self.critic.trained().values() if p.grad is not None]
        if accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = cast(Any, accelerator.reduce(cast(torch.Tensor, parameter.grad), reduction="mean"))
        limit = max_grad_norm if max_grad_norm > 0 else float("inf")
        return float(nn.utils.clip_grad_norm_(parameters, limit))

    def after_step(self) -> None:
        """Forget the gradients: transformers forgets those of the policy alone."""
        self.critic.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        """Write what learned into a checkpoint."""
        self.critic.save(folder / CRITIC_FILE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or of another critic.
        """
        self.critic.load(folder / CRITIC_FILE)


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
