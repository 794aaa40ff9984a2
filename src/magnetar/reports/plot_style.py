"""How every plot looks: sizes for a two-column paper, lines that differ in colour, dash and marker, files by suffix."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from magnetar.errors import ConfigError

__all__ = ["DOUBLE_COLUMN", "INK", "LIGHT", "SINGLE_COLUMN", "STYLE", "LineLook", "check_plot_path", "looks", "save"]

SUFFIXES = (".pdf", ".png", ".svg")
SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0  # inches

# The tones of the pages. Found by search: at least 19 apart (CIE76) for normal, red-, green- and blue-blind sight, at
# least 3:1 on white. The eight of Okabe and Ito, darkened for white paper, came as near as 4.
COLORS = ("#0b5fa5", "#c8500a", "#2a9d74", "#a6437f", "#3a2d1a", "#ab73ff", "#610061", "#3f009c")
# Grey prints lose the colours, so dashes and markers repeat the distinction, in another rhythm.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
INK, LIGHT = "#333333", "#8a8a8a"

STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8.5,
    "font.family": "sans-serif",
    "font.size": 8,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "magnetar",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.color": INK,
    "ytick.labelsize": 7.5,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True)
class LineLook:
    """How one line is told from the others.

    Attributes:
        color: As matplotlib takes it.
        dash: Likewise.
        marker: Likewise.
    """

    color: str
    dash: Any
    marker: str


def looks(count: int) -> list[LineLook]:
    """Looks of the first ``count`` lines of a plot; the first six are solid, and no two of the first 72 are alike.

    Args:
        count: Number of lines, at least 0.

    Returns:
        One look a line.
    """
    return [
        LineLook(COLORS[i % len(COLORS)], DASHES[(i // 6) % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i in range(count)
    ]  # fmt: skip


def check_plot_path(path: str | Path) -> Path:
    """Refuse a file that could not be drawn, before the run rather than after it.

    Args:
        path: File to be written.

    Returns:
        The same path.

    Raises:
        ConfigError: A suffix that is no picture format, a folder that does not exist or is not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot file {path}: suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"plot file {path}: no folder {path.parent}; create it first")
    if path.is_dir():
        raise ConfigError(f"plot file {path} is a folder, expected a file name")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"plot file {path}: the folder {path.parent} is not writable; choose another")
    return path


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure in the form its suffix names; the file appears whole or not at all.

    Args:
        figure: What to write.
        path: PNG, SVG or PDF.

    Raises:
        ConfigError: A path that cannot be written.
    """
    path = check_plot_path(path)
    form = path.suffix.lower().removeprefix(".")
    # Without a date the same curves give the same bytes.
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        os.close(handle)
        try:
            figure.savefig(name, format=form, dpi=300, metadata=metadata)
            Path(name).chmod(0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"plot file {path} cannot be written: {error}") from error
