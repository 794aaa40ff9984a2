"""How prompts and responses are laid out for a forward pass, and the masks that go with it.

The G responses of a prompt share it, so a packed group is one stretch `[prompt | y_1 | … | y_G]` in which positions
restart after the prompt and each response sees the prompt and itself. Short groups share a row. Attention is computed
over whole rows, so a group with long responses is better read in several stretches, each with the prompt again; how
many rows, and how wide, is a matter of what tokens and attention cost. The last token of a response predicts nothing
that is asked for, so it is never fed in.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["TokenLayout", "block_masks", "lay_out", "split_micro_batches"]

LayoutName = Literal["packed", "padded"]
PADDING = -1
# Width of a row at which attention over it costs as much as everything else that is done with its tokens.
DEAR_WIDTH = 8192


@dataclass(frozen=True)
class TokenLayout:
    """Tokens of a micro batch in rows, and where each response token is predicted.

    R rows of L tokens; N response tokens in the order of `mask_BGT.nonzero()`.

    Attributes:
        name: "packed" or "padded".
        input_ids: Shape (R, L).
        position_ids: Shape (R, L); a response's positions go on from its prompt's.
        group_RL: Which stretch a token belongs to, a prompt and some or all of its responses; -1 at padding.
        segment_RL: 0 in a prompt, g + 1 in response g.
        row_N: The row in which a response token is predicted.
        column_N: The column of the token before it.
        target_N: The response token itself.
        mask_BGT: True where there is a response token.
    """

    name: LayoutName
    input_ids: Tensor
    position_ids: Tensor
    group_RL: Tensor
    segment_RL: Tensor
    row_N: Tensor
    column_N: Tensor
    target_N: Tensor
    mask_BGT: Tensor


def lay_out(
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[Sequence[int]]],
    name: LayoutName,
    *,
    pad_token_id: int,
    device: torch.device | str = "cpu",
) -> TokenLayout:
    """Lay prompts and their responses out in rows.

    Args:
        prompt_ids: B prompts, at least one token each.
        response_ids: B groups of G responses, at least one token each.
        name: "packed": a prompt once, its responses after it; "padded": one row for each prompt and response.
        pad_token_id: Fills the rows up; any token will do, for nothing looks at it.
        device: Where the tensors are made.

    Raises:
        ValueError: An empty prompt or response, or groups of different sizes.
    """
    _check(prompt_ids, response_ids)
    pieces = _packed_pieces(prompt_ids, response_ids) if name == "packed" else _padded_pieces(prompt_ids, response_ids)
    lengths = [len(piece.tokens) for piece in pieces]
    rows = _fill_rows(lengths) if name == "packed" else [[index] for index in range(len(pieces))]
    width = max(sum(len(pieces[index].tokens) for index in row) for row in rows)

    shape = (len(rows), width)
    tokens = torch.full(shape, pad_token_id)
    positions = torch.zeros(shape, dtype=torch.long)
    groups = torch.full(shape, PADDING)
    segments = torch.zeros(shape, dtype=torch.long)
    predictors: dict[tuple[int, int], tuple[int, list[int]]] = {}
    for r, row in enumerate(rows):
        start = 0
        for index in row:
            piece = pieces[index]
            stop = start + len(piece.tokens)
            tokens[r, start:stop] = torch.tensor(piece.tokens)
            positions[r, start:stop] = torch.tensor(piece.positions)
            groups[r, start:stop] = index
            segments[r, start:stop] = torch.tensor(piece.segments)
            for g, columns in piece.predictors.items():
                predictors[piece.prompt, g] = (r, [start + column for column in columns])
            start = stop

    lengths_BG = torch.tensor([[len(response) for response in group] for group in response_ids])
    order = [(b, g) for b in range(len(prompt_ids)) for g in range(lengths_BG.shape[1])]
    row_n = [predictors[key][0] for key in order for _ in predictors[key][1]]
    column_n = [column for key in order for column in predictors[key][1]]
    target_n = [token for b, g in order for token in response_ids[b][g]]
    return TokenLayout(
        name=name,
        input_ids=tokens.to(device),
        position_ids=positions.to(device),
        group_RL=groups.to(device),
        segment_RL=segments.to(device),
        row_N=torch.tensor(row_n, device=device),
        column_N=torch.tensor(column_n, device=device),
        target_N=torch.tensor(target_n, device=device),
        mask_BGT=(torch.arange(int(lengths_BG.max())) < lengths_BG.unsqueeze(-1)).to(device),
    )


def block_masks(layout: TokenLayout, window: int | None = None) -> Tensor:
    """Who sees whom in packed rows: the prompt and the own response, up to the own position.

    Args:
        layout: The rows.
        window: Sliding window in tokens, by distance of positions; None for full attention.

    Returns:
        Shape (R, 1, L, L), boolean, True where the query (first L) sees the key (second L).
    """
    group, segment, position = layout.group_RL, layout.segment_RL, layout.position_ids
    visible = group.unsqueeze(2) == group.unsqueeze(1)
    visible &= (segment.unsqueeze(1) == 0) | (segment.unsqueeze(2) == segment.unsqueeze(1))
    distance = position.unsqueeze(2) - position.unsqueeze(1)
    visible &= distance >= 0
    if window is not None:
        visible &= distance < window
    return visible.unsqueeze(1)


def split_micro_batches(
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[Sequence[int]]],
    max_tokens: int,
    layout: LayoutName,
) -> list[list[int]]:
    """Split a batch into micro batches of at most `max_tokens` tokens, padding included; groups stay whole.

    Groups of similar length come together, so that little is padded. A group that alone exceeds the budget is a micro
    batch of its own; its rows are no wider than pays.

    Args:
        prompt_ids: B prompts.
        response_ids: B groups of G responses.
        max_tokens: Budget of a micro batch, at least 1: rows times width.
        layout: The layout that the forward pass will have.

    Returns:
        Indices of prompts, one list for each micro batch; every prompt appears once.

    Raises:
        ValueError: The budget is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens = {max_tokens}, expected at least 1")

    def lengths(index: int) -> list[int]:
        prompt, fed = len(prompt_ids[index]), [len(response) - 1 for response in response_ids[index]]
        parts = _stretches(prompt, fed) if layout == "packed" else [[g] for g in range(len(fed))]
        return [prompt + sum(fed[g] for g in part) for part in parts]

    def cost(pieces: list[int]) -> int:
        if layout == "padded":
            return max(pieces) * len(pieces)
        rows = _fill_rows(pieces)
        return len(rows) * max(sum(pieces[index] for index in row) for row in rows)

    pieces = [lengths(index) for index in range(len(prompt_ids))]
    order = sorted(range(len(prompt_ids)), key=lambda i: (-max(pieces[i]), i))
    batches: list[list[int]] = []
    done = 0
    while done < len(order):

        def fits(count: int, done: int = done) -> bool:
            return cost([length for i in order[done : done + count] for length in pieces[i]]) <= max_tokens

        count = _longest_prefix(len(order) - done, fits)
        batches.append(order[done : done + count])
        done += count
    return batches


