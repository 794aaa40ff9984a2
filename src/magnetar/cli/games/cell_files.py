"""The folder of a comparison: one file a finished cell, so that running again computes only what is missing."""

import csv
import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from magnetar.errors import ConfigError
from magnetar.games.comparison.cells import CellResult
from magnetar.games.comparison.choices import Cell

__all__ = ["ComparisonFolder", "slug"]

MARKER = "comparison.json"
FORMAT = 1
OPTIONAL = ("policies", "magnets", "average_policy")
ARRAYS = ("updates", "evaluations", "gap", "average_gap")
# What reading a damaged archive can raise, from its directory, its members or their content.
DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class ComparisonFolder:
    """Where a comparison keeps its cells, tables and pictures.

    Args:
        path: The folder; created if it does not exist.

    Raises:
        ConfigError: It is a file, holds something else, was written by another format, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file, expected a folder")
        try:
            self._claim()
            for folder in (self.curves, self.plots):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {self.path} cannot be written ({error}); choose another folder") from error
        if not all(os.access(folder, os.W_OK) for folder in (self.path, self.curves, self.plots)):
            raise ConfigError(f"--out {self.path} is not writable; choose another folder")

    @property
    def curves(self) -> Path:
        """Folder of the cells."""
        return self.path / "curves"

    @property
    def plots(self) -> Path:
        """Folder of the pictures."""
        return self.path / "plots"

    def _claim(self) -> None:
        """Make the folder ours; refuse one that holds something else."""
        self.path.mkdir(parents=True, exist_ok=True)
        marker = self.path / MARKER
        if not marker.exists():
            found = sorted(entry.name for entry in self.path.iterdir())
            if found:
                raise ConfigError(
                    f"--out {self.path} holds something else than a comparison ({', '.join(found[:3])}"
                    f"{', …' if len(found) > 3 else ''}); choose a new or an empty folder"
                )
            with atomic_file(marker) as file:
                json.dump({"made_by": "magnetar games compare", "format": FORMAT}, file)
            return
        try:
            found = json.loads(marker.read_text(encoding="utf-8"))
            found_format = found["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{marker} is damaged; delete it and the folder, or choose another --out") from error
        if found_format != FORMAT:
            raise ConfigError(f"{marker} is of format {found_format}, expected {FORMAT}; choose another --out")

    def cell_path(self, cell: Cell) -> Path:
        """Where a cell is kept; another identity has another file, so that going back to old settings reuses them."""
        key = hashlib.sha256(_identity(cell).encode()).hexdigest()[:12]
        return self.curves / f"{_words(cell.game.label)}--{_words(cell.choice.label)}--{key}.npz"

    def load(self, cell: Cell) -> tuple[CellResult | None, str]:
        """Read a finished cell.

        Args:
            cell: Which.

        Returns:
            Its result, or None with the reason why its file cannot be used; the reason is empty if there is no file.
        """
        path = self.cell_path(cell)
        if not path.exists():
            return None, ""
        try:
            # Opened here: of a damaged archive np.load would leave the file open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                if str(archive["identity"]) != _identity(cell):
                    return None, f"{path.name} holds another cell"
                arrays = {name: archive[name] for name in ARRAYS}
                optional = {name: archive[name] for name in OPTIONAL if name in archive.files}
                result = CellResult(**arrays, **optional, seconds=float(archive["seconds"]))
        except DAMAGE as error:
            return None, f"{path.name} is damaged ({type(error).__name__}: {error})"
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1 or result.updates[-1] != cell.updates or not np.isfinite(result.gap).all():
            return None, f"{path.name} is incomplete"
        return result, ""

    def save(self, cell: Cell, result: CellResult) -> None:
        """Keep a finished cell.

        Args:
            cell: Which.
            result: Its result.

        Raises:
            ConfigError: The file cannot be written.
        """
        arrays: dict[str, Any] = {name: getattr(result, name) for name in ARRAYS}
        arrays |= {name: getattr(result, name) for name in OPTIONAL if getattr(result, name) is not None}
        path = self.cell_path(cell)
        try:
            with atomic_file(path, binary=True) as file:
                np.savez_compressed(file, identity=_identity(cell), seconds=result.seconds, **arrays)
        except OSError as error:
            raise _unwritable(path, error) from error

    def write_table(self, rows: Sequence[Mapping[str, object]]) -> Path:
        """Write ``results.csv``.

        Args:
            rows: Values by column, all with the same columns.

        Returns:
            The file's path.

        Raises:
            ConfigError: The file cannot be written.
        """
        path = self.path / "results.csv"
        try:
            with atomic_file(path) as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path


@contextmanager
def atomic_file(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when it has been written to the end."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-")
    try:
        text: dict[str, Any] = {} if binary else {"encoding": "utf-8", "newline": ""}
        with open(handle, "wb" if binary else "w", **text) as file:
            yield file
        Path(name).chmod(0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written ({error}); free some space and run the command again")


def slug(label: str) -> str:
    """A name for files, short, and unique to the label."""
    return f"{_words(label)}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _words(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", label).strip("_.")[:60] or "unnamed"


def _identity(cell: Cell) -> str:
    return json.dumps({"format": FORMAT} | cell.identity, sort_keys=True)
