"""Tables and figures of docs/fastest.md, from the results that benchmarks/evaluations.py keeps.

What stands between the markers ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` of the page is written here.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magnetar.games.comparison.cells import target_text
from magnetar.reports.gap_plot import draw_profile_plot

__all__ = [
    "HELD_OUT",
    "MODES",
    "OUR_BEST",
    "RESULTS",
    "STANDARD",
    "TARGETS",
    "Table",
    "fill",
    "unmeasured",
    "write_page",
]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fastest.md"
FIGURES = ROOT / "docs" / "figures"
RESULTS = ROOT / "benchmarks" / "results" / "evaluations"
STANDARD, HELD_OUT = RESULTS / "standard.csv", RESULTS / "held_out.csv"

TARGETS = (1e-2, 1e-4, 1e-6)
MODES = ("default", "single", "tuned")
OUR_BEST = "mpo_recall"
OUR_PREFIXES = ("mpo_recall", "mpo_adaptive", "mpo_optimistic")
GOAL, GOAL_TARGETS, WORST_ALLOWED = 5.0, (0, 1), 1.5
SIZES = ((3, 5), (10, 12), (20, 25), (50, 51), (100, 101), (200, 300), (500, 1000))
SMALL_BAR, LARGE_BAR = 5, 30  # evaluations
LISTED = 12

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Game:
    """One game of the suite, as the results name it."""

    name: str
    family: str
    actions: int
    pure: bool
    skewed: bool


class Table:
    """Counts by method, mode, kind ("first" or "stay") and target; never is inf."""

    def __init__(self, path: Path) -> None:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self._rows = {(row["method"], row["mode"], row["game"]): row for row in rows}
        firsts = {row["game"]: row for row in rows}
        self.games = [
            Game(n, r["family"], int(r["actions"]), r["pure"] == "1", r["start"] == "skewed") for n, r in firsts.items()
        ]
        names = dict.fromkeys(row["method"] for row in rows)
        self.ours = [name for name in names if name.startswith(OUR_PREFIXES)]
        self.tuned = [name for name in names if (name, "tuned", self.games[0].name) in self._rows]
        self.once = [name for name in names if name not in self.ours and name not in self.tuned]

    def counts(self, method: str, mode: str, kind: str, target: int) -> FloatArray:
        """Evaluations on every game; inf where the target was not reached."""
        column = f"{kind}_{target_text(TARGETS[target])}"
        values = (self._rows[method, mode, game.name][column] for game in self.games)
        return np.array([float(value) if value else np.inf for value in values])

    def bounds(self, method: str, mode: str, kind: str, target: int) -> FloatArray:
        """The same, but where the target was not reached the evaluations spent: a lower bound."""
        limits = np.array([float(self._rows[method, mode, game.name]["limit"]) for game in self.games])
        return np.minimum(self.counts(method, mode, kind, target), limits)

    def setting(self, method: str, target: int) -> str:
        """The best single setting of a method for a target."""
        column = f"setting_{target_text(TARGETS[target])}"
        return self._rows[method, "single", self.games[0].name][column] or "the default"

    def best_method(self, kind: str, target: int) -> str:
        """The published method that, tuned per game, has the lowest median."""
        return min(
            self.tuned,
            key=lambda m: (median(self.counts(m, "tuned", kind, target)), -self.solved(m, "tuned", kind, target)),
        )

    def solved(self, method: str, mode: str, kind: str, target: int) -> int:
        """Number of games on which the target was reached."""
        return int(np.isfinite(self.counts(method, mode, kind, target)).sum())

    def best_of_all(self, kind: str, target: int, strict: bool) -> FloatArray:
        """The fewest evaluations that any published method needs, tuned per game and target.

        Args:
            kind: "first" or "stay".
            target: Place in `TARGETS`.
            strict: Let a method that did not arrive count as its own limit, also where another arrived later.
        """
        found = [self.counts(m, "tuned", kind, target) for m in self.tuned]
        found += [self.counts(m, "default", kind, target) for m in self.once]
        arrived = np.min(found, axis=0)
        bounds = np.min([self.bounds(m, "tuned", kind, target) for m in self.tuned], axis=0)
        return np.minimum(arrived, bounds) if strict else np.where(np.isfinite(arrived), arrived, bounds)


def median(values: FloatArray) -> float:
    """Median that is inf where too many are, without a warning."""
    ordered = np.sort(values)
    middle = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(middle[1]) if np.isinf(middle[1]) else float(sum(middle) / 2)


def speed_up(theirs: FloatArray, ours: FloatArray) -> FloatArray:
    """Evaluations of theirs for one of ours; zero where ours did not arrive, the most that speaks against us."""
    return np.where(np.isfinite(ours), theirs / np.where(np.isfinite(ours), ours, 1.0), 0.0)


def worst(theirs: FloatArray, ours: FloatArray) -> tuple[float, int] | None:
    """Largest ratio of ours to theirs, and its game, over the games where theirs arrived."""
    arrived = np.flatnonzero(np.isfinite(theirs))
    if not len(arrived):
        return None
    ratio = ours[arrived] / theirs[arrived]
    return float(ratio.max()), int(arrived[ratio.argmax()])


def number(value: float) -> str:
    """A figure with about two digits; "never" for inf."""
    if np.isinf(value):
        return "never"
    return f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:,.0f}"


def times(theirs: FloatArray, ours: FloatArray) -> str:
    """Median speed-up in words."""
    return f"{number(median(speed_up(theirs, ours)))} ×"


def grid_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, numbers to the right."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, align, *rows))


def verdict(table: Table) -> str:
    """Where the goal is met and where it is not, from the figures."""
    lines = []
    for t in GOAL_TARGETS:
        target = target_text(TARGETS[t])
        for kind, words in (("stay", "the gap stays"), ("first", "first hit")):
            ours = table.counts(OUR_BEST, "default", kind, t)
            best = table.best_method(kind, t)
            one = speed_up(table.bounds(best, "tuned", kind, t), ours)
            every = speed_up(table.best_of_all(kind, t, strict=True), ours)
            lines.append(
                f"- Gap {target}, {words}: {number(median(one))} × against the best published method (`{best}`, "
                f"tuned per game): {_met(median(one) >= GOAL)}. {number(median(every))} × against whichever of them "
                f"is best on each game: {_met(median(every) >= GOAL)}."
            )
    slower = _slower(table)
    most = max((ratio for ratio, *_ in slower), default=1.0)
    lines.append(
        f"- Never more than {WORST_ALLOWED} times theirs, on any game, at any of the three targets, against every "
        f"published method tuned per game and by either count: {_met(most <= WORST_ALLOWED)}"
        + (f" (the largest ratio is {number_ratio(most)}; see below)." if slower else ".")
    )
    bar = table.best_of_all("stay", 0, strict=True)
    pure = sum(game.pure for game in table.games)
    lines.append(
        f"- {int((bar <= SMALL_BAR).sum())} of the {len(table.games)} games are solved to "
        f"{target_text(TARGETS[0])} by some tuned method within {SMALL_BAR} evaluations, where five times fewer would "
        f"mean one evaluation: impossible. {pure} games have a pure equilibrium, which a large step finds at once."
    )
    return "\n".join(lines)


def _met(met: bool) -> str:
    return "**met**" if met else "**not met**"


def number_ratio(ratio: float) -> str:
    """A ratio with two decimals; "unbounded" for inf."""
    return "unbounded" if np.isinf(ratio) else f"{ratio:.2f}".rstrip("0").rstrip(".")


def headline(table: Table) -> str:
    """Median speed-ups of our best method at its one setting, and its worst games."""
    head = ["our median speed-up against", *(f"{target_text(t)}" for t in TARGETS)]
    head += [f"worst ours/theirs, {target_text(t)}" for t in TARGETS]
    rows = []
    comparisons: list[tuple[str, str, Callable[[str, int], FloatArray], Callable[[str, int], FloatArray]]] = []
    for kind, words in (("stay", "stays"), ("first", "first hit")):
        comparisons += [
            (
                kind,
                f"the best published method, tuned per game; {words}",
                lambda k, t: table.bounds(table.best_method(k, t), "tuned", k, t),
                lambda k, t: table.counts(table.best_method(k, t), "tuned", k, t),
            ),
            (
                kind,
                f"the best of all, tuned per game and target; {words}",
                lambda k, t: table.best_of_all(k, t, strict=False),
                lambda k, t: _arrived(table, k, t),
            ),
            (
                kind,
                f"the same, every limit a bound; {words}",
                lambda k, t: table.best_of_all(k, t, strict=True),
                lambda k, t: _arrived(table, k, t),
            ),
        ]
    for kind, words, bound, arrived in comparisons:
        ours = [table.counts(OUR_BEST, "default", kind, t) for t in range(len(TARGETS))]
        worsts = [worst(arrived(kind, t), ours[t]) for t in range(len(TARGETS))]
        rows.append(
            [words, *(times(bound(kind, t), ours[t]) for t in range(len(TARGETS)))]
            + [number_ratio(w[0]) if w else "" for w in worsts]
        )
    hard = _part(table, lambda t: table.best_of_all("stay", t, strict=True) >= LARGE_BAR)
    rows.append(
        [f"the best of all, only where that needs at least {LARGE_BAR}; stays", *hard, *[""] * len(TARGETS)],
    )
    rows.append(["the best of all, before the evaluation that shows it; stays", *_unseen(table), *[""] * len(TARGETS)])
    chosen = {kind: [table.best_method(kind, t) for t in range(len(TARGETS))] for kind in ("stay", "first")}
    words = "; ".join(
        f"{'the gap stays' if kind == 'stay' else 'first hit'}: "
        + ", ".join(f"`{m}` at {target_text(TARGETS[t])}" for t, m in enumerate(names))
        for kind, names in chosen.items()
    )
    return f"The best published method, by median evaluations: {words}.\n\n{grid_table(head, rows)}"


def _arrived(table: Table, kind: str, target: int) -> FloatArray:
    return np.min([table.counts(m, "tuned", kind, target) for m in table.tuned], axis=0)


def _part(table: Table, keep: Callable[[int], NDArray[np.bool_]]) -> list[str]:
    cells = []
    for t in range(len(TARGETS)):
        chosen = keep(t)
        ours = table.counts(OUR_BEST, "default", "stay", t)[chosen]
        bar = table.best_of_all("stay", t, strict=True)[chosen]
        cells.append(f"{times(bar, ours)} ({int(chosen.sum())} games)" if chosen.any() else "no game")
    return cells


def _unseen(table: Table) -> list[str]:
    """Speed-ups where an update's own measurement is free: baselines need one less, ours knows its payoffs anyhow."""
    cells = []
    for t in range(len(TARGETS)):
        ours = table.counts(OUR_BEST, "default", "stay", t)
        bar = table.best_of_all("stay", t, strict=True) - 1.0
        cells.append(times(np.maximum(bar, 1.0), np.where(ours > 1, ours, 1.0)))
    return cells


