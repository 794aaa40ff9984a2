"""Plots of one column's width: radar, bars, distributions, matrices, curves; one function each, from plain values."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import label_lines
from magnetar.reports.drawing.distribution import CostHistogram
from magnetar.reports.drawing.labels import Box, place_labels
from magnetar.reports.drawing.scatter import distance_ticks, shown_range, whiskers
from magnetar.reports.plot_style import COLORS, DOUBLE_COLUMN, INK, LIGHT, SINGLE_COLUMN, STYLE, looks, save

__all__ = [
    "draw_bars",
    "draw_costs",
    "draw_distances",
    "draw_groups",
    "draw_matrix",
    "draw_outcomes",
    "draw_points",
    "draw_radar",
]

# Letters stay letters: they can be searched, copied and set in the paper's own typeface.
FIGURE_STYLE = {**STYLE, "svg.fonttype": "none"}
UP, DOWN, PALE = COLORS[0], COLORS[1], "#f4f4f4"
AROUND_HALF = LinearSegmentedColormap.from_list("around_half", [DOWN, PALE, UP])
FROM_ZERO = LinearSegmentedColormap.from_list("from_zero", [PALE, DOWN])
ROW = 0.26  # inches of a bar
HILL = 0.42
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}%")  # 52.5% where steps are so fine, and 50%


def draw_bars(path: Path, entries: Mapping[str, Estimate], label: str, *, base: float = 0.5) -> None:
    """Draw bars with intervals, one for each name: the paper's ablation plot (Figure 5).

    Args:
        path: SVG, PDF or PNG.
        entries: Shares by name.
        label: Of the axis.
        base: Where bars begin.
    """
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((SINGLE_COLUMN, 0.55 + ROW * len(entries)))
        places = np.arange(len(entries))
        values = np.array([one.value for one in entries.values()])
        colors = [UP if value >= base else DOWN for value in values]
        axes.barh(places, values - base, left=base, height=0.62, color=colors, alpha=0.85)
        _whiskers(axes, list(entries.values()), places)
        axes.axvline(base, color=LIGHT, linewidth=0.7, linestyle=(0, (4, 2)))
        axes.set_yticks(places, list(entries))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        _percent_axis(axes, label)
        save(figure, path)


def draw_groups(
    path: Path, groups: Mapping[str, Mapping[str, Estimate | None]], label: str, *, base: float = 0.5
) -> None:
    """Draw bars with intervals in groups, such as win rates by category: the paper's Figure 4 as bars.

    Args:
        path: SVG, PDF or PNG.
        groups: Values by series, by group.
        label: Of the axis.
        base: Where bars begin.
    """
    series = list(dict.fromkeys(name for cells in groups.values() for name in cells))
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((DOUBLE_COLUMN, 2.6))
        width = 0.8 / len(series)
        for number, (name, look) in enumerate(zip(series, looks(len(series)), strict=True)):
            for at, cells in enumerate(groups.values()):
                one = cells.get(name)
                if one is None:
                    continue
                place = at + width * (number - (len(series) - 1) / 2)
                axes.bar(
                    place, one.value - base, bottom=base, width=width * 0.92, color=look.color, alpha=0.85,
                    label=name if name not in axes.get_legend_handles_labels()[1] else None,
                )  # fmt: skip
                if one.low is not None and one.high is not None:
                    axes.plot([place, place], [one.low, one.high], color=INK, linewidth=0.7)
        axes.axhline(base, color=LIGHT, linewidth=0.7, linestyle=(0, (4, 2)))
        axes.set_xticks(range(len(groups)), ["\n".join(label_lines(_words(name), 14, 3)) for name in groups])
        axes.tick_params(axis="x", length=0, labelsize=6.5)
        if base == 0.5:
            axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylabel(label)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=min(len(series), 5))
        save(figure, path)


def draw_radar(path: Path, categories: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    """Draw shares in several directions, one polygon for each name: the paper's Figure 4.

    Args:
        path: SVG, PDF or PNG.
        categories: At least three directions.
        series: Shares in those directions, by name; None leaves a gap.
    """
    with rc_context(FIGURE_STYLE):
        figure = Figure(figsize=(SINGLE_COLUMN, SINGLE_COLUMN * 1.05), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(projection="polar")
        angles = [2 * math.pi * at / len(categories) for at in range(len(categories))]
        for name, look in zip(series, looks(len(series)), strict=True):
            values = [math.nan if value is None else value for value in series[name]]
            axes.plot(
                [*angles, angles[0]], [*values, values[0]], color=look.color, linestyle=look.dash, marker=look.marker,
                markersize=3, linewidth=1.1, label=name,
            )  # fmt: skip
        axes.plot(np.linspace(0, 2 * math.pi, 181), [0.5] * 181, color=LIGHT, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
        axes.set_theta_direction(-1)  # type: ignore[attr-defined]
        axes.set_xticks(angles, ["\n".join(label_lines(_words(name), 16, 3)) for name in categories])
        axes.tick_params(axis="x", labelsize=6.5, pad=4)
        for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
            aside = math.sin(angle)
            label.set_horizontalalignment("center" if abs(aside) < 0.3 else "left" if aside > 0 else "right")
        axes.tick_params(axis="y", labelsize=6)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_rlabel_position(180 / len(categories))  # type: ignore[attr-defined]
        axes.yaxis.set_major_formatter(PERCENT)
        known = [value for values in series.values() for value in values if value is not None]
        axes.set_ylim(max(0.0, min(0.5, *known) - 0.05), min(1.0, max(0.5, *known) + 0.03))
        figure.legend(loc="outside lower center", ncols=2)
        save(figure, path)


def draw_costs(path: Path, histograms: Sequence[CostHistogram], label: str = "cost (below zero is safe)") -> None:
    """Draw distributions of costs, one below the other, with a line at zero and the means: the paper's Table 1, seen.

    Args:
        path: SVG, PDF or PNG.
        histograms: At least one.
        label: Of the axis.
    """
    tallest = max(max(one.densities(), default=0.0) for one in histograms) or 1.0
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((SINGLE_COLUMN, 0.6 + HILL * len(histograms)))
        for at, one in enumerate(histograms):
            floor = len(histograms) - 1 - at
            for low, high, density in zip(one.edges, one.edges[1:], one.densities(), strict=False):
                pieces = [(low, high)] if high <= 0 or low >= 0 else [(low, 0.0), (0.0, high)]
                for start, end in pieces:
                    color = UP if end <= 0 else DOWN
                    axes.bar(
                        start, 0.85 * density / tallest, end - start, floor, color=color, align="edge", linewidth=0
                    )
            axes.axhline(floor, color=LIGHT, linewidth=0.4)
            axes.plot(one.mean.value, floor, marker="o", markersize=3, color=INK)
            if one.mean.low is not None and one.mean.high is not None:
                axes.plot([one.mean.low, one.mean.high], [floor, floor], color=INK, linewidth=1.2)
            axes.annotate(
                f"{one.mean.value:.2f}, {one.safe.value:.0%} safe", (1.0, floor + 0.45), fontsize=6.5, ha="right",
                xycoords=("axes fraction", "data"), color=INK,
            )  # fmt: skip
        axes.axvline(0.0, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set_yticks(range(len(histograms)), [one.name for one in reversed(histograms)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.15, len(histograms))
        axes.set_xlabel(label)
        save(figure, path)


def draw_distances(path: Path, points: Mapping[str, tuple[Estimate, Estimate]], label: str) -> None:
    """Draw win rates over the square root of distances, each point with its name.

    Args:
        path: SVG, PDF or PNG.
        points: Distance in nats and win rate, by name; at least one.
        label: Of the vertical axis.
    """
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((DOUBLE_COLUMN, 3.2))
        for look, (far, one) in zip(looks(len(points)), points.values(), strict=True):
            whiskers = [
                [[max(0.0, one_end.value - low)], [max(0.0, high - one_end.value)]]
                if (low := one_end.low) is not None and (high := one_end.high) is not None
                else None
                for one_end in (far, one)
            ]
            axes.errorbar(
                [far.value], [one.value], xerr=whiskers[0], yerr=whiskers[1], color=look.color, marker=look.marker,
                markersize=4.5, linewidth=0.8,
            )  # fmt: skip
        axes.axhline(0.5, color=LIGHT, linewidth=0.7, linestyle=(0, (4, 2)))
        farthest = 1.05 * shown_range([far for far, _ in points.values()])[1] or 1.0
        low, high = shown_range([one for _, one in points.values()])
        low, high = min(0.5, low), max(0.5, high)
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        ticks = distance_ticks(farthest)
        axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
        axes.set_xlim(0.0, farthest)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("KL divergence from the reference, nats a response")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylabel(label)
        figure.draw_without_rendering()  # so that the axes are where they will be
        _name_points(axes, points)
        save(figure, path)


def _name_points(axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]]) -> None:
    """Write names beside points with whiskers, in points of print (1/72 inch), where they hide least."""
    size, letter = 6.5, 3.6
    scale = 72.0 / axes.figure.dpi

    def place(x: float, y: float) -> tuple[float, float]:
        """In points of print, downwards."""
        right, up = axes.transData.transform((x, y))
        return scale * right, -scale * up

    frame = axes.get_window_extent()
    area = Box(scale * frame.x0, -scale * frame.y1, scale * frame.width, scale * frame.height)
    places = [place(far.value, one.value) for far, one in points.values()]
    boxes = place_labels(
        places, [letter * len(name) for name in points], size + 1.5, area, lines=whiskers(points.values(), place)
    )
    for (name, (far, one)), (x, y), box in zip(points.items(), places, boxes, strict=True):
        middle = (box.x + box.width / 2 - x, y - box.y - box.height / 2)
        axes.annotate(
            name, (far.value, one.value), middle, textcoords="offset points", ha="center", va="center", fontsize=size,
            color=INK,
        )  # fmt: skip


def draw_matrix(
    path: Path,
    rows: Sequence[str],
    columns: Sequence[str],
    matrix: Sequence[Sequence[Estimate | None]],
    *,
    around_half: bool = True,
) -> None:
    """Draw a payoff matrix, or unsafe shares, with the numbers in the cells.

    Args:
        path: SVG, PDF or PNG.
        rows: Labels.
        columns: Labels.
        matrix: Shares; None leaves a cell empty.
        around_half: Two colours around one half, or one from zero up.
    """
    values = np.array([[math.nan if one is None else one.value for one in line] for line in matrix])
    with rc_context(FIGURE_STYLE):
        width = min(DOUBLE_COLUMN, 1.2 + 0.52 * len(columns))
        figure, axes = _figure((width, 0.75 + 0.34 * len(rows)))
        if around_half:
            axes.imshow(values, cmap=AROUND_HALF, norm=TwoSlopeNorm(0.5, 0.0, 1.0), aspect="auto", alpha=0.75)
        else:
            axes.imshow(values, cmap=FROM_ZERO, vmin=0.0, vmax=1.0, aspect="auto", alpha=0.75)
        for i, line in enumerate(matrix):
            for j, one in enumerate(line):
                if one is not None:
                    sure = around_half and one.excludes(0.5)
                    weight = "bold" if sure else "normal"
                    axes.text(j, i, f"{100 * one.value:.0f}", ha="center", va="center", fontsize=7, fontweight=weight)
        axes.set_xticks(range(len(columns)), ["\n".join(label_lines(name, 10, 3)) for name in columns])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.tick_params(length=0, labelsize=6.5)
        axes.xaxis.tick_top()
        for spine in axes.spines.values():
            spine.set_visible(False)
        save(figure, path)


def draw_outcomes(path: Path, entries: Mapping[str, tuple[float, float, float]]) -> None:
    """Draw shares of wins, ties and losses on top of each other: the paper's Table 2, seen.

    Args:
        path: SVG, PDF or PNG.
        entries: Shares of wins, ties and losses, by name.
    """
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((SINGLE_COLUMN, 0.75 + ROW * len(entries)))
        shares = np.array(list(entries.values()))
        before = np.zeros(len(entries))
        for column, (kind, color, ink) in enumerate(
            (("won", UP, "#fff"), ("tied", "#dddddd", INK), ("lost", DOWN, "#fff"))
        ):
            axes.barh(range(len(entries)), shares[:, column], left=before, height=0.66, color=color, label=kind)
            for row, share in enumerate(shares[:, column]):
                if share > 0.08:
                    middle = before[row] + share / 2
                    axes.text(middle, row, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=6.5)
            before += shares[:, column]
        axes.set_yticks(range(len(entries)), list(entries))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1)
        _percent_axis(axes, "share of comparisons")
        figure.legend(loc="outside upper right", ncols=3)
        save(figure, path)


def draw_points(path: Path, places: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], label: str) -> None:
    """Draw shares with intervals over places in their order, such as an attacker's win rate over n.

    Args:
        path: SVG, PDF or PNG.
        places: Labels of the horizontal axis.
        series: One share for each place, by name; None where there is none.
        label: Of the vertical axis.
    """
    with rc_context(FIGURE_STYLE):
        figure, axes = _figure((SINGLE_COLUMN, 2.3))
        for number, (name, look) in enumerate(zip(series, looks(len(series)), strict=True)):
            known = [(at, one) for at, one in enumerate(series[name]) if one is not None]
            x = [at + 0.06 * (number - (len(series) - 1) / 2) for at, _ in known]
            axes.plot(
                x, [one.value for _, one in known], color=look.color, linestyle=look.dash, marker=look.marker,
                markersize=3.5, linewidth=1.1, label=name,
            )  # fmt: skip
            for place, (_, one) in zip(x, known, strict=True):
                if one.low is not None and one.high is not None:
                    axes.plot([place, place], [one.low, one.high], color=look.color, linewidth=0.8)
        axes.axhline(0.5, color=LIGHT, linewidth=0.7, linestyle=(0, (4, 2)))
        axes.set_xticks(range(len(places)), list(places))
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylabel(label)
        figure.legend(loc="outside upper left", ncols=3)
        save(figure, path)


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _whiskers(axes: Axes, estimates: Sequence[Estimate], places: Sequence[float] | np.ndarray) -> None:
    for place, one in zip(places, estimates, strict=True):
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [place, place], color=INK, linewidth=0.9)
            for end in (one.low, one.high):
                axes.plot([end, end], [place - 0.16, place + 0.16], color=INK, linewidth=0.9)


def _percent_axis(axes: Axes, label: str) -> None:
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel(label)


def _words(category: str) -> str:
    """A category's name as people write it."""
    return category.replace("_", " ")
