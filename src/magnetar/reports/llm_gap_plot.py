"""Duality gaps of many methods on one language model: a panel for each thing that a last iterate can reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from numpy.typing import NDArray

from magnetar.errors import ConfigError
from magnetar.reports.plot_style import DOUBLE_COLUMN, INK, LIGHT, STYLE, LineLook, check_plot_path, looks, save

__all__ = ["LimitCurve", "draw_limits_plot"]

COLUMNS = 2
PANEL_HEIGHT = 2.3  # inches
SMALLEST_GAP = 1e-4  # of the axis: below it is optimiser noise on such a model
SAME_LIMIT = 0.03  # of a decade: limits nearer than this are one line


@dataclass(frozen=True, eq=False)
class LimitCurve:
    """One method's run.

    Attributes:
        label: Name in the legend.
        panel: What its last iterate reaches; curves of one panel are drawn together.
        gap: Duality gap of the last iterate after each update, shape (updates + 1,), at least 0.
        average_gap: The same of the average of the policies so far; drawn dashed, None to leave it out.
        limit: Exact gap of the policy at which the method stands still; None where it is zero or there is none.
        faint: Whether to draw it thin and behind the others.
    """

    label: str
    panel: str
    gap: NDArray[np.float64]
    average_gap: NDArray[np.float64] | None = None
    limit: float | None = None
    faint: bool = False


def draw_limits_plot(curves: Sequence[LimitCurve], path: str | Path, title: str) -> None:
    """Draw gaps against updates on logarithmic scales that all panels share, with a grey line at each exact limit.

    Args:
        curves: Runs, at least one; panels come in the order of their first curve.
        path: File to write; PNG, SVG or PDF by its suffix.
        title: Above the panels.

    Raises:
        ConfigError: No curve, or a path that cannot be written.
    """
    check_plot_path(path)
    if not curves:
        raise ConfigError("no curves to draw, expected at least one")
    names = list(dict.fromkeys(curve.panel for curve in curves))
    rows = -(-len(names) // COLUMNS)
    with rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE_COLUMN, 0.35 + PANEL_HEIGHT * rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, min(COLUMNS, len(names)), sharex=True, sharey=True, squeeze=False)
        last = max(len(curve.gap) for curve in curves) - 1
        for axes, name in zip(panels.flat, names, strict=False):
            _draw_panel(axes, name, [curve for curve in curves if curve.panel == name], last)
        for axes in panels.flat[len(names) :]:
            axes.set_axis_off()
        _scale(panels.flat[0], curves, last)
        for axes in panels[:, 0]:
            axes.set_ylabel("duality gap")
        for column in range(panels.shape[1]):
            lowest = [row for row in range(rows) if row * panels.shape[1] + column < len(names)][-1]
            panels[lowest, column].set_xlabel("updates")
            panels[lowest, column].tick_params(labelbottom=True)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        save(figure, path)


def _draw_panel(axes: Axes, name: str, curves: Sequence[LimitCurve], last: int) -> None:
    for height in _apart([curve.limit for curve in curves if curve.limit is not None]):
        axes.axhline(height, color=LIGHT, linewidth=2.4, alpha=0.55, zorder=1)
    for index, (curve, look) in enumerate(zip(curves, looks(len(curves)), strict=True)):
        _draw_curve(axes, curve, look, (index + 0.5) / len(curves), last)
    handles, labels = axes.get_legend_handles_labels()
    if any(curve.average_gap is not None for curve in curves):
        handles.append(axes.plot([], [], color=LIGHT, linestyle=(0, (3, 1.5)), linewidth=1.0)[0])
        labels.append("average of all iterates")
    if any(curve.limit is not None for curve in curves):
        handles.append(axes.plot([], [], color=LIGHT, linewidth=2.4, alpha=0.55)[0])
        labels.append("exact limit")
    # Below the panel's own curves there is room, whatever they do: gaps rarely fall by more than two decades.
    axes.legend(handles, labels, loc="lower left", ncols=2, handlelength=2.2, columnspacing=1.2, labelspacing=0.3)
    axes.set_title(name[:1].upper() + name[1:], color=INK)
    axes.grid(which="major", axis="y")
    axes.set_axisbelow(True)


def _draw_curve(axes: Axes, curve: LimitCurve, look: LineLook, phase: float, last: int) -> None:
    marked = sorted({round(last * (k + phase) / 5) for k in range(5)})
    axes.plot(
        np.arange(len(curve.gap)),
        np.maximum(curve.gap, SMALLEST_GAP),
        color=look.color,
        linestyle="-" if curve.faint else look.dash,
        marker="" if curve.faint else look.marker,
        markersize=3.4,
        markeredgewidth=0,
        markevery=[k for k in marked if k < len(curve.gap)],
        linewidth=0.7 if curve.faint else 1.1,
        alpha=0.55 if curve.faint else 1.0,
        label=curve.label,
        zorder=2 if curve.faint else 3,
    )
    if curve.average_gap is not None:
        average = np.maximum(curve.average_gap, SMALLEST_GAP)
        axes.plot(average, color=look.color, linestyle=(0, (3, 1.5)), linewidth=1.0, zorder=2)


def _apart(limits: Sequence[float]) -> list[float]:
    """One of every bunch of limits that a reader could not tell apart."""
    kept: list[float] = []
    for value in sorted(limits):
        if not kept or np.log10(value / kept[-1]) > SAME_LIMIT:
            kept.append(value)
    return kept


def _scale(axes: Axes, curves: Sequence[LimitCurve], last: int) -> None:
    drawn = [values for curve in curves for values in (curve.gap, curve.average_gap) if values is not None]
    lowest = max(min(float(values.min()) for values in drawn), SMALLEST_GAP)
    axes.set_yscale("log")
    # Room below the lowest curve for the legend.
    axes.set_ylim(lowest / 6, 1.0)
    axes.yaxis.set_major_locator(FixedLocator([10.0**-k for k in range(5)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(0, max(last, 1))
