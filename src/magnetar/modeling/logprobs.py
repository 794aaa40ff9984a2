"""Log-probabilities of response tokens, with logits computed only where a response token is predicted."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn
from transformers import PreTrainedConfig

from magnetar.errors import ModelError
from magnetar.modeling.modes import eval_mode
from magnetar.modeling.packing import LayoutName, TokenLayout, block_masks, lay_out, split_micro_batches

__all__ = [
    "TokenLogProbs",
    "additive_mask",
    "declared_obstacle",
    "exact_kl",
    "packing_support",
    "response_logprobs",
    "response_outputs",
    "split_micro_batches",
]

MASKABLE_ATTENTION = ("eager", "sdpa")
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
# Rows of the vocabulary-wide work that is done at a time outside the autograd graph.
CHUNK = 256


@dataclass(frozen=True)
class TokenLogProbs:
    """What a forward pass says about response tokens.

    Attributes:
        logp_BGT: Log-probability of each response token, nats; 0 at padding.
        entropy_BGT: Entropy of the distribution it was drawn from, nats; no gradient; 0 at padding.
        mask_BGT: True at response tokens.
        full_NV: Log-probabilities of the whole vocabulary at the N response tokens, in the order of
            `mask_BGT.nonzero()`; None unless asked for.
    """

    logp_BGT: Tensor
    entropy_BGT: Tensor
    mask_BGT: Tensor
    full_NV: Tensor | None = None


def response_logprobs(
    model: nn.Module,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[Sequence[int]]],
    *,
    temperature: float,
    layout: LayoutName,
    full: bool = False,
    entropy: bool = True,
    pad_token_id: int,
) -> TokenLogProbs:
    r"""Log-probabilities of responses: `log softmax(logits / temperature)` at every response token.

    Args:
        model: A causal language model, wrapped for distributed training or not; the pass goes through the wrapper.
        prompt_ids: B prompts, at least one token each.
        response_ids: B groups of G responses, at least one token each, the end-of-sequence token included.
        temperature: Divides the logits, above 0.
        layout: "packed" reads each prompt once, if `packing_support` allows; "padded" suits any causal model.
        full: Whether to return the log-probabilities of the whole vocabulary too.
        entropy: Whether to compute entropies, which cost another walk over the vocabulary; 0 everywhere otherwise.
        pad_token_id: Fills rows up; no result depends on it.

    Returns:
        Values in float32 (float64 for a float64 model), on the model's device.

    Raises:
        ValueError: Empty prompts or responses, groups of different sizes, or a temperature not above 0.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature = {temperature}, expected a number above 0")
    logits_nv, rows = response_outputs(model, prompt_ids, response_ids, layout=layout, pad_token_id=pad_token_id)
    device = logits_nv.device
    scaled_nv = logits_nv.to(torch.promote_types(logits_nv.dtype, torch.float32))
    if temperature != 1.0:
        scaled_nv = scaled_nv / temperature

    target_n1 = rows.target_N.unsqueeze(-1)
    full_nv = scaled_nv.log_softmax(-1) if full else None
    if full_nv is not None:
        logp_n = full_nv.gather(-1, target_n1).squeeze(-1)
    else:
        logp_n = scaled_nv.gather(-1, target_n1).squeeze(-1) - scaled_nv.logsumexp(-1)
    zeros = torch.zeros(rows.mask_BGT.shape, dtype=logp_n.dtype, device=device)
    return TokenLogProbs(
        logp_BGT=zeros.masked_scatter(rows.mask_BGT, logp_n),
        entropy_BGT=zeros.masked_scatter(rows.mask_BGT, _entropy(scaled_nv.detach())) if entropy else zeros,
        mask_BGT=rows.mask_BGT,
        full_NV=full_nv,
    )


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


def exact_kl(full_NV: Tensor, other_full_NV: Tensor, mask_BGT: Tensor) -> Tensor:
    r"""KL divergence of the next-token distributions at each response token.

    `KL_t(p‖q) = Σ_v p_v (log p_v − log q_v)`

    Args:
        full_NV: Log-probabilities p, shape (N, V); the result is differentiable in them.
        other_full_NV: Log-probabilities q, shape (N, V).
        mask_BGT: True at the N response tokens.

    Returns:
        Shape (B, G, T), nats, never below 0 but for rounding; 0 at padding.
    """
    if full_NV.shape != other_full_NV.shape or full_NV.shape[0] != int(mask_BGT.sum()):
        raise ValueError(
            f"log-probabilities of shapes {tuple(full_NV.shape)} and {tuple(other_full_NV.shape)} for "
            f"{int(mask_BGT.sum())} response tokens, expected (N, V) twice with N the number of response tokens"
        )
    # A token with probability 0 adds nothing, whatever q gives it; inf − inf would be NaN.
    log_ratio = torch.where(full_NV.isneginf(), 0.0, full_NV - other_full_NV)
    kl_n = (full_NV.exp() * log_ratio).sum(-1)
    return torch.zeros(mask_BGT.shape, dtype=kl_n.dtype, device=kl_n.device).masked_scatter(mask_BGT, kl_n)


