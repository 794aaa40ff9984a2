"""Duality gap against evaluations of the payoffs, on a logarithmic scale."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from magnetar.errors import ConfigError
from magnetar.games import Trace
from magnetar.games.comparison.cells import target_text
from magnetar.reports.plot_style import DOUBLE_COLUMN, LIGHT, STYLE, LineLook, check_plot_path, looks, save

__all__ = ["GapCurve", "check_plot_path", "draw_gap_plot", "draw_profile_plot"]

ROUNDING = 1e-15  # gaps below a few units of float64 rounding are noise about zero
FLOOR = 1e-17  # where a gap of exactly zero is drawn
MARKERS_ON_A_CURVE = 6
LEGEND_ABOVE_UP_TO = 4
NO_MOVES = np.empty(0, dtype=np.int64)


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
    magnet_moves: NDArray[np.int64] = field(default_factory=lambda: NO_MOVES)

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


def draw_gap_plot(
    curves: Sequence[GapCurve],
    path: str | Path,
    title: str,
    x_label: str = "evaluations of the payoffs",
    y_label: str = "duality gap",
    log_x: bool = False,
) -> None:
    """Draw gaps on a logarithmic scale: last iterate solid, average dashed, magnet moves as light ticks below.

    A gap of exactly zero has no logarithm and is drawn at 1e-17; values within rounding error of zero lie in a band
    marked as such. With many curves each has its own colour, dash and marker, and the legend stands beside the plot.

    Args:
        curves: Runs to compare, at least one.
        path: File to write; PNG, SVG or PDF by its suffix.
        title: Above the plot.
        x_label: What the runs spent.
        y_label: What was measured.
        log_x: Whether the horizontal axis is logarithmic too; then the start, where nothing was spent yet, is left out.

    Raises:
        ConfigError: No curve, or a path that cannot be written.
    """
    check_plot_path(path)
    if not curves:
        raise ConfigError("no curves to draw, expected at least one")
    beside = len(curves) > LEGEND_ABOVE_UP_TO
    with rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE_COLUMN if beside else 4.6, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for index, (curve, look) in enumerate(zip(curves, looks(len(curves)), strict=True)):
            _draw_curve(axes, curve, look, index / len(curves), alone=len(curves) == 1, log_x=log_x)
        _scale(axes, curves, log_x)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        _legend(axes, curves, title, beside)
        save(figure, path)


def draw_profile_plot(
    needed: Sequence[tuple[str, Sequence[Sequence[float | None]]]],
    targets: Sequence[float],
    games: int,
    budget: int,
    path: str | Path,
) -> None:
    """Draw which share of the games each method has solved after so many evaluations: one panel for each target.

    Args:
        needed: For each method its label, and for each target the evaluations to it on every game; None for never.
        targets: Gaps that count as solved, as many as each method has lists.
        games: Number of games, at least 1.
        budget: Evaluations that the longest run spent, where the axis ends.
        path: File to write; PNG, SVG or PDF by its suffix.

    Raises:
        ConfigError: Nothing to draw, or a path that cannot be written.
    """
    check_plot_path(path)
    if not needed or not targets or games < 1:
        raise ConfigError("nothing to draw, expected at least one method, one target and one game")
    with rc_context(STYLE):
        columns = max(1, min(len(needed), 100 // (max(len(label) for label, _ in needed) + 9)))
        rows = -(-len(needed) // columns)
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.25 + 0.16 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(targets), sharey=True, squeeze=False)[0]
        finite = [n for _, lists in needed for one in lists for n in one if n is not None]
        low = 10.0 ** np.floor(np.log10(max(min(finite, default=1), 1)))
        high = max(budget, 10 * low)
        for panel, (axes, target) in enumerate(zip(panels, targets, strict=True)):
            for (label, lists), look in zip(needed, looks(len(needed)), strict=True):
                found = np.sort([max(n, low) for n in lists[panel] if n is not None])
                x = np.concatenate([[low], np.repeat(found, 2), [high]]) if len(found) else np.array([low, high])
                y = np.concatenate([[0.0], np.repeat(np.arange(len(found) + 1), 2)[1:-1], [len(found)]]) / games
                y = y if len(found) else np.zeros(2)
                axes.plot(
                    x, y, color=look.color, linestyle=look.dash, linewidth=1.2, label=label, clip_on=False,
                    marker=look.marker, markersize=3.0, markevery=(len(x) - 1, 1),
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xlim(low, high)
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_ylim(0, 1)
            axes.grid(which="major")
            axes.tick_params(which="minor", bottom=False)
            axes.set_title(f"gap ≤ {target_text(target)}", pad=4)
        panels[0].set_ylabel(f"share of {games} game{'s' if games != 1 else ''} solved")
        panels[len(panels) // 2].set_xlabel("evaluations of the payoffs")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=2.8)
        save(figure, path)


def _draw_curve(axes: Axes, curve: GapCurve, look: LineLook, phase: float, alone: bool, log_x: bool) -> None:
    bins = 300 if alone else 160  # many curves make a large file
    x, y = _thinned(curve.evaluations, np.maximum(curve.gap, FLOOR), log_x, bins)
    axes.plot(
        x,
        y,
        color=look.color,
        linestyle=look.dash,
        linewidth=1.3,
        label=f"{curve.label}, last iterate" if alone and curve.average_gap is not None else curve.label,
        marker="" if alone else look.marker,
        markersize=3.2,
        markeredgewidth=0,
        markevery=_marked(x, phase, log_x),
        zorder=3,
    )
    if curve.average_gap is not None:
        x, y = _thinned(curve.evaluations, np.maximum(curve.average_gap, FLOOR), log_x, bins)
        color = "#c8500a" if alone else look.color
        label = "average of all iterates" if alone else "_average"
        axes.plot(x, y, color=color, linewidth=1.0, linestyle=(0, (4, 2)), label=label, zorder=2)
    if len(curve.magnet_moves) > 0:
        # No more ticks than can be told apart: they say how often, not each when.
        moves = curve.magnet_moves[:: max(1, len(curve.magnet_moves) // 400)]
        color, alpha = (LIGHT, 0.8) if alone else (look.color, 0.5)
        axes.vlines(moves, 0, 0.025, transform=axes.get_xaxis_transform(), color=color, linewidth=0.6, alpha=alpha)


def _thinned(
    x: NDArray[np.int64], y: NDArray[np.float64], log_x: bool, bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The lowest and the highest point of each narrow strip: what a person sees of a longer curve."""
    if log_x:
        x, y = x[x > 0], y[x > 0]
    if len(x) <= 2 * bins:
        return x, y
    place = np.log(x) if log_x else x.astype(np.float64)
    strip = np.floor((place - place[0]) / (place[-1] - place[0]) * bins)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(strip)) + 1, [len(x)]])
    kept = {0, len(x) - 1}
    for start, stop in pairwise(starts):
        kept |= {start + int(y[start:stop].argmin()), start + int(y[start:stop].argmax())}
    index = np.array(sorted(kept))
    return x[index], y[index]