@dataclass(frozen=True)
class _Piece:
    """A stretch of tokens that stays in one row."""

    prompt: int
    tokens: list[int]
    positions: list[int]
    segments: list[int]
    predictors: dict[int, list[int]]  # response g -> the columns that predict its tokens


def _packed_pieces(
    prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[Sequence[int]]]
) -> list[_Piece]:
    pieces = []
    for b, (prompt, group) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        for part in _stretches(len(prompt), [len(response) - 1 for response in group]):
            tokens, positions, segments = list(prompt), list(range(len(prompt))), [0] * len(prompt)
            predictors = {}
            for g in part:
                fed, start = len(group[g]) - 1, len(tokens)
                predictors[g] = [len(prompt) - 1, *range(start, start + fed)]
                tokens += group[g][:-1]
                positions += range(len(prompt), len(prompt) + fed)
                segments += [g + 1] * fed
            pieces.append(_Piece(b, tokens, positions, segments, predictors))
    return pieces


def _padded_pieces(
    prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[Sequence[int]]]
) -> list[_Piece]:
    pieces = []
    for b, (prompt, group) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        for g, response in enumerate(group):
            tokens = [*prompt, *response[:-1]]
            segments = [0] * len(prompt) + [g + 1] * (len(response) - 1)
            predictors = {g: list(range(len(prompt) - 1, len(tokens)))}
            pieces.append(_Piece(b, tokens, list(range(len(tokens))), segments, predictors))
    return pieces


def _stretches(prompt: int, fed: Sequence[int]) -> list[list[int]]:
    """Divide a group into stretches, each with the prompt: as many as cost least, with responses in order in each."""
    best, least = [list(range(len(fed)))], float("inf")
    for count in range(1, len(fed) + 1):
        parts = _balanced(fed, count)
        widths = [prompt + sum(fed[g] for g in part) for part in parts]
        cost = sum(width * (1 + width / DEAR_WIDTH) for width in widths)
        if cost >= least:  # from here on the repeated prompts cost more than attention saves
            break
        best, least = parts, cost
    return sorted(sorted(part) for part in best)


def _fill_rows(lengths: Sequence[int]) -> list[list[int]]:
    """Put pieces into rows of one width, as many rows as cost least: padding, and attention over the width."""
    widest, total = max(lengths), sum(lengths)
    best, least = [list(range(len(lengths)))], float("inf")
    # With a third more rows than the sum asks for, none is wider than the widest piece (Graham's bound).
    count = min(len(lengths), -(-4 * total // (3 * widest)))
    while count >= 1:
        rows = _balanced(lengths, count)
        width = max(sum(lengths[index] for index in row) for row in rows)
        cost = len(rows) * width * (1 + width / DEAR_WIDTH)
        if cost < least:
            best, least = rows, cost
        count = min(count - 1, count * 7 // 8)  # of many rows, one more or less makes no difference
    return best


def _balanced(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Put pieces into rows of nearly equal sums: longest first, each into the shortest row; no row is empty."""
    rows: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, r) for r in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        filled, r = heap[0]
        rows[r].append(index)
        heapq.heapreplace(heap, (filled + lengths[index], r))
    return [row for row in rows if row]


def _longest_prefix(most: int, fits: Callable[[int], bool]) -> int:
    """How many of `most` items, at least one, are taken so that they fit; doubles, then halves."""
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _check(prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[Sequence[int]]]) -> None:
    if not prompt_ids or len(prompt_ids) != len(response_ids):
        raise ValueError(
            f"{len(prompt_ids)} prompts and {len(response_ids)} groups, expected as many of each, at least 1"
        )
    if len({len(group) for group in response_ids}) != 1 or not response_ids[0]:
        raise ValueError(f"groups of sizes {[len(group) for group in response_ids]}, expected one size of at least 1")
    for b, (prompt, group) in enumerate(zip(prompt_ids, response_ids, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {b} has no tokens; give it at least a beginning-of-sequence token")
        if not all(group):
            raise ValueError(
                f"response {[len(r) for r in group].index(0)} of prompt {b} has no tokens, expected at least 1"
            )
