"""The picture of ``magnetar games poker``: exploitability against updates, exact and sampled side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from magnetar.reports.plot_style import DOUBLE_COLUMN, LIGHT, STYLE, looks, save

__all__ = ["PokerCurve", "draw_poker_figure"]

ROUNDING = 1e-15  # exploitabilities below a few units of float64 rounding are noise about zero
FLOOR = 1e-16  # where zero is drawn
PANELS = {"exact": "exact values, tabular policy", "sampled": "sampled self-play, neural policy"}


@dataclass(frozen=True, eq=False)
class PokerCurve:
    """One method in one panel.

    Attributes:
        feedback: "exact" or "sampled": which panel.
        method: Key of the line, the same in both panels: same colour.
        label: Name in the legend.
        updates: Where each value was measured, shape (n,).
        last: Exploitability of the last iterate, chips per game, shape (seeds, n).
        average: That of the average policy, shape (n,); None if not measured.
        settings: What the method was run with, for tables and files.
    """

    feedback: str
    method: str
    label: str
    updates: NDArray[np.int64]
    last: NDArray[np.float64]
    average: NDArray[np.float64] | None
    settings: dict[str, object]

    @property
    def is_yardstick(self) -> bool:
        """Whether only its average is drawn, dashed."""
        return self.method == "cfr"


def draw_poker_figure(curves: Sequence[PokerCurve], path: str | Path, title: str) -> None:
    """Draw one panel for each kind of feedback; lines are medians over seeds, bands their whole range.

    Args:
        curves: At least one.
        path: PNG, SVG or PDF.
        title: Above the panels.

    Raises:
        ConfigError: A path that cannot be written.
    """
    panels = [feedback for feedback in ("exact", "sampled") if any(c.feedback == feedback for c in curves)]
    methods = list(dict.fromkeys(c.method for c in curves if not c.is_yardstick))
    methods.sort(key=lambda method: "+" in method)  # variants last: a method has the same colour in every figure
    look = dict(zip(methods, looks(len(methods)), strict=True))
    with rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE_COLUMN if len(panels) == 2 else 4.2, 2.9), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, feedback in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            shown = [curve for curve in curves if curve.feedback == feedback]
            for curve in shown:
                _draw(axes, curve, LIGHT if curve.is_yardstick else look[curve.method].color)
            _finish(axes, shown)
        figure.axes[0].set_ylabel("exploitability of the last iterate\n(chips per game)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        save(figure, path)


def _draw(axes: Axes, curve: PokerCurve, color: str) -> None:
    if curve.is_yardstick:
        assert curve.average is not None  # a yardstick is its average
        axes.plot(curve.updates, np.maximum(curve.average, FLOOR), color=color, linewidth=1.2, linestyle=(0, (4, 2)),
                  label=curve.label, zorder=2)  # fmt: skip
        return
    last = np.maximum(curve.last, FLOOR)
    axes.plot(curve.updates, np.median(last, axis=0), color=color, linewidth=1.4, label=curve.label, zorder=3)
    if len(last) > 1:
        axes.fill_between(curve.updates, last.min(axis=0), last.max(axis=0), color=color, alpha=0.15, linewidth=0)


def _finish(axes: Axes, curves: Sequence[PokerCurve]) -> None:
    seeds = max(len(curve.last) for curve in curves)
    spread = f", {seeds} seeds: median and range" if seeds > 1 else ""
    axes.set_yscale("log")
    if min(curve.last.min() for curve in curves) < ROUNDING:
        axes.set_ylim(bottom=FLOOR / 2)
        axes.axhspan(FLOOR / 2, ROUNDING, color="#f2f2f2", linewidth=0, zorder=0)
        axes.annotate("rounding error", (0.99, ROUNDING), xycoords=axes.get_yaxis_transform(), xytext=(0, -4),
                      textcoords="offset points", va="top", ha="right", color=LIGHT, fontsize=7)  # fmt: skip
    axes.set_xlim(0, max(1, *(int(curve.updates[-1]) for curve in curves)))
    axes.grid(axis="y", which="major")
    axes.set_axisbelow(True)
    axes.tick_params(which="minor", left=False)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("updates" + spread)
    rows = -(-len(curves) // 2)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, handlelength=1.6, columnspacing=1.0,
                borderaxespad=0.2, fontsize=7)  # fmt: skip
    axes.set_title(PANELS[curves[0].feedback], pad=6 + 11 * rows)
