"""What is asked of next-token distributions, without a whole tensor of logits at any time.

An output layer turns N hidden states into (N, V) logits, of which a loss needs a few numbers for each token. So the
layer is applied to a few hidden states at a time, and what outlives a chunk is one number for each token and question,
and for the backward pass one vector of the hidden states' width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedConfig

__all__ = [
    "LOGIT_SETTINGS",
    "FrozenStates",
    "Layer",
    "LogitTransform",
    "entropy_rows",
    "kl_rows",
    "read_tokens",
]

Layer = Callable[[Tensor], Tensor]
GradientUse = Callable[[int, Tensor], None]
# Settings of models whose forward pass changes what the output layer gave; see `LogitTransform`.
LOGIT_SETTINGS = ("final_logit_softcapping", "logits_soft_cap", "logit_scale", "logits_scaling", "lm_head_multiplier")
# Logits alive at a time: on an accelerator a product of matrices should be large, on a CPU its result should stay in
# the cache.
CHUNK_LOGITS = {"cpu": 2**23}
CHUNK_LOGITS_ELSEWHERE = 2**25


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to the output of its output layer before it returns it as logits.

    Attributes:
        cap: Gemma's soft cap, ``cap · tanh(x / cap)``; None for none.
        factor: Cohere's and Falcon H1's multiplier.
        divisor: Granite's.
    """

    cap: float | None = None
    factor: float | None = None
    divisor: float | None = None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "LogitTransform":
        """Read it from a text model's configuration; whether it is the whole truth, a probe has to show."""
        factors = [getattr(config, name, None) for name in ("logit_scale", "lm_head_multiplier")]
        return cls(
            getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None),
            next((factor for factor in factors if factor is not None), None),
            getattr(config, "logits_scaling", None),
        )

    def __call__(self, logits: Tensor) -> Tensor:
        """The model's logits, in the precision that they came in, as the model itself computes them."""
        if self.factor is not None:
            logits = logits * self.factor
        if self.divisor is not None:
            logits = logits / self.divisor
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


@dataclass(frozen=True)
class FrozenStates:
    """What is kept of a frozen policy's pass, from which its next-token distributions can be had again.

    Attributes:
        hidden_NH: What its output layer read at N response tokens.
        layer: Its output layer; None when that of the model which runs now is the same.
    """

    hidden_NH: Tensor
    layer: Layer | None


@dataclass(frozen=True)
class _Questions:
    """What is asked of each token, chunk by chunk."""

    layer: Layer
    transform: LogitTransform
    target_N: Tensor
    temperature: float
    against: Sequence[FrozenStates]
    entropy: bool

    def scaled(self, layer: Layer, hidden_CH: Tensor) -> tuple[Tensor, bool]:
        """Logits over the temperature, in full precision, and whether they are a tensor that nothing else looks at."""
        raw_CV = layer(hidden_CH.unsqueeze(0)).squeeze(0)
        scaled_CV = self.transform(raw_CV)
        scaled_CV = scaled_CV.to(torch.promote_types(scaled_CV.dtype, torch.float32))
        if self.temperature != 1.0:
            scaled_CV = scaled_CV / self.temperature
        return scaled_CV, scaled_CV is not raw_CV

    @torch.no_grad()
    def answer(self, scaled_CV: Tensor, own: bool, rows: slice, use: GradientUse | None = None) -> Tensor:
        """Answers about a chunk, shape (C, K), and for each differentiable one its gradient by the scaled logits.

        Args:
            scaled_CV: From `scaled`; overwritten if nothing else looks at it.
            own: Whether nothing else does.
            rows: The chunk's place among the tokens.
            use: Is given the number of an answer and the gradient, shape (C, V), which is gone afterwards.
        """
        full_CV = scaled_CV.detach() if own else scaled_CV.detach().clone()
        full_CV -= full_CV.logsumexp(-1, keepdim=True)
        target_C1 = self.target_N[rows].unsqueeze(-1)
        columns = [full_CV.gather(-1, target_C1).squeeze(-1)]
        prob_CV = full_CV.exp()
        for number, other in enumerate(self.against, start=1):
            ratio_CV, fresh = self.scaled(other.layer or self.layer, other.hidden_NH[rows].to(scaled_CV.device))
            ratio_CV = ratio_CV if fresh else ratio_CV.clone()
            ratio_CV -= ratio_CV.logsumexp(-1, keepdim=True)
            # A token with probability 0 adds nothing, whatever the other gives it; inf − inf would be NaN.
            torch.sub(full_CV, ratio_CV, out=ratio_CV).masked_fill_(prob_CV == 0, 0.0).mul_(prob_CV)
            columns.append(ratio_CV.sum(-1))
            if use is not None:
                use(number, ratio_CV.addcmul_(prob_CV, columns[-1].unsqueeze(-1), value=-1))
        if self.entropy:
            columns.append(torch.special.entr(prob_CV).sum(-1))
        if use is not None:
            use(0, prob_CV.neg_().scatter_add_(-1, target_C1, torch.ones_like(target_C1, dtype=prob_CV.dtype)))
        return torch.stack(columns, -1)


