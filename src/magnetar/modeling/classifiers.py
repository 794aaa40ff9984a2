"""Forward passes of sequence classifiers: padded rows for any model, token trees for decoders."""

import inspect
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from magnetar.modeling.logprobs import additive_mask, declared_obstacle
from magnetar.modeling.modes import eval_mode
from magnetar.modeling.token_trees import RowPlan, TokenArray, TreeRows, lay_out_rows, plan_rows, tree_masks

__all__ = ["even_length", "read_padded", "read_rows", "tree_obstacle"]

ATTENTION_OVERHEAD = 1.5
"""Time of an operation in attention with a mask, in units of one in a matrix product: on a CPU 1 to 2, by precision."""


@torch.inference_mode()
def read_padded(model: PreTrainedModel, sequences: Sequence[TokenArray], *, pad_token_id: int) -> Tensor:
    """Logits of sequences in rows of their own, filled up on the right.

    Args:
        model: With a sequence classification head.
        sequences: N sequences of at least one token.
        pad_token_id: Fills shorter rows up.

    Returns:
        Shape (N, labels), in the model's precision, on its device.
    """
    width = max(map(len, sequences))
    tokens = np.full((len(sequences), width), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(tokens)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    device = model.device
    options: dict[str, Any] = {"use_cache": False} if _takes(model, "use_cache") else {}
    return model(
        input_ids=torch.from_numpy(tokens).to(device), attention_mask=torch.from_numpy(mask).to(device), **options
    ).logits


@torch.inference_mode()
def read_rows(
    model: PreTrainedModel, sequences: Sequence[TokenArray], rows: Sequence[RowPlan], *, pad_token_id: int
) -> tuple[Tensor, np.ndarray]:
    """Logits of sequences laid out as token trees, each read at its last token.

    Args:
        model: A decoder with a sequence classification head for which `tree_obstacle` is None.
        sequences: The sequences that `rows` were planned for.
        rows: All of them trees, or none.
        pad_token_id: Fills shorter rows up.

    Returns:
        Logits of shape (N, labels) of the N sequences in these rows, and their indices.
    """
    laid = lay_out_rows(sequences, rows, pad_token_id=pad_token_id, device=model.device)
    _, logits = _head_values(model, laid, trees=any(row.is_tree for row in rows))
    return logits, laid.sequence_N


def even_length(model: PreTrainedModel) -> float:
    """Row length at which attention over the whole row costs as much as the rest of the model, in tokens.

    A token costs two operations for each weight, and four for each channel of attention and each token of the row.
    """
    config = model.config.get_text_config()
    weights = sum(parameter.numel() for parameter in model.parameters())
    table = cast(nn.Module, model.get_input_embeddings())
    weights -= sum(parameter.numel() for parameter in table.parameters())
    heads = getattr(config, "num_attention_heads", 1)
    channels = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return max(1.0, 2 * weights / (4 * channels * config.num_hidden_layers * ATTENTION_OVERHEAD))


@torch.inference_mode()
def tree_obstacle(model: PreTrainedModel) -> str | None:
    """Say why token trees would be wrong for a classifier, or None when they are right.

    What the configuration shows is looked at first; then a few tokens are read both as a tree and one by one, so that
    a model which ignores the mask is found out whatever its configuration says.

    Args:
        model: With a sequence classification head.

    Returns:
        None, or one sentence that names the model and the reason.
    """
    name = type(model).__name__
    if not isinstance(getattr(model, "score", None), nn.Module):
        return f"{name} has no layer `score` that reads every token, as decoders have: it reads the text as a whole"
    reason = declared_obstacle(model)
    if reason is not None:
        return f"{name} {reason}"
    vocabulary = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    probe = ([3, 11, 7, 5, 2, 13, 6], [3, 11, 7, 5, 4], [3, 11, 7, 9, 8, 1], [3, 11, 7, 9, 12, 1, 5], [3, 11, 7, 9])
    sequences = [np.array([token % vocabulary for token in tokens], dtype=np.int32) for tokens in probe]
    tree = plan_rows(sequences, max_row=1_000, even_length=1e9)
    alone = [RowPlan((at,), (0,), len(sequence)) for at, sequence in enumerate(sequences)]
    one_by_one, laid = (lay_out_rows(sequences, rows, pad_token_id=0, device=model.device) for rows in (alone, tree))
    with eval_mode(model):
        expected = _head_values(model, one_by_one, trees=False)[0].float()
        try:
            read = _head_values(model, laid, trees=True)[0].float()
        except (TypeError, ValueError, AttributeError, RuntimeError, KeyError, IndexError) as error:
            return f"{name} cannot take the mask of token trees ({type(error).__name__}: {error})"
    expected = expected[torch.from_numpy(laid.sequence_N).to(expected.device)]
    # What the head reads, not what it says: a head may be blind to a difference in these few tokens.
    spread = (expected - expected.mean(0)).norm(dim=-1).mean()
    gap = float((read - expected).norm(dim=-1).max() / spread.clip(1e-12))
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.15
    if not gap <= tolerance:
        return f"{name} does not follow the mask of token trees: what its head reads is off by {gap:.2g} of its spread"
    return None


def _head_values(model: PreTrainedModel, rows: TreeRows, *, trees: bool) -> tuple[Tensor, Tensor]:
    """What the head reads at the last token of each sequence, and what it says: (N, hidden), (N, labels)."""
    inputs: dict[str, Any] = {"input_ids": rows.input_ids, "use_cache": False}
    if trees:
        inputs["position_ids"] = rows.position_ids
        inputs["attention_mask"] = additive_mask(model, lambda window: tree_masks(rows, window))
    # Rows that hold one sequence each need no mask: what fills them up comes later, where a causal model never looks.
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        kept.append((arguments[0], output))

    handle = cast(nn.Module, model.score).register_forward_hook(keep)
    try:
        model(**inputs)
    finally:
        handle.remove()
    if len(kept) != 1 or kept[0][1].shape[:2] != rows.input_ids.shape:
        raise ValueError("the layer `score` does not read every token once")
    hidden, logits = kept[0]
    return hidden[rows.row_N, rows.column_N], logits[rows.row_N, rows.column_N]


def _takes(model: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(model.forward).parameters
