"""How far a policy went from another one, on the prompts that it is evaluated on.

A win rate says little without the distance it was bought with: whoever goes far enough from the start finds what a
judge mistakes for good (arXiv:2210.10760).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from magnetar.data import render_prompts
from magnetar.evaluation.players.base import Answer
from magnetar.modeling.forward import text_config
from magnetar.modeling.logprobs import exact_kl, packing_support, response_logprobs, split_micro_batches
from magnetar.modeling.modes import eval_mode
from magnetar.modeling.packing import LayoutName
from magnetar.rollout.ending import end_token_ids
from magnetar.types import Prompt

__all__ = ["common_layout", "kl_of_answers", "response_divergences"]

LOGITS_AT_ONCE = 2**24  # of either policy: 64 MiB in float32, or one response's where that is more


def common_layout(policy: nn.Module, other: Callable[[], AbstractContextManager[nn.Module]]) -> LayoutName:
    """How two models can read groups of responses; a few tokens are run through each."""
    with other() as model:
        return "packed" if packing_support(policy) is None and packing_support(model) is None else "padded"


def response_divergences(
    policy: nn.Module,
    other: Callable[[], AbstractContextManager[nn.Module]],
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[Sequence[int]]],
    *,
    temperature: float,
    pad_token_id: int,
    layout: LayoutName,
) -> Iterator[tuple[int, list[float]]]:
    r"""KL divergence of a policy from another one along responses that the policy gave.

    For a response y to x that was drawn from π, `Σ_t KL(π(·|x, y_{<t}) ‖ ρ(·|x, y_{<t}))` has the mean
    `KL(π(·|x) ‖ ρ(·|x))` of responses up to the limit of their length, and varies less than
    `log π(y|x) − log ρ(y|x)`, of which it is the Rao-Blackwell form (arXiv:2504.10637).

    Args:
        policy: π.
        other: Gives ρ, which may be π's model with its adapter switched off; the same vocabulary, on any device.
        prompt_ids: B prompts.
        response_ids: B groups of G responses, at least one token each, the end-of-sequence token included.
        temperature: Of both; responses were drawn at it.
        pad_token_id: Fills rows up; no result depends on it.
        layout: That suits both; see `common_layout`.

    Yields:
        Index of a prompt, and for each of its responses the divergence in nats, not below 0.
    """
    asked: dict[str, Any] = {
        "temperature": temperature,
        "layout": layout,
        "full": True,
        "entropy": False,
        "pad_token_id": pad_token_id,
    }
    room = max(1, LOGITS_AT_ONCE // text_config(policy).vocab_size)
    owner, prompts, groups = _pieces(prompt_ids, response_ids, room)
    pieces_of: dict[int, list[int]] = {}
    for piece, row in enumerate(owner):
        pieces_of.setdefault(row, []).append(piece)
    measured: dict[int, list[float]] = {}
    for pieces in split_micro_batches(prompts, groups, room, layout):
        ids = [prompts[piece] for piece in pieces], [groups[piece] for piece in pieces]
        with torch.no_grad():
            with eval_mode(policy):
                own = response_logprobs(policy, *ids, **asked)
            with other() as model, eval_mode(model):
                others = response_logprobs(model, *ids, **asked)
            assert own.full_NV is not None and others.full_NV is not None
            kl_BGT = exact_kl(own.full_NV, others.full_NV.to(own.full_NV.device), own.mask_BGT)
        kl_BG = kl_BGT.double().sum(-1).clamp_min(0.0)  # which rounding alone takes it below
        measured.update(zip(pieces, kl_BG.tolist(), strict=True))
        for row in {owner[piece] for piece in pieces}:
            if all(piece in measured for piece in pieces_of[row]):
                yield row, [value for piece in pieces_of[row] for value in measured.pop(piece)]


def _pieces(
    prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[Sequence[int]]], room: int
) -> tuple[list[int], list[Sequence[int]], list[Sequence[Sequence[int]]]]:
    """Groups as they are, or each response by itself where a group has more tokens than there is room for.

    Returns:
        For each piece its prompt's index, its prompt and its responses.
    """
    whole = all(sum(map(len, group)) <= room for group in response_ids)
    owner = [row for row, group in enumerate(response_ids) for _ in ([0] if whole else group)]
    groups: list[Sequence[Sequence[int]]] = list(response_ids)
    if not whole:
        groups = [[response] for group in response_ids for response in group]
    return owner, [prompt_ids[row] for row in owner], groups


def kl_of_answers(
    policy: nn.Module,
    other: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    *,
    label: str = "policy",
    progress: bool = False,
) -> Iterator[tuple[int, list[float]]]:
    """KL divergence of a policy from another one, on texts that the policy gave; see `response_divergences`.

    Texts are made tokens again, which may differ from those that were drawn where a text has several spellings.

    Args:
        policy: Which the responses were drawn from at temperature 1.
        other: With the same vocabulary.
        tokenizer: Of both.
        prompts: B prompts.
        answers: One for each prompt, with G responses each.
        label: What the progress bar calls the policy.
        progress: Whether to show one on standard error.

    Yields:
        Index of a prompt, and for each of its responses the divergence in nats, not below 0.
    """
    end = _end_token(policy, tokenizer)
    found = response_divergences(
        policy,
        lambda: nullcontext(other),
        render_prompts(list(prompts), tokenizer),
        [_tokens(answer, tokenizer, end) for answer in answers],
        temperature=1.0,
        pad_token_id=tokenizer.pad_token_id,
        layout=common_layout(policy, lambda: nullcontext(other)),
    )
    total = len(prompts)
    yield from tqdm(found, total=total, desc=f"{label}: distance", unit="prompt", disable=not progress, leave=False)


def _end_token(policy: nn.Module, tokenizer: Any) -> int | None:
    """What ended a response: which one it was is not written down where a model knows several."""
    ends = end_token_ids(policy, tokenizer)
    return tokenizer.eos_token_id if tokenizer.eos_token_id in ends else min(ends, default=None)


def _tokens(answer: Answer, tokenizer: Any, end: int | None) -> list[list[int]]:
    """Responses as tokens, with the end where there was room for it; at least one token each."""
    cut = answer.truncated or [False] * len(answer.texts)
    found = []
    for text, without_end in zip(answer.texts, cut, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ended = end is not None and (not without_end or not ids)
        found.append([*ids, end] if ended else ids or [tokenizer.pad_token_id])
    return found