def target_tables(table: Table) -> str:
    """One table for each target: every published method tuned, at its best single setting, and by default."""
    parts = []
    for t, target in enumerate(TARGETS):
        ours_stay, ours_first = (table.counts(OUR_BEST, "default", kind, t) for kind in ("stay", "first"))
        head = ["method", "solved (tuned, single, default)", "median, tuned", "tuned: stays", "tuned: first hit"]
        head += ["single: stays", "default: stays", "worst ours/theirs, tuned: stays", "on", "best single setting"]
        rows = []
        for m in sorted(table.tuned, key=lambda m: median(table.counts(m, "tuned", "stay", t))):
            bad = worst(table.counts(m, "tuned", "stay", t), ours_stay)
            rows.append(
                [f"`{m}`", ", ".join(str(table.solved(m, mode, "stay", t)) for mode in reversed(MODES))]
                + [number(median(table.counts(m, "tuned", "stay", t)))]
                + [times(table.bounds(m, "tuned", "stay", t), ours_stay)]
                + [times(table.bounds(m, "tuned", "first", t), ours_first)]
                + [times(table.bounds(m, mode, "stay", t), ours_stay) for mode in ("single", "default")]
                + ([number_ratio(bad[0]), f"`{table.games[bad[1]].name}`"] if bad else ["", ""])
                + [table.setting(m, t).replace(",", ", ")]
            )
        rows += [[f"`{m}`", f"–, –, {table.solved(m, 'default', 'stay', t)}", *["–"] * 8] for m in table.once]
        parts.append(
            f"### Gap {target_text(target)}\n\n{_ours_table(table, t)}\n\nOur speed-up (`{OUR_BEST}`, default setting) "
            f"against every published method:\n\n{grid_table(head, rows)}"
        )
    return "\n\n".join(parts)


