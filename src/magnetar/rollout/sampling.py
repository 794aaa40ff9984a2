"""Drawing tokens from logits by inverse distribution function, so that one uniform number decides each token."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from magnetar.rollout.base import SamplingParams

__all__ = ["draw_tokens", "draw_uniforms"]

# How many of the most probable tokens are looked at before the whole vocabulary is sorted for top_p.
CANDIDATES = 1024
# Tokens of a vocabulary that are added up before one of them is looked for.
BLOCK = 128


def draw_uniforms(seeds: Sequence[int], group_size: int, length: int) -> Tensor:
    """Uniform numbers that depend on the prompt's seed, the response's index and the position alone.

    Args:
        seeds: One integer for each of B prompts.
        group_size: G.
        length: T; more positions leave the first ones unchanged, and so do more responses.

    Returns:
        Shape (B·G, T), float64, in [0, 1).
    """
    rows = [
        np.random.default_rng([seed % 2**64, index]).random(length) for seed in seeds for index in range(group_size)
    ]
    return torch.from_numpy(np.stack(rows))


def draw_tokens(logits_rv: Tensor, uniform_r: Tensor, sampling: SamplingParams) -> tuple[Tensor, Tensor]:
    """Draw one token for each row: the first whose cumulative probability exceeds the row's uniform number.

    Args:
        logits_rv: Shape (R, V).
        uniform_r: Shape (R,), float64, in [0, 1).
        sampling: Temperature and truncation.

    Returns:
        Tokens, shape (R,), and their log-probabilities at the temperature before truncation, shape (R,), float32.
    """
    scaled_rv = logits_rv.float()
    if sampling.temperature != 1.0:
        scaled_rv = scaled_rv / sampling.temperature
    probability_rv = scaled_rv.softmax(-1)
    drawn_from_rv = probability_rv * _kept(probability_rv, sampling) if sampling.truncates else probability_rv
    token_r1 = _invert(drawn_from_rv, uniform_r.unsqueeze(-1))
    return token_r1.squeeze(-1), probability_rv.gather(-1, token_r1).log().squeeze(-1)


def _invert(probability_rv: Tensor, uniform_r1: Tensor) -> Tensor:
    """The inverse distribution function, found block by block: a running sum of a whole vocabulary is slow."""
    vocabulary = probability_rv.shape[-1]
    blocks_rbk = nn.functional.pad(probability_rv, (0, -vocabulary % BLOCK)).unflatten(-1, (-1, BLOCK))
    ends_rb = blocks_rbk.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted_r1 = uniform_r1 * ends_rb[:, -1:]
    block_r1 = _first_above(ends_rb, wanted_r1)
    # Logits that are NaN order nothing: stay inside the vocabulary, and let the log-probability, which is NaN, tell.
    block_r1 = block_r1.clamp(max=ends_rb.shape[-1] - 1)
    before_r1 = torch.where(block_r1 > 0, ends_rb.gather(-1, (block_r1 - 1).clamp(min=0)), 0.0)
    inside_rk = blocks_rbk.gather(1, block_r1.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    inside_rk = inside_rk.cumsum(-1, dtype=torch.float64)
    # Rounding may leave the block's own sum a little below its share of the whole.
    place_r1 = _first_above(inside_rk, torch.minimum(wanted_r1 - before_r1, inside_rk[:, -1:]))
    return (block_r1 * BLOCK + place_r1).clamp(max=vocabulary - 1)


def _first_above(cumulative_rn: Tensor, wanted_r1: Tensor) -> Tensor:
    """The first place whose sum exceeds a number; for one that rounds up to the total, the last that adds to it."""
    total_r1 = cumulative_rn[:, -1:].contiguous()
    found_r1 = torch.searchsorted(cumulative_rn, wanted_r1, right=True)
    return torch.minimum(found_r1, torch.searchsorted(cumulative_rn, total_r1))


def _kept(probability_rv: Tensor, sampling: SamplingParams) -> Tensor:
    """Which tokens may be drawn; the most probable one always may."""
    kept = probability_rv >= sampling.min_p * probability_rv.amax(-1, keepdim=True)
    if sampling.top_k > 0:
        top = probability_rv.topk(min(sampling.top_k, probability_rv.shape[-1]), dim=-1)
        kept &= torch.zeros_like(kept).scatter_(-1, top.indices, True)
    if sampling.top_p < 1.0:
        kept &= _nucleus(probability_rv * kept, sampling.top_p)
    return kept


def _nucleus(probability_rv: Tensor, top_p: float) -> Tensor:
    """The most probable tokens, in order, until they hold a share `top_p` of the row's probability."""
    limit_r1 = top_p * probability_rv.sum(-1, keepdim=True, dtype=torch.float64)
    # Sorting a vocabulary is slow and rarely needed. Which rows need it depends on each row alone.
    top, index = probability_rv.topk(min(CANDIDATES, probability_rv.shape[-1]), dim=-1)
    before = top.cumsum(-1, dtype=torch.float64) - top
    kept = torch.zeros_like(probability_rv, dtype=torch.bool).scatter_(-1, index, before < limit_r1)
    wide = (top.sum(-1, keepdim=True, dtype=torch.float64) < limit_r1).squeeze(-1).nonzero().squeeze(-1)
    if len(wide) and top.shape[-1] < probability_rv.shape[-1]:
        ordered, index = probability_rv[wide].sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1, dtype=torch.float64) - ordered
        kept[wide] = torch.zeros_like(kept[wide]).scatter_(-1, index, before < limit_r1[wide])
    return kept
