"""Duality gap against evaluations of the payoffs, on a logarithmic scale."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from magnetar.errors import ConfigError
from magnetar.games import Trace

__all__ = ["GapCurve", "check_plot_path", "draw_gap_plot"]

SUFFIXES = (".pdf", ".png", ".svg")
COLORS = ("#1f4e79", "#c8553d", "#3a7d44", "#7b5ea7", "#b8860b", "#4a4a4a")
INK, LIGHT = "#333333", "#9a9a9a"
ROUNDING = 1e-15  # gaps below a few units of float64 rounding are noise about zero
FLOOR = 1e-17  # where a gap of exactly zero is drawn

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "magnetar",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, eq=False)
class GapCurve:
    """One run to draw.

    Attributes:
        label: Name in the legend.
        evaluations: Where each value was measured, shape (n,), increasing.
        gap: Duality gap of the last iterate, shape (n,), at least 0.
        average_gap: The same of the average iterate, shape (n,); None to leave it out.
        magnet_moves: Evaluations at which the magnet moved, any length.
    """

    label: str
    evaluations: NDArray[np.int64]
    gap: NDArray[np.float64]
    average_gap: NDArray[np.float64] | None = None
    magnet_moves: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @classmethod
    def from_trace(cls, trace: Trace, label: str | None = None) -> "GapCurve":
        """Curve of a run on an exact game.

        Args:
            trace: The run.
            label: Name in the legend; the method's by default.

        Returns:
            The curve, with its average and its magnet moves.
        """
        return cls(
            label=trace.method if label is None else label,
            evaluations=trace.evaluations,
            gap=trace.duality_gap,
            average_gap=trace.average_gap,
            magnet_moves=trace.evaluations[trace.magnet_moves],
        )


def check_plot_path(path: str | Path) -> Path:
    """Refuse a file that could not be drawn, before the run rather than after it.

    Args:
        path: File to be written.

    Returns:
        The same path.

    Raises:
        ConfigError: A suffix that is no picture format, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot file {path}: suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"plot file {path}: no folder {path.parent}; create it first")
    if path.is_dir():
        raise ConfigError(f"plot file {path} is a folder, expected a file name")
    return path


def draw_gap_plot(
    curves: Sequence[GapCurve],
    path: str | Path,
    title: str,
    x_label: str = "evaluations of the payoffs",
) -> None:
    """Draw gaps on a logarithmic scale: last iterate solid, average dashed, magnet moves as light ticks below.

    A gap of exactly zero has no logarithm and is drawn at 1e-17; values within rounding error of zero lie in a band
    marked as such.

    Args:
        curves: Runs to compare, at least one.
        path: File to write; PNG, SVG or PDF by its suffix.
        title: Above the plot.
        x_label: What the runs spent.

    Raises:
        ConfigError: No curve, or a path that cannot be written.
    """
    path = check_plot_path(path)
    if not curves:
        raise ConfigError("no curves to draw, expected at least one")
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.9), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for curve, color in zip(curves, _colors(len(curves)), strict=True):
            _draw_curve(axes, curve, color, alone=len(curves) == 1)
        _finish(axes, curves, title, x_label)
        try:
            figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise ConfigError(f"plot file {path} cannot be written: {error}") from error


def _colors(count: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(count)]


def _draw_curve(axes: Axes, curve: GapCurve, color: str, alone: bool) -> None:
    axes.plot(
        curve.evaluations,
        np.maximum(curve.gap, FLOOR),
        color=color,
        linewidth=1.5,
        label=f"{curve.label}, last iterate" if alone and curve.average_gap is not None else curve.label,
        zorder=3,
    )
    if curve.average_gap is not None:
        axes.plot(
            curve.evaluations,
            np.maximum(curve.average_gap, FLOOR),
            color=COLORS[1] if alone else color,
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            label="average of all iterates" if alone else "_average",
            zorder=2,
        )
    if len(curve.magnet_moves) > 0:
        axes.vlines(
            curve.magnet_moves,
            0.0,
            0.025,
            transform=axes.get_xaxis_transform(),
            color=LIGHT if alone else color,
            linewidth=0.6,
            alpha=0.8 if alone else 0.5,
        )


def _finish(axes: Axes, curves: Sequence[GapCurve], title: str, x_label: str) -> None:
    lowest = min(
        float(values.min()) for curve in curves for values in (curve.gap, curve.average_gap) if values is not None
    )
    axes.set_yscale("log")
    if lowest < ROUNDING:
        axes.set_ylim(bottom=FLOOR / 3)
        axes.axhspan(FLOOR / 3, ROUNDING, color="#f2f2f2", linewidth=0, zorder=0)
        axes.annotate(
            "rounding error", (0.01, ROUNDING), xycoords=axes.get_yaxis_transform(), xytext=(0, -4),
            textcoords="offset points", va="top", color=LIGHT, fontsize=7.5,
        )  # fmt: skip
    last = max(int(curve.evaluations[-1]) for curve in curves)
    axes.set_xlim(0, max(last, 1))
    axes.grid(axis="y", which="major")
    axes.set_axisbelow(True)
    axes.tick_params(which="minor", left=False)
    axes.set_xlabel(x_label)
    axes.set_ylabel("duality gap")
    # Above the axes: inside, curves that fall as they please would run through it.
    handles, _ = axes.get_legend_handles_labels()
    if len(curves) > 1 and any(curve.average_gap is not None for curve in curves):
        handles.append(Line2D([], [], color=LIGHT, linestyle=(0, (4, 2)), label="average of all iterates"))
    if len(curves) == 1 and len(curves[0].magnet_moves) > 0:
        handles.append(Line2D([], [], color=LIGHT, linestyle="none", marker="|", label="magnet moves"))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, fontsize=8, handlelength=2.2,
        columnspacing=1.6, borderaxespad=0.2,
    )  # fmt: skip
    rows = -(-len(handles) // 3)
    axes.set_title(title, pad=8 + 13 * rows)