def _ours_table(table: Table, t: int) -> str:
    best = table.best_method("stay", t)
    theirs, bar = table.bounds(best, "tuned", "stay", t), table.best_of_all("stay", t, strict=True)
    rows = []
    for m in table.ours:
        stay, first = (table.counts(m, "default", kind, t) for kind in ("stay", "first"))
        bad = worst(_arrived(table, "stay", t), stay)
        solved = f"{int(np.isfinite(stay).sum())} of {len(stay)}"
        medians = (number(median(stay)), number(median(first)))
        worst_ratio = number_ratio(bad[0]) if bad else ""
        rows.append((f"`{m}`", solved, *medians, times(theirs, stay), times(bar, stay), worst_ratio))
    head = ["ours, default setting", "solved", "median: stays", "median: first hit", f"against `{best}` tuned"]
    return grid_table([*head, "against the best of all", "worst ours/theirs, best of all"], rows)


def breakdown(table: Table) -> str:
    """Medians by family, by size, and by whether the equilibrium is pure."""
    groups: list[tuple[str, NDArray[np.bool_]]] = []
    for family in dict.fromkeys(game.family for game in table.games):
        groups.append((f"`{family}`", np.array([game.family == family for game in table.games])))
    for low, high in SIZES:
        words = f"{low} to {high:,} actions"
        groups.append((words, np.array([low <= game.actions <= high for game in table.games])))
    groups.append(("a pure equilibrium", np.array([game.pure for game in table.games])))
    groups.append(("none", np.array([not game.pure for game in table.games])))
    goals = " / ".join(target_text(t) for t in TARGETS)
    head = ["games", "number", f"ours, {goals}", "best published", "speed-up against it", "against the best of all"]
    best = [table.best_method("stay", t) for t in range(len(TARGETS))]
    rows = []
    for words, chosen in groups:
        if not chosen.any():
            continue
        ours = [table.counts(OUR_BEST, "default", "stay", t)[chosen] for t in range(len(TARGETS))]
        theirs = [table.counts(m, "tuned", "stay", t)[chosen] for t, m in enumerate(best)]
        bounds = [table.bounds(m, "tuned", "stay", t)[chosen] for t, m in enumerate(best)]
        bars = [table.best_of_all("stay", t, strict=True)[chosen] for t in range(len(TARGETS))]
        cells = [[number(median(one)) for one in some] for some in (ours, theirs)]
        cells += [[number(median(speed_up(*pair))) for pair in zip(some, ours, strict=True)] for some in (bounds, bars)]
        rows.append([words, int(chosen.sum()), *(" / ".join(three) for three in cells)])
    return grid_table(head, rows)


