"""A judge's answers as Parquet files."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from magnetar.errors import DataError
from magnetar.evaluation.judging.pairs import JudgedPairs
from magnetar.evaluation.judging.questions import GroupQuestions, PairQuestions
from magnetar.evaluation.judging.statistics import group_payoffs, sides
from magnetar.types import Prompt

__all__ = ["METADATA_KEY", "group_table", "pair_table", "write_table"]

METADATA_KEY = b"magnetar"
"""Under this key a file says which judge answered, with versions, as JSON."""


def pair_table(questions: PairQuestions, judged: JudgedPairs) -> pa.Table:
    """One row for each pair, with all that the judge said.

    Args:
        questions: The pairs.
        judged: The answers.

    Returns:
        Columns ``row`` (in the source, from 0), ``prompt`` (text; chat turns as JSON), ``first``, ``second``,
        ``win_prob`` (P(first beats second), null where the judge abstained), ``masked``; for a judge that is asked in
        both orders ``win_prob_as_given`` and ``win_prob_swapped`` (both P(first beats second)) and ``flipped``; for a
        judge of scores ``score_first`` and ``score_second``; ``label`` and ``category`` where the source has them.
    """
    pairs = judged.pairs
    columns: dict[str, pa.Array] = {
        "row": pa.array(questions.row_N, pa.int64()),
        "prompt": pa.array(_prompt_texts(pairs.prompts), pa.string()),
        "first": pa.array(list(pairs.first), pa.string()),
        "second": pa.array(list(pairs.second), pa.string()),
        "win_prob": _numbers(judged.win_prob_N),
        "masked": pa.array(~judged.answered_N),
    }
    if judged.backward_N is not None:
        columns["win_prob_as_given"] = _numbers(judged.forward_N)
        columns["win_prob_swapped"] = _numbers(judged.backward_N)
        flipped = np.abs(sides(judged.forward_N) - sides(judged.backward_N)) == 1.0
        columns["flipped"] = pa.array(flipped)
    if judged.scores_N2 is not None:
        columns["score_first"], columns["score_second"] = (_numbers(side) for side in judged.scores_N2.T)
    if pairs.label_N is not None:
        columns["label"] = _numbers(pairs.label_N)
    if pairs.categories is not None:
        columns["category"] = pa.array(list(pairs.categories), pa.string())
    return pa.table(columns)


def group_table(questions: GroupQuestions, win_prob: Sequence[NDArray[np.float64]]) -> pa.Table:
    """One row for each group.

    Args:
        questions: The groups.
        win_prob: P(i beats j) of each group, shape (G, G); NaN where the judge abstained.

    Returns:
        Columns ``row``, ``prompt``, ``responses``, ``win_prob`` (a list of rows, null where masked), ``payoff`` (mean
        win probability of each response against the others; null where none was answered) and ``best`` (index of the
        response with the highest payoff, the first of several; null where there is none).
    """
    payoffs = [group_payoffs(matrix) for matrix in win_prob]
    best = [None if np.isnan(payoff).all() else int(np.nanargmax(payoff)) for payoff in payoffs]
    return pa.table(
        {
            "row": pa.array(questions.row_N, pa.int64()),
            "prompt": pa.array(_prompt_texts(questions.prompts), pa.string()),
            "responses": pa.array(list(questions.responses), pa.list_(pa.string())),
            "win_prob": pa.array(
                [[_or_none(row) for row in one] for one in win_prob], pa.list_(pa.list_(pa.float64()))
            ),
            "payoff": pa.array([_or_none(payoff) for payoff in payoffs], pa.list_(pa.float64())),
            "best": pa.array(best, pa.int64()),
        }
    )


def write_table(path: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write a table as Parquet, whole or not at all.

    Args:
        path: Where to.
        table: The table.
        facts: Which judge, settings, versions; kept in the file's metadata.

    Raises:
        DataError: It cannot be written.
    """
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(dict(facts), ensure_ascii=False, default=str)})
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        parquet.write_table(table, partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"cannot write {str(path)!r} ({error}); choose another place") from error


def _prompt_texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False) for prompt in prompts]


def _numbers(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null


def _or_none(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