def read_tokens(
    layer: Layer,
    parameters: Sequence[nn.Parameter],
    transform: LogitTransform,
    hidden_NH: Tensor,
    target_N: Tensor,
    *,
    temperature: float,
    against: Sequence[FrozenStates] = (),
    entropy: bool = True,
    vocabulary: int,
    dropout: bool = False,
) -> Tensor:
    r"""Read log-probabilities, KL divergences and entropies off hidden states, a chunk of tokens at a time.

    `log p_t = log softmax(f(W h_t) / temperature)`, f being the model's transform of its logits

    An output layer that does not learn is differentiated at once: a token's number is a function of its own hidden
    state alone, so its gradient is a vector that can be kept instead of the logits, and nothing is computed twice. One
    that learns is applied again in the backward pass, because its own gradient depends on the loss.

    Args:
        layer: From hidden states of shape (1, C, H) to logits (1, C, V), each token by itself.
        parameters: What learns in the layer.
        transform: What the model does to the logits.
        hidden_NH: What the layer reads.
        target_N: The tokens.
        temperature: Divides the logits, above 0.
        against: Frozen policies q of which `KL(p‖q)` is wanted at every token.
        entropy: Whether entropies are wanted.
        vocabulary: V, from which the size of a chunk follows.
        dropout: Whether the layer draws random numbers, which the second application must repeat.

    Returns:
        Shape (N, K) in float32 (float64 for a float64 model), nats: log-probabilities, a divergence for each of
        `against`, and if wanted entropies, which have no gradient.
    """
    questions = _Questions(layer, transform, target_N, temperature, against, entropy)
    limit = CHUNK_LOGITS.get(hidden_NH.device.type, CHUNK_LOGITS_ELSEWHERE)
    chunk = max(1, limit // vocabulary)
    if torch.is_grad_enabled() and (hidden_NH.requires_grad or parameters):
        values = _Reading.apply(hidden_NH, questions, chunk, dropout, *parameters)
    else:
        values = _read(questions, hidden_NH, chunk)
    return cast(Tensor, values)


def kl_rows(full_NV: Tensor, other_NV: Tensor) -> Tensor:
    r"""`Σ_v p_v (log p_v − log q_v)` of each row of log-probabilities, shape (N,), nats."""
    # A token with probability 0 adds nothing, whatever q gives it; inf − inf would be NaN.
    log_ratio = torch.where(full_NV.isneginf(), 0.0, full_NV - other_NV)
    return (full_NV.exp() * log_ratio).sum(-1)


def entropy_rows(full_NV: Tensor) -> Tensor:
    r"""`−Σ_v p_v log p_v` of each row of log-probabilities, shape (N,), nats."""
    return -(full_NV.exp() * full_NV.clamp(min=torch.finfo(full_NV.dtype).min)).sum(-1)


class _Reading(torch.autograd.Function):
    """`_read` with gradients for the hidden states and for what learns in the output layer."""

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, questions: _Questions, chunk: int, dropout: bool, *parameters: nn.Parameter
    ) -> Tensor:
        ctx.questions, ctx.chunk = questions, chunk
        ctx.learns = bool(parameters)
        if not parameters:
            values, slopes = _read_with_slopes(questions, hidden_NH, chunk)
            ctx.save_for_backward(*slopes)
            return values
        ctx.random = _RandomState(hidden_NH.device) if dropout else None
        ctx.autocast = _autocast_as_now(hidden_NH.device.type)
        ctx.parameters = parameters  # not among the saved tensors, whose hooks could put copies in their place
        ctx.save_for_backward(hidden_NH)
        return _read(questions, hidden_NH, chunk)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NK: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not ctx.learns:
            slopes = ctx.saved_tensors
            total = gradient_NK[:, 0].unsqueeze(-1) * slopes[0]
            for k, slope in enumerate(slopes[1:], start=1):
                total += gradient_NK[:, k].unsqueeze(-1) * slope
            return total.to(slopes[0].dtype), None, None, None
        (hidden_NH,) = ctx.saved_tensors
        with ExitStack() as stack:
            stack.enter_context(ctx.autocast())
            if ctx.random is not None:
                stack.enter_context(ctx.random.again())
            hidden, weights = _gradients(
                ctx.questions, hidden_NH, ctx.parameters, gradient_NK, ctx.chunk, ctx.needs_input_grad[0]
            )
        return hidden, None, None, None, *weights