def _slower(table: Table) -> list[tuple[float, str, int, int, str, float, float]]:
    """Games on which a tuned published method needs fewer evaluations than ours, the worst first."""
    found = {}
    for t in range(len(TARGETS)):
        for kind in ("stay", "first"):
            ours = table.counts(OUR_BEST, "default", kind, t)
            for m in table.tuned:
                theirs = table.counts(m, "tuned", kind, t)
                for i in np.flatnonzero(theirs < ours):
                    ratio = float(ours[i] / theirs[i])
                    key = (i, t, kind)
                    if key not in found or ratio > found[key][0]:
                        found[key] = (ratio, kind, t, int(i), m, float(ours[i]), float(theirs[i]))
    return sorted(found.values(), key=lambda entry: -entry[0])


def worst_games(table: Table) -> str:
    """The games on which a tuned method beats ours."""
    slower = _slower(table)
    if not slower:
        return "No tuned method needs fewer evaluations on any game."
    rows = []
    for ratio, kind, t, i, m, ours, theirs in slower[:LISTED]:
        where = (f"`{table.games[i].name}`", target_text(TARGETS[t]), "stays" if kind == "stay" else "first hit")
        rows.append((*where, number(ours), number(theirs), f"`{m}`", number_ratio(ratio)))
    total = len(table.games) * len(TARGETS) * 2
    return (
        f"A tuned method needs fewer in {len(slower)} of the {total} comparisons (game, target, count), more than "
        f"{WORST_ALLOWED} times fewer in {sum(entry[0] > WORST_ALLOWED for entry in slower)}. The worst "
        f"{len(rows)}:\n\n" + grid_table(["game", "gap", "count", "ours", "theirs", "method", "ours/theirs"], rows)
    )


