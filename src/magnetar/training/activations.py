"""What is done with the activations that a backward pass needs: kept, computed again, or moved to main memory."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from torch import nn

from magnetar.errors import ModelError
from magnetar.training.config import NashConfig

__all__ = ["activation_context", "checkpoint_activations"]


def checkpoint_activations(model: nn.Module, args: NashConfig) -> None:
    """Let a model that transformers does not know of compute its activations again, if the settings say so.

    Args:
        model: A transformers or PEFT model, unwrapped.
        args: Settings, of which ``activation_checkpointing`` and its ``_kwargs`` are read as transformers reads them.

    Raises:
        ModelError: The class of the model cannot do it.
    """
    if not args.activation_checkpointing:
        return
    kwargs = dict(cast(Any, args.activation_checkpointing_kwargs) or {})
    every, offload = kwargs.pop("every_n_layers", 1), kwargs.pop("offload", False)
    try:
        cast(Any, model).activation_checkpointing_enable(
            activation_checkpointing_kwargs=kwargs or None, every_n_layers=every, offload=offload
        )
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"the critic, a {type(model).__name__}, cannot compute its activations again ({error}); remove "
            "activation_checkpointing, or name a critic_model of another class"
        ) from error


def activation_context(model: nn.Module, critic: nn.Module | None, args: NashConfig) -> AbstractContextManager[Any]:
    """What to enter for each forward and backward pass, again and again.

    Args:
        model: The policy, on its device.
        critic: Whose activations are moved too; None for a method without one.
        args: Settings, of which ``activation_offloading`` is read.

    Returns:
        TRL's manager, which moves activations to main memory and back beside the computation; nothing without it.
    """
    if not args.activation_offloading:
        return nullcontext()
    from trl.models import get_act_offloading_ctx_manager  # pyright: ignore[reportPrivateImportUsage]

    manager = get_act_offloading_ctx_manager(model)
    if critic is not None:  # weights, which stay where they are, are told from activations by their storage
        manager.update_model_params(nn.ModuleList([model, critic]))
    return manager
