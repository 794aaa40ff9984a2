"""Games and policies from files: NumPy, CSV and JSON matrices, and judged pairs as JSON Lines."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError
from magnetar.games.builders.empirical import PAIR_SUFFIXES, empirical_game
from magnetar.games.game import PreferenceGame

__all__ = ["PAIR_SUFFIXES", "SUFFIXES", "load", "load_policy"]

SUFFIXES = (".npy", ".csv", ".json")
"""Forms of a file that holds a matrix or a policy."""

LARGEST_NUMBER = 2**63
"""JSON's integers have no bounds; NumPy's numbers have."""


def load(path: str | Path) -> PreferenceGame:
    """Read a preference game from a file: a matrix (.npy, .csv, .json) or judged pairs (.jsonl, .jsonl.gz).

    ``.npy`` holds the matrix. ``.csv`` holds its rows, with a first line of action names if that line is not numeric,
    and a first column of the same names if that line's first cell is empty. ``.json`` holds a list of rows, or an
    object with "P" and optionally "actions" and "name". ``.jsonl`` and ``.jsonl.gz`` hold judged pairs of responses;
    see `empirical_game`, whose default settings are used.

    Args:
        path: File to read; its suffix tells the form.

    Returns:
        The game, named after the file unless the file names it.

    Raises:
        GameError: No such file, another suffix, a file that does not parse, or a matrix that is not a preference game.
    """
    path = Path(path).expanduser()
    if path.name.lower().endswith(PAIR_SUFFIXES):
        return empirical_game(path)
    content, header = _read(path, (*SUFFIXES, *PAIR_SUFFIXES))
    fields: dict[str, Any] = {"P": content, "actions": header, "name": path.stem}
    if isinstance(content, dict):
        fields |= _json_fields(path, content, set(fields))
    if isinstance(fields["P"], list):
        _check_rows(path, fields["P"])
    repeated = [name for name, times in Counter(map(str, fields["actions"] or [])).items() if times > 1]
    if repeated:
        raise GameError(f"{path}: two actions are named {repeated[0]!r}, expected a name of its own for each")
    try:
        return PreferenceGame(fields["P"], fields["actions"], fields["name"])
    except GameError as error:
        raise GameError(f"{path}: {error}") from error


def load_policy(path: str | Path) -> NDArray[np.float64]:
    """Read one distribution over actions: the same forms of file, holding a single row of probabilities.

    Args:
        path: File to read (.npy, .csv, .json); its suffix tells the form.

    Returns:
        Shape (A,), as stored; `PreferenceGame.distribution` checks it.

    Raises:
        GameError: No such file, another suffix, or a file that does not hold a row of numbers.
    """
    content, _ = _read(Path(path).expanduser(), SUFFIXES)
    try:
        row = np.array(content, dtype=np.float64).squeeze()
    except (TypeError, ValueError, OverflowError) as error:
        raise GameError(f"{path}: expected one row of probabilities ({error})") from error
    if row.ndim > 1:
        raise GameError(f"{path}: an array of shape {row.shape}, expected one row of probabilities")
    return np.atleast_1d(row)


def _read(path: Path, suffixes: Sequence[str]) -> tuple[Any, list[str] | None]:
    """Content of the file, and action names where a CSV file has them."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise GameError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(suffixes)}")
    try:
        if path.stat().st_size == 0:
            raise GameError(f"{path}: the file is empty, expected a matrix of win probabilities in {suffix} form")
        if suffix == ".npy":
            return _read_npy(path), None
        # The signature is what spreadsheets put before UTF-8; without "-sig" it would belong to the first cell.
        text = path.read_text(encoding="utf-8-sig")
        return (json.loads(text), None) if suffix == ".json" else _read_csv(path, text)
    except GameError:
        raise
    except FileNotFoundError as error:
        raise GameError(f"{path}: no such file{_nearest(path)}; expected a matrix in {suffix} form") from error
    except RecursionError as error:
        raise GameError(f"{path}: cannot be read as {suffix} (nested too deeply)") from error
    except (OSError, ValueError, EOFError) as error:
        raise GameError(f"{path}: cannot be read as {suffix} ({error})") from error