def figure(table: Table, path: Path, mode: str) -> None:
    """Share of the games solved against evaluations."""

    def lists(method: str, of: str) -> list[list[float | None]]:
        counts = (table.counts(method, of, "stay", t) for t in range(len(TARGETS)))
        return [[float(n) if np.isfinite(n) else None for n in one] for one in counts]

    needed = [(m, lists(m, "default")) for m in table.ours]
    needed += [(f"{m}, {mode}", lists(m, mode)) for m in table.tuned]
    draw_profile_plot(needed, TARGETS, len(table.games), 10_000, path)


def fill(text: str, contents: dict[str, str]) -> str:
    """Replace what stands between the markers of each name.

    Raises:
        ValueError: A marker that the text does not have exactly once.
    """
    for name, content in contents.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"expected the markers {begin} and {end} once each in {PAGE.name}")
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{content}\n{end}{after}"
    return text


def unmeasured(path: Path, methods: Sequence[str]) -> list[str]:
    """Those of the methods that the results lack, or have on fewer games than others."""
    if not path.exists():
        return list(methods)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    games = {row["game"] for row in rows}
    known = {method: {row["game"] for row in rows if row["method"] == method} for method in methods}
    return [method for method in methods if known[method] != games]


def write_page(protocol: str) -> None:
    """Write the page's tables and draw its figures, as far as there are results.

    Args:
        protocol: What was tried and how far, in Markdown.
    """
    contents = {"protocol": protocol}
    standard = Table(STANDARD)
    contents |= {"verdict": verdict(standard), "headline": headline(standard), "targets": target_tables(standard)}
    contents |= {"breakdown": breakdown(standard), "worst": worst_games(standard)}
    for mode in ("tuned", "single"):
        figure(standard, FIGURES / f"evaluations_{mode}.svg", mode)
    if HELD_OUT.exists():
        fresh = Table(HELD_OUT)
        contents["held-out"] = f"{len(fresh.games)} games.\n\n{headline(fresh)}\n\n{worst_games(fresh)}"
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), contents), encoding="utf-8")
