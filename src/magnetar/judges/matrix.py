"""A table of win probabilities as a judge, for models whose responses can all be listed."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray, Groups, validate_win_prob
from magnetar.types import Prompt

__all__ = ["MatrixJudge", "load_matrix"]

SUFFIXES = (".json", ".npz", ".csv")


class MatrixJudge(Judge):
    """Looks up who beats whom by the responses' texts; the prompt plays no part.

    A response that is not in the table is an error that names it: a judge never guesses.
    """

    def __init__(self, responses: Sequence[str], win_prob: ArrayLike, *, name: str = "matrix") -> None:
        """Keep a validated table.

        Args:
            responses: A texts, all different.
            win_prob: Shape (A, A), in [0, 1]; entry (i, j) is P(response i beats response j), ``P + Pᵀ = 1``.
            name: What reports call the judge.

        Raises:
            JudgeError: If a text occurs twice, or the matrix is not one of win probabilities.
        """
        self.name = name
        self.responses = list(responses)
        self._index = {text: at for at, text in enumerate(self.responses)}
        if len(self._index) != len(self.responses):
            twice = next(text for at, text in enumerate(self.responses) if self._index[text] != at)
            raise JudgeError(f"judge {name!r} lists the response {twice!r} twice; list each response once")
        size = len(self.responses)
        self.win_prob = validate_win_prob(
            win_prob,
            (size, size),
            name,
            lambda at: f"first {self.responses[at[0]]!r}, second {self.responses[at[1]]!r}",
            antisymmetric=True,
        )

    def _identity(self) -> Mapping[str, Any]:
        return {"responses": self.responses, "win_prob": self.win_prob.tolist()}

    def _lookup(self, texts: Sequence[str]) -> NDArray[np.int64]:
        try:
            return np.array([self._index[text] for text in texts], dtype=np.int64)
        except KeyError as error:
            raise JudgeError(
                f"judge {self.name!r} does not know the response {error.args[0]!r}; its table holds "
                f"{len(self.responses)} responses, the first {self.responses[:3]}; add the response or change the model"
            ) from error

    def _lookup_groups(self, groups: Groups) -> NDArray[np.int64]:
        return self._lookup([text for group in groups for text in group]).reshape(len(groups), -1)

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return self.win_prob[self._lookup(first), self._lookup(second)]

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        index_BG = self._lookup_groups(responses)
        return self.win_prob[index_BG[:, :, None], index_BG[:, None, :]]

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        return self.win_prob[self._lookup_groups(responses)[:, :, None], self._lookup_groups(opponents)[:, None, :]]


def load_matrix(path: str | Path) -> MatrixJudge:
    """Read a table of win probabilities from a file.

    ``.json``: ``{"responses": [...], "win_prob": [[...]]}``. ``.npz``: arrays `responses` and `win_prob`. ``.csv``: a
    header row of an empty cell and the responses, then one row for each response, its text first.

    Args:
        path: The file.

    Returns:
        The judge, named ``matrix:FILE``.

    Raises:
        JudgeError: If the file is missing, of another kind, or does not hold such a table.
    """
    file = Path(path).expanduser()
    name = f"matrix:{path}"
    if not file.is_file():
        raise JudgeError(f"judge {name!r}: there is no file {str(file)!r}; give the path of a {_suffixes()} file")
    if file.suffix.lower() not in SUFFIXES:
        raise JudgeError(
            f"judge {name!r}: {file.suffix or 'no suffix'!r} is not a known kind of file; use {_suffixes()}"
        )
    readers = {".json": _read_json, ".npz": _read_npz, ".csv": _read_csv}
    try:
        responses, win_prob = readers[file.suffix.lower()](file)
    except JudgeError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise JudgeError(
            f"judge {name!r} cannot be read: {type(error).__name__}: {error}; expected `responses` (texts) and "
            "`win_prob` (a square table of numbers)"
        ) from error
    return MatrixJudge(responses, win_prob, name=name)


def _suffixes() -> str:
    return ", ".join(SUFFIXES[:-1]) + " or " + SUFFIXES[-1]


def _read_json(file: Path) -> tuple[list[str], ArrayLike]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"the file holds a {type(content).__name__}, not an object")
    responses = content["responses"]
    if not isinstance(responses, list) or not all(isinstance(text, str) for text in responses):
        raise TypeError("`responses` is not a list of texts")
    return responses, content["win_prob"]


def _read_npz(file: Path) -> tuple[list[str], ArrayLike]:
    with np.load(file, allow_pickle=False) as content:
        return [str(text) for text in content["responses"]], content["win_prob"]


def _read_csv(file: Path) -> tuple[list[str], ArrayLike]:
    with file.open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    responses = header[1:]
    if [row[0] for row in rows] != responses:
        raise ValueError("the first column does not repeat the responses of the header row in the same order")
    return responses, [[float(cell) for cell in row[1:]] for row in rows]