def _read_npy(path: Path) -> NDArray[Any]:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise GameError(f"{path}: an archive of arrays (.npz), expected one array; save it with numpy.save")
    if array.dtype.kind not in "biuf":
        raise GameError(f"{path}: an array of type {array.dtype}, expected numbers (float64)")
    return array


def _read_csv(path: Path, text: str) -> tuple[list[list[float]], list[str] | None]:
    """Rows of numbers, and the header without the corner; rows and columns are counted as a spreadsheet does."""
    rows = [(number, row) for number, row in _csv_rows(text) if any(row)]
    if not rows:
        raise GameError(f"{path}: the file has no row, expected a matrix of win probabilities")
    header: list[str] | None = None
    top = rows[0][1]
    numeric = [_is_number(cell) for cell in top]
    named_alike = top[0] == "" and [row[0] for _, row in rows[1:]] == top[1:]
    # A line that is partly numeric is a row with a slip, unless a square matrix follows it.
    slip = any(numeric) and len(rows) - 1 != len(numeric)
    if named_alike or not (all(numeric) or slip):
        header = rows.pop(0)[1]
    named_rows = header is not None and header[0] == ""
    if header is not None and named_rows:
        header = header[1:]
        for (number, row), name in zip(rows, header, strict=False):
            if row[0] != name:
                raise GameError(f"{path}: row {number} is named {row[0]!r}, expected {name!r} as in the header")
    first = int(named_rows)
    width = len(header) if header is not None else len(rows[0][1])
    matrix = []
    for number, row in rows:
        if len(row) - first != width:
            hint = _separator_hint(row[0]) if len(row) == 1 else ""
            raise GameError(f"{path}: row {number} has {len(row) - first} cells, expected {width} as in row 1{hint}")
        for column, cell in enumerate(row[first:], first + 1):
            if not _is_number(cell):
                wrong = f"row {number}, column {column} is {cell!r:.40}"
                raise GameError(f"{path}: {wrong}, expected a number{_separator_hint(cell)}")
        matrix.append([float(cell) for cell in row[first:]])
    return matrix, header


def _separator_hint(cell: str) -> str:
    mark = next((mark for mark in (";", "\t", " ") if mark in cell), None)
    return f"; separate cells by commas, not {mark!r}" if mark else ""


def _csv_rows(text: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _json_fields(path: Path, content: dict[str, Any], known: set[str]) -> dict[str, Any]:
    if set(content) - known or "P" not in content:
        raise GameError(f"{path}: an object with {sorted(content)}, expected P and optionally actions and name")
    names = content.get("actions")
    if names is not None and not isinstance(names, list):
        raise GameError(f"{path}: actions is {names!r}, expected a list of names")
    if not isinstance(content.get("name", ""), str):
        raise GameError(f"{path}: name is {content['name']!r}, expected text")
    return content


def _check_rows(path: Path, rows: list[Any]) -> None:
    """Name the row and column of what is no number, which NumPy would not."""
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list):
            raise GameError(f"{path}: row {number} is {row!r}, expected a list of numbers")
        if len(row) != len(rows[0]):
            raise GameError(f"{path}: row {number} has {len(row)} numbers, expected {len(rows[0])} as in row 1")
        for column, cell in enumerate(row, 1):
            # Comparing before converting keeps integers too large for a float from NumPy.
            if isinstance(cell, bool) or not isinstance(cell, int | float) or abs(cell) > LARGEST_NUMBER:
                raise GameError(f"{path}: row {number}, column {column} is {cell!r:.40}, expected a number in [0, 1]")


def _nearest(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return f" (and no folder {path.parent})"
    nearest = get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f" (did you mean {path.with_name(nearest[0])}?)" if nearest else ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
