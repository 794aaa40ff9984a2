"""What a method does on a game of three actions: its policies, and its magnets, as paths in a triangle."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import ConfigError, GameError
from magnetar.games import PreferenceGame, Trace
from magnetar.reports.plot_style import DOUBLE_COLUMN, INK, LIGHT, SINGLE_COLUMN, STYLE, check_plot_path, save

__all__ = ["Trajectory", "check_three_actions", "draw_simplex_plot"]

FloatArray = NDArray[np.float64]

# Action 0 bottom left, 1 bottom right, 2 on top: the empty corners above the slopes are left for notes.
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3.0) / 2.0]])
LEFT, RIGHT, LOW, HIGH = -0.12, 1.12, -0.1, CORNERS[2, 1] + 0.075
PATH, MAGNET, STAR = "#0b5fa5", "#c8500a", "#111111"
MOST_COLUMNS = 4
NUMBERED_APART = 0.075  # in units of the triangle's side: closer magnets would cover each other's numbers
MOST_NUMBERED = 9
MOVED = 1e-9
HALO = [withStroke(linewidth=1.6, foreground="#fbfbfb")]  # words stay readable across paths


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One run to draw.

    Attributes:
        label: Name above the triangle.
        policies: Policies in order, the starting one first, shape (n, 3).
        magnets: Positions of the magnet in order, the first included, shape (m, 3); None for a method without one.
        average_policy: Average of all policies, shape (3,); None to leave it out.
        final_gap: Duality gap of the last policy.
    """

    label: str
    policies: FloatArray
    magnets: FloatArray | None
    average_policy: FloatArray | None
    final_gap: float

    def __post_init__(self) -> None:
        for name in ("policies", "magnets"):
            values = getattr(self, name)
            if values is not None and (values.ndim != 2 or values.shape[1] != 3 or len(values) == 0):
                raise ConfigError(f"{name} of {self.label!r} has shape {values.shape}, expected (n, 3) with n ≥ 1")

    @classmethod
    def from_trace(cls, trace: Trace, has_magnet: bool, label: str | None = None) -> "Trajectory":
        """Path of a run that recorded its policies.

        Args:
            trace: The run.
            has_magnet: Whether a magnet pulled on the policy; every trace has one, not every method looks at it.
            label: Name above the triangle; the method's by default.

        Returns:
            The path.

        Raises:
            ConfigError: The run kept no policies, or the game did not have three actions.
        """
        if trace.policies is None:
            raise ConfigError("the run kept no policies to draw; call magnetar.games.run with record=True")
        return cls(
            label=trace.method if label is None else label,
            policies=trace.policies,
            magnets=trace.magnets if has_magnet else None,
            average_policy=trace.average_policy,
            final_gap=float(trace.duality_gap[-1]),
        )

    @property
    def magnet_moves(self) -> bool:
        """Whether the magnet ever moved."""
        return self.magnets is not None and bool(np.abs(self.magnets - self.magnets[0]).max() > MOVED)


def check_three_actions(actions: int, name: str) -> None:
    """Refuse a game that has no triangle, before the run rather than after it.

    Args:
        actions: Number of actions.
        name: The game's.

    Raises:
        GameError: Not three actions.
    """
    if actions != 3:
        raise GameError(
            f"game {name!r} has {actions} actions, expected 3 for a picture of the simplex; choose another game, for "
            "instance biased_rps, or plot the gap instead"
        )


