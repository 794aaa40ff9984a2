"""Forward passes over rows of prompts and responses, in which the output layer sees response tokens only."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import PreTrainedConfig

from magnetar.errors import ModelError
from magnetar.modeling.packing import LayoutName, TokenLayout, block_masks, lay_out

__all__ = ["additive_mask", "base_model", "output_layer", "read_in_place_of_logits", "response_outputs", "text_config"]


def response_outputs(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[Sequence[int]]],
    *,
    layout: LayoutName,
    pad_token_id: int,
) -> tuple[Tensor, TokenLayout]:
    """What a model's output layer gives where response tokens are predicted: logits, or a critic's values.

    Args:
        model: A causal language model, wrapped for distributed training or not; the pass goes through the wrapper.
        prompt_ids: B prompts, at least one token each.
        response_ids: B groups of G responses, at least one token each.
        layout: "packed" or "padded".
        pad_token_id: Fills rows up.

    Returns:
        Shape (N, V), in the order of `mask_BGT.nonzero()`, and the layout that was used.

    Raises:
        ValueError: Empty prompts or responses, or groups of different sizes.
    """
    inner = extract_model_from_parallel(model)
    device = next(inner.parameters()).device
    rows = lay_out(prompt_ids, response_ids, layout, pad_token_id=pad_token_id, device=device)
    return _response_logits(model, inner, rows), rows


def _response_logits(model: nn.Module, inner: nn.Module, rows: TokenLayout) -> Tensor:
    """Logits (N, V) at the response tokens; the output layer sees N hidden states and never whole rows."""
    gathered = False

    def gather(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal gathered
        gathered = True
        return (arguments[0][rows.row_N, rows.column_N].unsqueeze(0), *arguments[1:])

    handle = output_layer(inner).register_forward_pre_hook(gather)
    try:
        logits = model(**_inputs(inner, rows)).logits
    finally:
        handle.remove()
    if not gathered:
        raise ModelError(_uncalled_layer(inner))
    return logits.squeeze(0)


def read_in_place_of_logits(
    model: nn.Module, rows: TokenLayout, read: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
) -> Tensor:
    """Run a model whose output layer answers questions instead of giving logits.

    The layer is still called as a module and its answers leave as the model's output, so that whatever hangs on calls
    and outputs (gathering shards before a layer is read, exchanging gradients in the backward pass) works as always.

    Args:
        model: A causal language model, wrapped for distributed training or not; the pass goes through the wrapper.
        rows: What it reads.
        read: From what the layer computes, and the N hidden states where response tokens are predicted, to K answers
            for each token.

    Returns:
        Shape (N, K).

    Raises:
        ModelError: The model does not call its output layer.
    """
    inner = extract_model_from_parallel(model)
    head = output_layer(inner)
    layer, own = head.forward, head.__dict__.get("forward")
    answers: list[Tensor] = []

    def answer(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return read(layer, hidden[rows.row_N, rows.column_N]).unsqueeze(0)

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        answers.append(output)

    def replace(module: nn.Module, arguments: Any, output: Any) -> Any:
        # What the model did to them, as if they were logits, is put aside.
        if answers:
            output.logits = answers[0]
        return output

    handles = [head.register_forward_hook(keep), inner.register_forward_hook(replace, prepend=True)]
    head.forward = answer  # type: ignore[method-assign]
    try:
        output = model(**_inputs(inner, rows)).logits
    finally:
        for handle in handles:
            handle.remove()
        del head.forward
        if own is not None:
            head.forward = own
    if not answers:
        raise ModelError(_uncalled_layer(inner))
    return output.squeeze(0)


def output_layer(inner: nn.Module) -> nn.Module:
    """The layer that gives logits.

    Raises:
        ModelError: The model has none.
    """
    head = cast(Any, inner).get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(base_model(inner)).__name__} has no output layer; load it with AutoModelForCausalLM")
    return head


def base_model(inner: nn.Module) -> Any:
    """The transformers model beneath a PEFT model."""
    return cast(Any, inner).get_base_model() if hasattr(inner, "get_base_model") else inner


def text_config(inner: nn.Module) -> PreTrainedConfig:
    """The configuration of the text model."""
    return base_model(inner).config.get_text_config()


def additive_mask(inner: nn.Module, visible: Callable[[int | None], Tensor]) -> Tensor | dict[str, Tensor]:
    """A mask in the form that a model's layers take: boolean or additive; one, or one for each type of layer.

    Args:
        inner: A transformers or PEFT model.
        visible: From a sliding window (None for full attention) to who sees whom, shape (R, 1, L, L), boolean.

    Returns:
        What to pass as `attention_mask`.
    """
    config = text_config(inner)
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    eager = getattr(config, "_attn_implementation", None) == "eager"
    dtype = next(inner.parameters()).dtype

    def mask(window: int | None) -> Tensor:
        seen = visible(window)
        if not eager:
            return seen
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)

    if kinds and "sliding_attention" in kinds:
        return {"full_attention": mask(None), "sliding_attention": mask(window)}
    # Without a list of layer types, a window that is set holds for every layer.
    return mask(window if not kinds else None)


def _inputs(inner: nn.Module, rows: TokenLayout) -> dict[str, Any]:
    """What a model's forward pass is given to read rows."""
    inputs: dict[str, Any] = {"input_ids": rows.input_ids, "use_cache": False}
    if rows.name == "packed":
        inputs["position_ids"] = rows.position_ids
        inputs["attention_mask"] = additive_mask(inner, lambda window: block_masks(rows, window))
    else:
        inputs["attention_mask"] = (rows.group_RL >= 0).long()
    return inputs


def _uncalled_layer(inner: nn.Module) -> str:
    return (
        f"{type(base_model(inner)).__name__} computes logits without calling its output layer, so they cannot be "
        "limited to response tokens; use a model whose get_output_embeddings() is part of its forward pass"
    )
