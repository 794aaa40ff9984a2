"""Log-probabilities of response tokens, with logits computed only where a response token is predicted."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from magnetar.modeling.forward import (
    additive_mask,
    base_model,
    output_layer,
    read_in_place_of_logits,
    response_outputs,
    text_config,
)
from magnetar.modeling.modes import eval_mode
from magnetar.modeling.packing import LayoutName, TokenLayout, lay_out, split_micro_batches
from magnetar.modeling.vocabulary import FrozenStates, LogitTransform, entropy_rows, kl_rows, read_tokens

__all__ = [
    "TokenLogProbs",
    "additive_mask",
    "chunking_support",
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
        kl_BGT: KL divergence from this policy to each frozen one that was asked about, by its name, nats; 0 at padding.
        hidden_NH: What the output layer read at the N response tokens; no gradient; None unless asked for.
    """

    logp_BGT: Tensor
    entropy_BGT: Tensor
    mask_BGT: Tensor
    full_NV: Tensor | None = None
    kl_BGT: Mapping[str, Tensor] = field(default_factory=dict)
    hidden_NH: Tensor | None = None


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
    chunked: bool = False,
    against: Mapping[str, FrozenStates] | None = None,
    states: bool = False,
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
        chunked: Whether the output layer is applied to a few tokens at a time, so that the N × V logits are never
            together in memory, neither here nor in the backward pass; right for models of which `chunking_support`
            says so.
        against: With `chunked`, frozen policies to which the exact KL divergence is wanted, by name.
        states: With `chunked`, whether to return what the output layer read.

    Returns:
        Values in float32 (float64 for a float64 model), on the model's device.

    Raises:
        ValueError: Empty prompts or responses, groups of different sizes, a temperature not above 0, or options that
            exclude each other.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature = {temperature}, expected a number above 0")
    if full if chunked else (against or states):
        raise ValueError(
            f"chunked = {chunked} with full = {full}, against = {sorted(against or {})} and states = {states}; a "
            "chunked pass never holds whole distributions, and only it answers questions about frozen policies"
        )
    if chunked:
        inner = extract_model_from_parallel(model)
        rows = lay_out(
            prompt_ids, response_ids, layout, pad_token_id=pad_token_id, device=next(inner.parameters()).device
        )
        return _chunked_logprobs(model, rows, temperature, entropy, against or {}, states)
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


def _chunked_logprobs(
    model: nn.Module,
    rows: TokenLayout,
    temperature: float,
    entropy: bool,
    against: Mapping[str, FrozenStates],
    states: bool,
) -> TokenLogProbs:
    """`response_logprobs` with the output layer applied to a few tokens at a time."""
    inner = extract_model_from_parallel(model)
    head = output_layer(inner)
    vocabulary = text_config(inner).vocab_size
    kept: list[Tensor] = []

    def read(layer: Callable[[Tensor], Tensor], hidden_nh: Tensor) -> Tensor:
        if states:
            kept.append(hidden_nh.detach())
        return read_tokens(
            layer,
            [p for p in head.parameters() if p.requires_grad],
            LogitTransform.of(text_config(inner)),
            hidden_nh,
            rows.target_N,
            temperature=temperature,
            against=list(against.values()),
            entropy=entropy,
            vocabulary=vocabulary,
            dropout=any(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in head.modules()),
        )

    logp_n, *others = read_in_place_of_logits(model, rows, read).unbind(-1)

    def placed(values_n: Tensor) -> Tensor:
        zeros = torch.zeros(rows.mask_BGT.shape, dtype=values_n.dtype, device=values_n.device)
        return zeros.masked_scatter(rows.mask_BGT, values_n)

    logp_bgt = placed(logp_n)
    return TokenLogProbs(
        logp_BGT=logp_bgt,
        entropy_BGT=placed(others.pop().detach()) if entropy else torch.zeros_like(logp_bgt),
        mask_BGT=rows.mask_BGT,
        kl_BGT={name: placed(kl_n) for name, kl_n in zip(against, others, strict=True)},
        hidden_NH=kept[0] if states else None,
    )


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
    kl_n = kl_rows(full_NV, other_full_NV)
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
    name = type(base_model(inner)).__name__
    reason = declared_obstacle(inner)
    if reason is not None:
        return f"{name} {reason}"
    prompts = _within_vocabulary(inner, [[3, 11, 7, 5], [9]])
    responses = [_within_vocabulary(inner, group) for group in ([[2, 13, 6], [4]], [[8, 1], [1, 12]])]
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


@torch.no_grad()
def chunking_support(model: nn.Module) -> str | None:
    """Say why a model's logits cannot be read a few tokens at a time, or None when they can.

    A few tokens are run: what the output layer gave, and what the configuration says is done to it, must be the model's
    logits, and each token's must be its own.

    Args:
        model: A causal language model, wrapped or not.

    Returns:
        None, or one sentence that names the model and the reason.
    """
    inner = extract_model_from_parallel(model)
    name = type(base_model(inner)).__name__
    head = output_layer(inner)
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        # As chunked passes do it: within the model's pass, where weights in shards are gathered, and without the hooks.
        seen.append((module.forward(arguments[0]), module.forward(arguments[0][:, 1:2])))

    handle = head.register_forward_pre_hook(watch)
    probe = torch.tensor(_within_vocabulary(inner, [[3, 11, 7, 5, 9]]), device=next(inner.parameters()).device)
    try:
        with eval_mode(inner):
            final = inner(input_ids=probe, use_cache=False).logits
    finally:
        handle.remove()
    if len(seen) != 1:
        return f"{name} calls its output layer {len(seen)} times in a pass"
    raw, alone = seen[0]
    computed = LogitTransform.of(text_config(inner))(raw)
    half = raw.dtype not in (torch.float32, torch.float64)
    tolerance = (1e-2 if half else 1e-5) * float(final.abs().max())
    if computed.shape != final.shape or not (computed.float() - final.float()).abs().max() <= tolerance:
        return f"{name} changes what its output layer gives in a way that its configuration does not say"
    if not (alone - raw[:, 1:2]).float().abs().max() <= tolerance:
        return f"the output layer of {name} does not treat each token by itself"
    return None


def _within_vocabulary(inner: nn.Module, texts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Tokens of a probe, as some that the model knows."""
    vocabulary = text_config(inner).vocab_size
    return [[token % vocabulary for token in text] for text in texts]


def declared_obstacle(inner: nn.Module) -> str | None:
    """Say what in a model's declaration rules rows with a mask and positions of their own out.

    Args:
        inner: A transformers or PEFT model.

    Returns:
        The end of a sentence that begins with the model's name; None if nothing does.
    """
    base = base_model(inner)
    config = text_config(inner)
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


@torch.no_grad()
def _entropy(logits_nv: Tensor) -> Tensor:
    """Entropy of softmax(logits), a few rows at a time; -inf logits count nothing."""
    return torch.cat([entropy_rows(chunk.log_softmax(-1)) for chunk in logits_nv.split(CHUNK)])
