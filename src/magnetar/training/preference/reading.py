"""One differentiable pass over both inputs of each pair: padded rows, or what the two have in common read once."""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from magnetar.modeling.logprobs import additive_mask
from magnetar.modeling.token_trees import RowPlan, TokenArray, TreeRows, lay_out_rows, tree_masks

__all__ = ["lay_out_pairs", "pad_pairs", "read_pairs"]

TREE = ("position_ids", "end_RL", "row_N", "column_N")


def pad_pairs(sequences: list[list[int]], pad_token_id: int) -> dict[str, Tensor]:
    """2N sequences as rows of their own, filled up on the right.

    Args:
        sequences: Token ids.
        pad_token_id: Fills shorter rows up; masked.

    Returns:
        ``input_ids`` and ``attention_mask``, shape (2N, L).
    """
    width = max(map(len, sequences))
    input_ids = torch.full((len(sequences), width), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for at, ids in enumerate(sequences):
        input_ids[at, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        attention_mask[at, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def lay_out_pairs(sequences: list[list[int]], pad_token_id: int) -> dict[str, Tensor]:
    """2N sequences as N rows ``[common | rest of the first | rest of the second]``.

    Args:
        sequences: Token ids of all first inputs, then of all second ones.
        pad_token_id: Fills shorter rows up. Decoder classifiers read the score at the last token that is not this one,
            so it is taken off the end of each sequence.

    Returns:
        ``input_ids`` of shape (N, L), and what `read_pairs` needs beside it.
    """
    arrays = [_without_end(ids, pad_token_id) for ids in sequences]
    size = len(arrays) // 2
    rows = []
    for at in range(size):
        shared = _common(arrays[at], arrays[size + at])
        length = len(arrays[at]) + len(arrays[size + at]) - shared
        rows.append(RowPlan((at, size + at), (0, shared), length))
    laid = lay_out_rows(arrays, rows, pad_token_id=pad_token_id)
    order = torch.from_numpy(np.argsort(laid.sequence_N))
    return {
        "input_ids": laid.input_ids,
        "position_ids": laid.position_ids,
        "end_RL": laid.end_RL,
        "row_N": laid.row_N[order],
        "column_N": laid.column_N[order],
    }


def read_pairs(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of both inputs of N pairs.

    Args:
        model: A classifier, perhaps wrapped for several processes.
        inputs: As `pad_pairs` or `lay_out_pairs` made them.

    Returns:
        Shape (2N, labels), differentiable, float32.
    """
    if "end_RL" not in inputs:
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float()
    bare = cast(Any, getattr(model, "module", model))
    rows = TreeRows(inputs["input_ids"], *(inputs[name] for name in TREE), sequence_N=np.arange(len(inputs["row_N"])))
    kept: list[Tensor] = []
    handle = bare.score.register_forward_hook(lambda _, arguments, output: kept.append(output))
    try:
        model(
            input_ids=rows.input_ids,
            position_ids=rows.position_ids,
            attention_mask=additive_mask(bare, lambda window: tree_masks(rows, window)),
            use_cache=False,
        )
    finally:
        handle.remove()
    return kept[0][rows.row_N, rows.column_N].float()


def _without_end(ids: list[int], pad_token_id: int) -> TokenArray:
    stop = len(ids)
    while stop > 1 and ids[stop - 1] == pad_token_id:
        stop -= 1
    return np.array(ids[:stop], dtype=np.int32)


def _common(first: TokenArray, second: TokenArray) -> int:
    """How many tokens two sequences share at their beginning; each keeps at least its last for itself."""
    length = min(len(first), len(second)) - 1
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if different.size else length