@torch.no_grad()
def packing_support(model: nn.Module) -> str | None:
    """Say why packed groups would be wrong for a model, or None when they are right.

    What the configuration shows is looked at first; then a few tokens are run both packed and padded, so that a model
    which ignores the block mask is found out whatever its configuration says.

    Args:
        model: A causal language model, wrapped or not.

    Returns:
        None, or one sentence that names the model and the reason.
    """
    inner = extract_model_from_parallel(model)
    name = type(_base(inner)).__name__
    reason = declared_obstacle(inner)
    if reason is not None:
        return f"{name} {reason}"
    vocabulary = _text_config(inner).vocab_size
    probe = ([[3, 11, 7, 5], [9]], [[[2, 13, 6], [4]], [[8, 1], [1, 12]]])
    prompts = [[token % vocabulary for token in prompt] for prompt in probe[0]]
    responses = [[[token % vocabulary for token in response] for response in group] for group in probe[1]]
    with eval_mode(inner):
        expected = response_logprobs(inner, prompts, responses, temperature=1.0, layout="padded", pad_token_id=0)
        try:
            packed = response_logprobs(inner, prompts, responses, temperature=1.0, layout="packed", pad_token_id=0)
        except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, IndexError) as error:
            return f"{name} cannot take the block mask of packed groups ({type(error).__name__}: {error})"
    gap = (packed.logp_BGT - expected.logp_BGT).abs().max().item()
    # Half precision rounds logits of size 10 to about 0.04; a wrong mask moves them by much more.
    tolerance = 1e-3 if next(inner.parameters()).dtype in (torch.float32, torch.float64) else 0.3
    if not gap <= tolerance:
        return f"{name} does not follow the block mask of packed groups: log-probabilities are off by {gap:.2g} nats"
    return None


def declared_obstacle(inner: nn.Module) -> str | None:
    """Say what in a model's declaration rules rows with a mask and positions of their own out.

    Args:
        inner: A transformers or PEFT model.

    Returns:
        The end of a sentence that begins with the model's name; None if nothing does.
    """
    base = _base(inner)
    config = _text_config(inner)
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    attention = getattr(config, "_attn_implementation", None)
    if getattr(base.config, "is_encoder_decoder", False):
        return "is an encoder-decoder model, whose prompt and response do not share rows"
    if any(hasattr(base.config, part) for part in ("vision_config", "audio_config")):
        return "is multimodal and builds masks and positions of its own"
    if getattr(base, "_is_stateful", False) or layers - KNOWN_LAYERS:
        kinds = ", ".join(sorted(layers - KNOWN_LAYERS)) or "a recurrent state"
        return f"has layers that a block mask cannot separate ({kinds})"
    if attention not in MASKABLE_ATTENTION:
        return f"uses {attention}, which cannot take a block mask; load it with attn_implementation='sdpa'"
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return "takes no position_ids, so positions cannot restart after the prompt"
    if getattr(config, "use_bidirectional_attention", None) or getattr(config, "is_causal", True) is False:
        return "attends in both directions"
    peft_config = getattr(inner, "active_peft_config", None)
    if peft_config is not None and peft_config.is_prompt_learning:
        return f"has a {peft_config.peft_type} adapter, which puts tokens of its own before the prompt"
    return None


def _response_logits(model: nn.Module, inner: nn.Module, rows: TokenLayout) -> Tensor:
    """Logits (N, V) at the response tokens; the output layer sees N hidden states and never whole rows."""
    inputs: dict[str, Any] = {"input_ids": rows.input_ids, "use_cache": False}
    if rows.name == "packed":
        inputs["position_ids"] = rows.position_ids
        inputs["attention_mask"] = additive_mask(inner, lambda window: block_masks(rows, window))
    else:
        inputs["attention_mask"] = (rows.group_RL >= 0).long()
    gathered = False

    def gather(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal gathered
        gathered = True
        return (arguments[0][rows.row_N, rows.column_N].unsqueeze(0), *arguments[1:])

    head = cast(Any, inner).get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(_base(inner)).__name__} has no output layer; load it with AutoModelForCausalLM")
    handle = head.register_forward_pre_hook(gather)
    try:
        logits = model(**inputs).logits
    finally:
        handle.remove()
    if not gathered:
        raise ModelError(
            f"{type(_base(inner)).__name__} computes logits without calling its output layer, so they cannot be "
            "limited to response tokens; use a model whose get_output_embeddings() is part of its forward pass"
        )
    return logits.squeeze(0)


def additive_mask(inner: nn.Module, visible: Callable[[int | None], Tensor]) -> Tensor | dict[str, Tensor]:
    """A mask in the form that a model's layers take: boolean or additive; one, or one for each type of layer.

    Args:
        inner: A transformers or PEFT model.
        visible: From a sliding window (None for full attention) to who sees whom, shape (R, 1, L, L), boolean.

    Returns:
        What to pass as `attention_mask`.
    """
    config = _text_config(inner)
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


@torch.no_grad()
def _entropy(logits_nv: Tensor) -> Tensor:
    """Entropy of softmax(logits), a few rows at a time; -inf logits count nothing."""
    parts = []
    for chunk in logits_nv.split(CHUNK):
        logp = chunk.log_softmax(-1)
        parts.append(-(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1))
    return torch.cat(parts)


def _base(inner: nn.Module) -> Any:
    """The transformers model beneath a PEFT model."""
    return cast(Any, inner).get_base_model() if hasattr(inner, "get_base_model") else inner


def _text_config(inner: nn.Module) -> PreTrainedConfig:
    return _base(inner).config.get_text_config()
