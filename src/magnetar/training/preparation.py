"""Getting a model ready to be trained: tokenizer, adapter, dropout, and the layout of its passes."""

from typing import cast

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from magnetar.errors import ConfigError, ModelError
from magnetar.modeling.loading import ensure_pad_token, load_policy
from magnetar.modeling.logprobs import chunking_support, packing_support
from magnetar.training.config import NashConfig

__all__ = ["choose_chunking", "choose_layout", "model_and_tokenizer", "prepare_model"]


def model_and_tokenizer(
    model: str | PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Load what is only named, and make sure that there is a pad token."""
    if isinstance(model, str):
        model, loaded = load_policy(model)
        tokenizer = tokenizer or loaded
    if tokenizer is None:
        raise ModelError("processing_class is None, expected the model's tokenizer (give one, or name the model by id)")
    ensure_pad_token(tokenizer)
    return model, tokenizer


def prepare_model(
    model: PreTrainedModel | PeftModel, peft_config: PeftConfig | None, args: NashConfig
) -> PreTrainedModel | PeftModel:
    """Attach the adapter and switch dropout off, as the settings say."""
    if getattr(model, "is_loaded_in_4bit", False) and args.device.type == "cpu":
        # bitsandbytes lays such layers out anew in a pass without gradients, and then none flows through them.
        raise ModelError(
            "the model is loaded in 4 bits and would be trained on the CPU, where bitsandbytes passes no gradient "
            "through its layers; load it in bfloat16, or train on a GPU"
        )
    if peft_config is not None:
        if isinstance(model, PeftModel):
            raise ModelError("the model already has an adapter; train it as it is (peft_config=None) or merge it first")
        model = cast(PeftModel, get_peft_model(cast(PreTrainedModel, model), peft_config))
    if isinstance(model, PeftModel) and args.frozen_roles_on_cpu:
        raise ConfigError("frozen_roles_on_cpu is set, but adapters share one base model and take no room; remove it")
    if args.disable_dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            # Attention drops by a number of its own, not by a module: `attention_dropout` in most models.
            for name in [n for n, v in vars(module).items() if "dropout" in n and isinstance(v, float)]:
                setattr(module, name, 0.0)
    return model


def choose_layout(layout: str, model: nn.Module, process_index: int, obstacle: str | None = None) -> str:
    """The layout that ``auto`` stands for, with the reason when it is not the fast one.

    Args:
        layout: The setting.
        model: The policy.
        process_index: The first one says the reason.
        obstacle: Why another model that reads the same rows, a critic, cannot take packed ones; None if it can.

    Returns:
        "packed" or "padded".

    Raises:
        ConfigError: Packed rows are asked for and cannot be read.
    """
    if layout == "padded":
        return layout
    reason = packing_support(model) or obstacle
    if reason is None:
        return "packed"
    if layout == "packed":
        raise ConfigError(f"logprob_layout='packed' cannot work here: {reason}; use 'auto' or 'padded'")
    if process_index == 0:
        print(f"log-probability passes use padded rows, which are slower than packed groups: {reason}")
    return "padded"


def choose_chunking(model: nn.Module, process_index: int) -> bool:
    """Whether the output layer can be applied to a few tokens at a time, with the reason printed when it cannot.

    Args:
        model: The policy.
        process_index: The first one says the reason.
    """
    reason = chunking_support(model)
    if reason is not None and process_index == 0:
        print(f"log-probability passes hold all logits of their response tokens at once, which costs memory: {reason}")
    return reason is None
