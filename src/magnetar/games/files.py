"""Games and policies from files: NumPy, CSV and JSON."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError
from magnetar.games.game import PreferenceGame

__all__ = ["SUFFIXES", "load", "load_policy"]

SUFFIXES = (".npy", ".csv", ".json")


def load(path: str | Path) -> PreferenceGame:
    """Read a preference game from a file.

    ``.npy`` holds the matrix. ``.csv`` holds its rows, with a first line of action names if that line is not numeric.
    ``.json`` holds a list of rows, or an object with "P" and optionally "actions" and "name".

    Args:
        path: File to read; its suffix tells the form.

    Returns:
        The game, named after the file unless the file names it.

    Raises:
        GameError: No such file, another suffix, a file that does not parse, or a matrix that is not a preference game.
    """
    path = Path(path)
    content, header = _read(path)
    fields: dict[str, Any] = {"P": content, "actions": header, "name": path.stem}
    if isinstance(content, dict):
        unknown = sorted(set(content) - set(fields))
        if unknown or "P" not in content:
            raise GameError(f"{path}: an object with {sorted(content)}, expected P and optionally actions and name")
        fields |= content
    try:
        return PreferenceGame(fields["P"], fields["actions"], fields["name"])
    except GameError as error:
        raise GameError(f"{path}: {error}") from error


def load_policy(path: str | Path) -> NDArray[np.float64]:
    """Read one distribution over actions: the same file forms, holding a single row of probabilities.

    Args:
        path: File to read; its suffix tells the form.

    Returns:
        Shape (A,), as stored; `PreferenceGame.distribution` checks it.

    Raises:
        GameError: No such file, another suffix, or a file that does not hold a row of numbers.
    """
    content, _ = _read(Path(path))
    try:
        row = np.array(content, dtype=np.float64).squeeze()
    except (TypeError, ValueError) as error:
        raise GameError(f"{path}: expected one row of probabilities ({error})") from error
    if row.ndim > 1:
        raise GameError(f"{path}: an array of shape {row.shape}, expected one row of probabilities")
    return np.atleast_1d(row)


def _read(path: Path) -> tuple[Any, list[str] | None]:
    """Content of the file, and action names where a CSV file has them."""
    if path.suffix not in SUFFIXES:
        raise GameError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return json.loads(text), None
        rows = [row for row in csv.reader(text.splitlines()) if row]
        header = None if not rows or all(map(_is_number, rows[0])) else [cell.strip() for cell in rows.pop(0)]
        return [[float(cell) for cell in row] for row in rows], header
    except FileNotFoundError as error:
        raise GameError(f"{path}: no such file; expected a matrix in {', '.join(SUFFIXES)} form") from error
    except (OSError, ValueError, EOFError) as error:
        raise GameError(f"{path}: cannot be read as {path.suffix} ({error})") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