def _marked(x: NDArray[np.int64], phase: float, log_x: bool) -> list[int]:
    """Points that carry a marker, evenly spread over the axis, at places of its own for each curve."""
    if len(x) == 0:
        return []
    place = np.log(np.maximum(x, 1)) if log_x else x.astype(np.float64)
    steps = (np.arange(MARKERS_ON_A_CURVE) + 0.3 + phase) / (MARKERS_ON_A_CURVE + 0.3)
    wanted = place[0] + np.minimum(steps, 1.0) * (place[-1] - place[0])
    return sorted({int(i) for i in np.minimum(np.searchsorted(place, wanted), len(x) - 1)})


def _scale(axes: Axes, curves: Sequence[GapCurve], log_x: bool) -> None:
    lowest = min(
        float(values.min()) for curve in curves for values in (curve.gap, curve.average_gap) if values is not None
    )
    highest = max(float(curve.gap.max()) for curve in curves)
    axes.set_yscale("log")
    # Whole decades: a narrower axis would be labelled with factors in between.
    bottom, top = (float(power(np.log10(max(v, ROUNDING)))) for power, v in ((np.floor, lowest), (np.ceil, highest)))
    axes.set_ylim(10.0**bottom, 10.0 ** max(top, bottom + 1.0))
    axes.yaxis.set_minor_formatter(NullFormatter())
    if lowest < ROUNDING:
        axes.set_ylim(bottom=FLOOR / 3)
        axes.axhspan(FLOOR / 3, ROUNDING, color="#f2f2f2", linewidth=0, zorder=0)
        axes.annotate(
            "rounding error", (0.01, ROUNDING), xycoords=axes.get_yaxis_transform(), xytext=(0, -3),
            textcoords="offset points", va="top", color=LIGHT, fontsize=7,
        )  # fmt: skip
    last = max(int(curve.evaluations[-1]) for curve in curves)
    if log_x:
        axes.set_xscale("log")
        axes.set_xlim(1, max(last, 10) * 1.06)
    else:
        axes.set_xlim(0, max(last, 1))
    axes.grid(axis="both" if log_x else "y", which="major")
    axes.set_axisbelow(True)
    axes.tick_params(which="minor", left=False, bottom=False)


def _legend(axes: Axes, curves: Sequence[GapCurve], title: str, beside: bool) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if len(curves) > 1 and any(curve.average_gap is not None for curve in curves):
        handles.append(Line2D([], [], color=LIGHT, linestyle=(0, (4, 2)), label="average of all iterates"))
    if len(curves) == 1 and len(curves[0].magnet_moves) > 0:
        handles.append(Line2D([], [], color=LIGHT, linestyle="none", marker="|", label="magnet moves"))
    if beside:
        for handle in handles:
            # Wider names would leave no room for the plot.
            handle.set_label("\n".join(textwrap.wrap(str(handle.get_label()), 30)))
        axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=2.8, borderaxespad=0)
        axes.set_title(title)
        return
    # Above the axes: inside, curves that fall as they please would run through it.
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), 3, 62 // (longest + 7)))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, handlelength=2.4,
        columnspacing=1.4, borderaxespad=0.2,
    )  # fmt: skip
    axes.set_title(title, pad=7 + 12 * -(-len(handles) // columns))