def draw_simplex_plot(
    trajectories: Sequence[Trajectory], game: PreferenceGame, path: str | Path, equilibrium: ArrayLike | None = None
) -> None:
    """Draw each run in a triangle of its own: corners are pure policies, the star is the equilibrium.

    Grey arrows in the background show where self-play without a magnet pushes, the replicator flow
    ``π_y (q_y(π) − 1/2)``. Numbered points joined by a dashed line are the positions of the magnet.

    Args:
        trajectories: Runs on the game, at least one.
        game: Three actions.
        path: File to write; PNG, SVG or PDF by its suffix.
        equilibrium: Where the star goes, shape (3,); by linear programme when not given. A game may have other
            equilibria besides.

    Raises:
        ConfigError: No runs, or a path that cannot be written.
        GameError: A game that does not have three actions.
    """
    check_plot_path(path)
    check_three_actions(game.num_actions, game.name)
    if not trajectories:
        raise ConfigError("no trajectories to draw, expected at least one")
    star = _place(np.asarray(game.equilibrium() if equilibrium is None else equilibrium, dtype=np.float64))
    count = len(trajectories)
    columns = min(count, 3 if count <= 3 else MOST_COLUMNS)
    rows = -(-count // columns)
    with_notes = count <= 3
    width = SINGLE_COLUMN if count == 1 else DOUBLE_COLUMN
    panel = width / columns
    panel_height = panel * (HIGH - LOW) / (RIGHT - LEFT)
    names = [
        textwrap.wrap(f"({chr(ord('a') + i)}) {one.label}" if 1 < count <= 26 else one.label, int(12 * panel))
        for i, one in enumerate(trajectories)
    ]
    title_height = 0.2 + 0.13 * max(map(len, names))
    legend_height = 0.45 if count == 1 else 0.25
    height = rows * (panel_height + title_height) + legend_height
    with rc_context(STYLE | {"font.size": 7.5}):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        for index, one in enumerate(trajectories):
            row, column = divmod(index, columns)
            bottom = legend_height + (rows - 1 - row) * (panel_height + title_height)
            axes = figure.add_axes((column / columns, bottom / height, 1 / columns, panel_height / height))
            _triangle(axes, game)
            _draw(axes, one, star, with_notes)
            _title(axes, one, names[index])
        figure.legend(
            handles=_legend(trajectories), loc="lower center", ncols=3 if count == 1 else 6, borderaxespad=0.2,
            handletextpad=0.5, columnspacing=1.4, fontsize=7,
        )  # fmt: skip
        save(figure, path)


def _place(policies: FloatArray) -> FloatArray:
    """Points in the plane, shape (..., 2), of policies, shape (..., 3)."""
    return policies @ CORNERS


def _triangle(axes: Axes, game: PreferenceGame) -> None:
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_xlim(LEFT, RIGHT)
    axes.set_ylim(LOW, HIGH)
    axes.add_patch(Polygon(CORNERS, closed=True, facecolor="#fbfbfb", edgecolor=INK, linewidth=0.8, zorder=1))
    steps = 13
    grid = np.array([(i, j, steps - i - j) for i in range(1, steps) for j in range(1, steps - i)]) / steps
    flow = grid * (grid @ game.P.T - 0.5)
    arrows = flow @ CORNERS
    # The square root keeps the slow flow near the equilibrium visible.
    speed = np.linalg.norm(arrows, axis=1, keepdims=True)
    arrows = np.divide(arrows, np.sqrt(speed), out=np.zeros_like(arrows), where=speed > 0)
    longest = np.linalg.norm(arrows, axis=1).max()
    if longest > 0:
        arrows *= 0.06 / longest
        start = _place(grid) - arrows / 2
        axes.quiver(
            *start.T, *arrows.T, angles="xy", scale_units="xy", scale=1, color="#d3d3d3", width=0.0042,
            headwidth=4.2, headlength=4.2, headaxislength=3.8, zorder=2,
        )  # fmt: skip
    for (x, y), name, offset, side, foot in zip(
        CORNERS, game.actions, (-3, -3, 2), ("left", "right", "center"), ("top", "top", "bottom"), strict=True
    ):
        label = f"action {name}" if name.isdigit() else _short(name)
        shift = {"left": -8, "right": 8, "center": 0}[side]
        axes.annotate(
            label, (x, y), xytext=(shift, offset), textcoords="offset points", ha=side, va=foot, fontsize=7
        )  # fmt: skip


def _short(name: str, limit: int = 18) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def _draw(axes: Axes, one: Trajectory, star: FloatArray, with_notes: bool) -> None:
    points = _place(one.policies)
    axes.plot(*points.T, color=PATH, linewidth=_width(points), solid_joinstyle="round", zorder=4)
    for where in (0.12, 0.55, 1.3):
        _arrowhead(axes, points, where)
    numbered = _draw_magnets(axes, one) if one.magnets is not None else []
    if not one.magnet_moves and one.average_policy is not None and one.magnets is None:
        axes.plot(*_place(one.average_policy), marker="D", markersize=6.4, markerfacecolor="none",
                  markeredgecolor=INK, markeredgewidth=0.9, zorder=9)  # fmt: skip
    axes.plot(*star, marker="*", markersize=9, color=STAR, markeredgecolor="white", markeredgewidth=0.6, zorder=8)
    if not numbered:
        axes.plot(*points[0], marker="o", markersize=4.6, color=PATH, markeredgecolor="white", markeredgewidth=0.6,
                  zorder=8)  # fmt: skip
    axes.plot(*points[-1], marker="s", markersize=3.8, color=PATH, markeredgecolor="white", markeredgewidth=0.6,
              zorder=9)  # fmt: skip
    if with_notes:
        _start_label(axes, points)
        _notes(axes, one, points, numbered)


def _width(points: FloatArray) -> float:
    """A path that goes round many times stays readable when it is thin."""
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    return 1.1 if length < 6 else 0.6 if length < 30 else 0.3


def _draw_magnets(axes: Axes, one: Trajectory) -> list[FloatArray]:
    """Magnets as numbered points joined by a dashed line; returns where the numbered ones are."""
    assert one.magnets is not None
    places = _place(one.magnets)
    axes.plot(*places.T, color=MAGNET, linewidth=0.9 * _width(places), linestyle=(0, (3, 1.6)), zorder=5)
    numbered: list[FloatArray] = []
    for number, place in enumerate(places, start=1):
        last = _place(one.policies[-1])  # its square must stay visible
        apart = all(np.linalg.norm(place - other) >= NUMBERED_APART for other in numbered)
        apart = apart and (number == 1 or bool(np.linalg.norm(place - last) >= NUMBERED_APART * 0.7))
        if apart and len(numbered) < MOST_NUMBERED:
            numbered.append(place)
            axes.plot(*place, marker="o", markersize=7.4, color="white", markeredgecolor=MAGNET, markeredgewidth=1.1,
                      zorder=6)  # fmt: skip
            axes.annotate(str(number), place, ha="center", va="center_baseline", fontsize=5.6, color="#7a2f04",
                          fontweight="bold", zorder=7)  # fmt: skip
        else:
            axes.plot(*place, marker="o", markersize=min(1.8, 1.7 * _width(places)), color=MAGNET, zorder=6)
    return numbered


def _arrowhead(axes: Axes, points: FloatArray, where: float) -> None:
    """Show which way the path goes, ``where`` triangle sides from its start."""
    passed = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    index = int(np.searchsorted(passed, where))
    if not 0 < index < len(points):
        return
    step = points[index] - points[index - 1]
    size = np.linalg.norm(step)
    if size > 0:
        head = points[index - 1] + (where - passed[index - 1]) / size * step
        axes.annotate(
            "", head + 1e-3 * step / size, head,
            arrowprops={"arrowstyle": "-|>,head_width=0.16,head_length=0.32", "color": PATH, "linewidth": 0.8,
                        "shrinkA": 0, "shrinkB": 0}, zorder=5,
        )  # fmt: skip


def _start_label(axes: Axes, points: FloatArray) -> None:
    """The word "start" behind the starting point, where the path does not go."""
    away = points[0] - points[min(len(points) - 1, 3)]
    size = np.linalg.norm(away)
    dx, dy = away / size * 8.0 if size > 0 else (0.0, -8.0)
    axes.annotate(
        "start", points[0], xytext=(dx, dy), textcoords="offset points", ha="left" if dx > 0 else "right",
        va="center", fontsize=6.6, fontstyle="italic", zorder=10, path_effects=HALO,
    )  # fmt: skip


def _notes(axes: Axes, one: Trajectory, points: FloatArray, numbered: Sequence[FloatArray]) -> None:
    """Words in the empty corners beside the top, each with a line to what it is about."""
    last = f"last policy:\ngap {_number(one.final_gap)}"
    left: tuple[str, FloatArray] | None = None
    if one.magnet_moves and len(numbered) > 1:
        corner = np.array([LEFT, HIGH])  # a line to the nearest crosses least of the path
        nearest = min(numbered[1:], key=lambda place: float(np.linalg.norm(place - corner)))
        left = ("magnet moves\nhere, to the\npolicy", nearest)
    elif one.magnet_moves and one.magnets is not None:
        left = ("magnet, moved\noften: numbers\nwould overlap", _place(one.magnets[-1]))
    elif one.magnets is not None:
        left = ("magnet, fixed\nat the start", _place(one.magnets[0]))
    elif one.average_policy is not None:
        left = ("average of\nall policies", _place(one.average_policy))
    for note, x, side in ((left, LEFT + 0.02, "left"), ((last, points[-1]), RIGHT - 0.02, "right")):
        if note is None:
            continue
        words, target = note
        axes.annotate(
            words, (target[0], target[1]), xytext=(x, CORNERS[2, 1] + 0.02), ha=side, va="top", fontsize=6.6,
            linespacing=1.15,
            arrowprops={"arrowstyle": "-", "color": LIGHT, "linewidth": 0.6, "shrinkB": 4.5, "shrinkA": 1,
                        "relpos": (0.5, 0.0)}, zorder=10,
        )  # fmt: skip


def _title(axes: Axes, one: Trajectory, name: Sequence[str]) -> None:
    if one.magnets is None:
        what = "no magnet"
    else:
        what = "magnet moves to the policy" if one.magnet_moves else "magnet never moves"
    for words, up, style in ((what, 3, {"fontsize": 7, "color": "#555555"}),
                             ("\n".join(name), 12.5, {"fontsize": 8, "fontweight": "bold"})):  # fmt: skip
        axes.annotate(words, (0.5, 1.0), xycoords="axes fraction", xytext=(0, up), textcoords="offset points",
                      ha="center", va="bottom", annotation_clip=False, **style)  # fmt: skip


def _number(gap: float) -> str:
    return f"{gap:.2g}" if gap >= 1e-3 else f"{gap:.0e}".replace("e-0", "e-")


def _legend(trajectories: Sequence[Trajectory]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=PATH, linewidth=1.1, label="policy"),
        Line2D([], [], color=PATH, marker="o", linestyle="none", markersize=4.6, label="start"),
        Line2D([], [], color=PATH, marker="s", linestyle="none", markersize=3.8, label="last policy"),
        Line2D([], [], color=STAR, marker="*", linestyle="none", markersize=8, label="equilibrium"),
    ]
    if any(one.magnets is not None for one in trajectories):
        handles.append(
            Line2D([], [], color=MAGNET, linestyle=(0, (3, 1.6)), marker="o", markersize=6, markerfacecolor="white",
                   linewidth=1.0, label="magnet 1, 2, …")
        )  # fmt: skip
    if any(one.magnets is None and one.average_policy is not None for one in trajectories):
        handles.append(
            Line2D([], [], marker="D", markersize=5, markerfacecolor="none", markeredgecolor=INK, linestyle="none",
                   label="average policy")
        )  # fmt: skip
    return handles