@torch.no_grad()
def _read(questions: _Questions, hidden_NH: Tensor, chunk: int) -> Tensor:
    """Values (N, K) without anything for a backward pass."""
    parts = []
    for rows in _chunks(len(hidden_NH), chunk):
        parts.append(questions.answer(*questions.scaled(questions.layer, hidden_NH[rows]), rows))
    return torch.cat(parts)


def _read_with_slopes(questions: _Questions, hidden_NH: Tensor, chunk: int) -> tuple[Tensor, list[Tensor]]:
    """Values (N, K), and of each differentiable column its gradient by the hidden states, (N, H)."""
    slopes = [torch.empty_like(hidden_NH) for _ in range(1 + len(questions.against))]
    parts = []
    for rows in _chunks(len(hidden_NH), chunk):
        with torch.enable_grad(), _nothing_leaves():
            states = hidden_NH[rows].detach().requires_grad_()
            scaled, own = questions.scaled(questions.layer, states)

            def use(
                number: int, gradient_CV: Tensor, rows: slice = rows, scaled: Tensor = scaled, states: Tensor = states
            ) -> None:
                # A row's value depends on its own state alone, so these are the gradients of the rows.
                (slopes[number][rows],) = torch.autograd.grad(scaled, states, gradient_CV, retain_graph=number > 0)

            parts.append(questions.answer(scaled, own, rows, use))
    return torch.cat(parts), slopes


def _gradients(
    questions: _Questions,
    hidden_NH: Tensor,
    parameters: Sequence[Tensor],
    gradient_NK: Tensor,
    chunk: int,
    states_learn: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Apply the output layer again and differentiate; sums over chunks are kept in full precision."""
    hidden_gradient = torch.empty_like(hidden_NH) if states_learn else None
    totals: list[Tensor | None] = [None] * len(parameters)
    for rows in _chunks(len(hidden_NH), chunk):
        with torch.enable_grad(), _nothing_leaves():
            states = hidden_NH[rows].detach().requires_grad_()
            scaled, own = questions.scaled(questions.layer, states)
            weighed: list[Tensor] = []

            def use(number: int, gradient_CV: Tensor, rows: slice = rows, weighed: list[Tensor] = weighed) -> None:
                gradient_CV *= gradient_NK[rows, number].unsqueeze(-1)
                if weighed:
                    weighed[0] += gradient_CV
                else:
                    weighed.append(gradient_CV)

            questions.answer(scaled, own, rows, use)
            gradients = torch.autograd.grad(scaled, (states, *parameters), weighed[0], allow_unused=True)
        if hidden_gradient is not None and gradients[0] is not None:
            hidden_gradient[rows] = gradients[0]
        for k, gradient in enumerate(gradients[1:]):
            if gradient is None:
                continue
            total = totals[k]
            if total is None:
                totals[k] = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            else:
                total += gradient
    weights = [None if t is None else t.to(p.dtype) for t, p in zip(totals, parameters, strict=True)]
    return hidden_gradient, weights


def _chunks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _nothing_leaves() -> saved_tensors_hooks:
    """Within it tensors are kept as they are for backward passes: a chunk's is over before anything could move them."""
    return saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)


def _autocast_as_now(device_type: str) -> Callable[[], Any]:
    """A context that restores mixed precision as it is now; a backward pass runs without."""
    enabled, dtype = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    return lambda: torch.autocast(device_type, dtype=dtype) if enabled else nullcontext()


class _RandomState:
    """The state of the random numbers of a device, to draw the same again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._own = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw once more what was drawn since this object was made; afterwards the state is as before."""
        kind = self._device.type
        devices = [] if self._own is None else [self._device]
        with torch.random.fork_rng(devices=devices, device_type="cuda" if kind == "cpu" else kind):
            torch.set_rng_state(self._cpu)
            if self._own is not None:
                torch.get_device_module(self._device).set_rng_state(self._own, self._device)
            yield
