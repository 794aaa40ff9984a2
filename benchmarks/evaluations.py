"""How many evaluations of the payoffs every method needs to gaps of 1e-2, 1e-4 and 1e-6, over a suite of games.

    python benchmarks/evaluations.py          # the standard suite, the held-out one and the page: under an hour
    python benchmarks/evaluations.py --suite standard --methods mpo_recall --again     # measure one method anew
    python benchmarks/evaluations.py --page   # tables and figures of docs/fastest.md from the kept results

Every run is kept in a work folder as soon as it ends: interrupting loses nothing, and running again resumes. What the
page needs is in benchmarks/results/evaluations.

A policy counts as reached when its own payoffs are known, for that is when a person could stop: with the evaluation
after the update that made it, or at once in a method that knows them without.
"""

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from evaluations_page import HELD_OUT, MODES, RESULTS, STANDARD, TARGETS, unmeasured, write_page
from tqdm import tqdm

from magnetar import games
from magnetar.games.builders.suite import GameSpec, suite
from magnetar.games.comparison.choices import MethodChoice, choose_method, starting_policy
from magnetar.games.gaps import duality_gap
from magnetar.games.play.trace import Trace
from magnetar.methods import OracleObjective

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs" / "evaluations"

STAY = 20  # evaluations for which the gap must stay at most the target
REST = 5  # updates without an evaluation after which a method has ended
STAGES = (120, 600, 2500)  # evaluations of the first runs; only games that no setting has solved are run for longer
BANDS = (30, 110, 300, 999, 1000)  # actions up to which a limit holds
CANDIDATES = 2  # settings for each target that are run to the end to find the best single one
HELD_OUT_SEEDS = 1000  # added to the seeds of the standard suite
HELD_OUT_ACTIONS = 110

OURS = ("mpo_recall", "mpo_adaptive", "mpo_adaptive:geometry=entropic", "mpo_optimistic")
ONCE = ("bt_rlhf", "iterative_dpo")  # they fit scores, and no setting makes scores cyclic
KNOWS_ITS_PAYOFFS = ("mpo_recall",)  # its policy is a combination of policies whose payoffs it has seen
STOPPED = ("mpo_recall",)  # at the last target: its policy is the best it knows, so its gap does not rise again
ROUNDING = 1e-8  # by which a gap may rise, from the tolerance of linear programmes
LIMITS = {
    **dict.fromkeys(("omwu", "extragradient", "ogda"), (10_000, 4000, 1000, 400, 400)),
    **dict.fromkeys(("mpo_adaptive", "mpo_optimistic"), (10_000, 4000, 1000, 400, 400)),
    **dict.fromkeys(("mpo", "mpo_rt"), (2500, 1500, 500, 250, 250)),
    **dict.fromkeys(("mmd", "omd", "nash_md", "egpo", "mirror_descent"), (1000, 1000, 600, 300, 300)),
    **dict.fromkeys(("hamiltonian", "adagrad_norm"), (1500, 1000, 600, 300, 300)),
    **dict.fromkeys(ONCE, (50, 110, 300, 1000, 1000)),
    "mpo_recall": (200, 200, 200, 100, 100),  # minutes of linear algebra beyond
}

STEPS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0, 1000.0)
FEW_STEPS = (0.3, 2.0, 8.0, 30.0, 120.0, 1000.0)
EUCLIDEAN_STEPS = (0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)
FEW_EUCLIDEAN_STEPS = (0.003, 0.01, 0.02, 0.04, 0.08, 0.3, 1.2)
PULLED_STEPS = (0.5, 2.0, 7.0, 20.0, 60.0, 200.0)
PULLS = (0.1, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Counts:
    """Evaluations after which one run reached each target; None if it did not within the limit.

    Attributes:
        first: The first time that the gap was at most the target.
        stay: The first time from which it was so for `STAY` further evaluations.
        limit: Evaluations up to which the run is known.
    """

    first: tuple[int | None, ...]
    stay: tuple[int | None, ...]
    limit: int

    def covers(self, limit: int) -> bool:
        """Whether a run to this limit would say nothing new."""
        return self.stay[-1] is not None or self.limit >= limit


def count(trace: Trace, limit: int, targets: Sequence[float] = TARGETS, stopped: bool = False) -> Counts:
    """Read the counts off a run's trace; of one that was stopped at the last target, what was reached stays.

    Raises:
        ValueError: The gap of a run that was stopped had risen before, so that it might have done so again.
    """
    if stopped and (np.diff(trace.duality_gap) > ROUNDING).any():
        raise ValueError(f"{trace.method} on {trace.game}: the gap rose, expected it never to in a run that is stopped")
    known_later = 0 if trace.method in KNOWS_ITS_PAYOFFS else 1
    spent = np.maximum(trace.evaluations + known_later, 1)
    at_rest = len(spent) > REST and spent[-1] == spent[-1 - REST]  # nothing is asked of the game any more
    whole = at_rest or stopped
    limit = limit if whole else min(limit, int(spent[-1]) - STAY)
    window_end = np.searchsorted(spent, spent + STAY)
    if whole:
        window_end = np.minimum(window_end, len(spent) - 1)
    first: list[int | None] = []
    stay: list[int | None] = []
    for target in targets:
        good = trace.duality_gap <= target
        places = np.arange(len(good))
        next_bad = np.minimum.accumulate(np.where(good, len(good), places)[::-1])[::-1]
        stays = (window_end < len(good)) & (next_bad > window_end)
        for found, where in ((first, good), (stay, stays)):
            reached = int(spent[int(where.argmax())]) if where.any() else None
            found.append(reached if reached is not None and reached <= limit else None)
    return Counts(tuple(first), tuple(stay), limit)


class Results:
    """What was measured so far, by the method's definition and the game; each run is written when it ends."""

    def __init__(self, folder: Path, method: str, again: bool = False) -> None:
        self._path = folder / f"{method}.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if again:
            self._path.unlink(missing_ok=True)
        self._known: dict[tuple[str, str], Counts] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a run that was killed while it wrote
                continue
            counts = Counts(tuple(row["first"]), tuple(row["stay"]), row["limit"])
            self._known[row["definition"], row["game"]] = counts

    def get(self, choice: MethodChoice, game: str) -> Counts | None:
        """Counts of a setting on a game, None if it was not run yet."""
        return self._known.get((_digest(choice), game))

    def put(self, choice: MethodChoice, game: str, counts: Counts) -> None:
        """Keep the counts of one run."""
        self._known[_digest(choice), game] = counts
        row = {"definition": _digest(choice), "setting": choice.label, "game": game, **vars(counts)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _digest(choice: MethodChoice) -> str:
    return hashlib.sha256(choice.definition.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Arena:
    """A game that is built, and where runs on it start.

    Attributes:
        spec: Its name and family.
        game: The game.
        skewed: Whether runs start at the skewed policy, because the uniform one is already an equilibrium.
    """

    spec: GameSpec
    game: games.PreferenceGame
    skewed: bool

    @classmethod
    def build(cls, spec: GameSpec) -> "Arena":
        """Build the game."""
        game = spec.build()
        return cls(spec, game, duality_gap(game.P.mean(axis=1)) <= TARGETS[-1])

    @property
    def pure(self) -> bool:
        """Whether one action loses to none: then always playing it is an equilibrium."""
        return bool((self.game.P.min(axis=1) >= 0.5 - 1e-9).any())


def play(choice: MethodChoice, arenas: Sequence[Arena], limit: int) -> Iterator[tuple[Arena, Counts]]:
    """Run one setting on some games of the same size for so many evaluations."""
    method = choice.method
    if choice.name in STOPPED:
        for arena in arenas:
            initial = starting_policy("skewed" if arena.skewed else "uniform", arena.game.num_actions)
            trace = games.run(method, arena.game, limit, initial=initial, stop_at_gap=TARGETS[-1])
            yield arena, count(trace, limit, stopped=True)
        return
    updates = -(-(limit + STAY) // _evaluations_per_update(choice))
    if choice.name in ONCE:
        updates = REST + 1  # the first reads the game
    together = [a for a in arenas if not a.skewed and a.game.num_actions <= BANDS[2]]
    if together and not isinstance(method.objective, OracleObjective):
        traces = games.run_batch(method, [a.game for a in together], updates)
        yield from ((arena, count(trace, limit)) for arena, trace in zip(together, traces, strict=True))
        arenas = [a for a in arenas if a not in together]
    for arena in arenas:
        initial = starting_policy("skewed" if arena.skewed else "uniform", arena.game.num_actions)
        yield arena, count(games.run(method, arena.game, updates, initial=initial), limit)


def _evaluations_per_update(choice: MethodChoice) -> int:
    trace = games.run(choice.method, games.random_game(5), 40)
    return max(1, int(trace.evaluations[-1]) // 40)


def limit_for(method: str, actions: int) -> int:
    """Evaluations after which a run on a game of this size ends."""
    return LIMITS[method][next(i for i, band in enumerate(BANDS) if actions <= band)]


def grid(method: str, few: bool) -> list[MethodChoice]:
    """Settings to try; ``few`` for games above 110 actions and for the held-out suite. The default comes first."""
    specs = [method]
    if method in ("mirror_descent", "omwu", "extragradient"):
        specs += [f"{method}:step_size={step:g}" for step in (FEW_STEPS if few else STEPS)]
    elif method == "ogda":
        specs += [f"{method}:step_size={step:g}" for step in (FEW_EUCLIDEAN_STEPS if few else EUCLIDEAN_STEPS)]
    elif method == "hamiltonian":
        specs += [f"{method}:step_size={10.0**power:g}" for power in (range(1, 6, 2) if few else range(0, 7))]
    elif method == "adagrad_norm":
        specs += [f"{method}:step_size={step:g}" for step in ((0.03, 0.3) if few else (0.01, 0.03, 0.1, 0.3, 1.0, 3.0))]
    elif method in ("mmd", "omd", "nash_md", "egpo"):
        steps = PULLED_STEPS[1::2] if few else PULLED_STEPS
        # All but MMD are explicit in the pull: beyond a product of one they overshoot the reference.
        pairs = ((s, p) for s, p in product(steps, PULLS) if method == "mmd" or s * p <= 1.0)
        specs += [f"{method}:step_size={step:g},magnet_strength={pull:g}" for step, pull in pairs]
    elif method in ("mpo", "mpo_rt"):
        few_or_all = ((8.0, 30.0, 100.0), (0.1, 0.03, 0.01), (3, 10)) if few else (
            (1.0, 3.0, 8.0, 30.0, 100.0), (0.3, 0.1, 0.03, 0.01, 0.003), (3, 10, 30)
        )  # fmt: skip
        specs += [
            f"{method}:step_size={step:g},magnet_strength={pull:g},magnet_every={every}"
            for step, pull, every in product(*few_or_all)
            if 0.02 < step * pull < (1.0 if method == "mpo_rt" else 8.0)
        ]
    chosen = {choice.definition: choice for choice in map(choose_method, reversed(specs))}
    return list(reversed(chosen.values()))


class Measurement:
    """One method over one suite: every setting, the limits, and what was found."""

    def __init__(self, name: str, arenas: Sequence[Arena], results: Results, few: bool) -> None:
        self.name = name
        self.arenas = arenas
        self.results = results
        self.few = few

    def settings(self, arena: Arena) -> list[MethodChoice]:
        """The grid for a game."""
        return grid(self.name, self.few or arena.game.num_actions > BANDS[1])

    def run(self, choice: MethodChoice, arenas: Iterable[Arena], limit: int | None = None, progress: str = "") -> None:
        """Run a setting on the games where it is not known to the limit yet; the game's own limit at most."""
        groups: dict[tuple[int, int], list[Arena]] = {}
        for arena in arenas:
            own = limit_for(self.name, arena.game.num_actions)
            wanted = own if limit is None else min(limit, own)
            known = self.results.get(choice, arena.spec.name)
            if known is None or not known.covers(wanted):
                groups.setdefault((arena.game.num_actions, wanted), []).append(arena)
        total = sum(map(len, groups.values()))
        with tqdm(total=total, desc=progress, unit="game", disable=not progress) as bar:
            for (_, wanted), members in sorted(groups.items(), key=lambda group: group[0]):  # small games first
                for arena, counts in play(choice, members, wanted):
                    self.results.put(choice, arena.spec.name, counts)
                    bar.update()

    def tune(self) -> None:
        """Run every setting on every game, further and further until one stays at the last target, or to the limit."""
        sizes = sorted({arena.game.num_actions for arena in self.arenas})
        for size in tqdm(sizes, desc=f"{self.name}: sizes", unit="size"):
            members = [arena for arena in self.arenas if arena.game.num_actions == size]
            settings = self.settings(members[0])
            for stage in self._stages(members[0]):
                # The default has been run to the end already: that it arrives later says nothing of this stage.
                still = [arena for arena in members if self._settled(arena) >= stage]
                for choice in tqdm(settings if still else (), desc=f"{size} actions", leave=False):
                    self.run(choice, still, stage)

    def tuned(self, arena: Arena) -> Counts:
        """The best of every setting that was run, for each target."""
        return _best([self.results.get(c, arena.spec.name) for c in self.settings(arena)])

    def single(self) -> list[MethodChoice]:
        """The best single setting of the suite for each target: most games solved, then the lower median."""
        common = grid(self.name, few=True)
        candidates = {c: None for t in range(len(TARGETS)) for c in self._ranked(common, t, True)[:CANDIDATES]}
        for choice in tqdm(candidates, desc=f"{self.name}: single settings", leave=False):
            self.run(choice, self.arenas)
        return [self._ranked(list(candidates), t, False)[0] for t in range(len(TARGETS))]

    def _stages(self, arena: Arena) -> list[int]:
        limit = limit_for(self.name, arena.game.num_actions)
        return [*(stage for stage in STAGES if stage < limit), limit]

    def _settled(self, arena: Arena) -> int:
        """The stage by which some setting stays at the last target: all settings were run to it, or are to be."""
        best = self.tuned(arena).stay[-1]
        stages = self._stages(arena)
        return next((stage for stage in stages if best is not None and best <= stage), stages[-1])

    def _ranked(self, choices: Sequence[MethodChoice], target: int, equally_far: bool) -> list[MethodChoice]:
        """Best first; ``equally_far`` looks no further than all settings were run, so that resuming changes nothing."""
        ends = [self._settled(arena) if equally_far else np.inf for arena in self.arenas]

        def score(choice: MethodChoice) -> tuple[float, float]:
            counts = (self.results.get(choice, arena.spec.name) for arena in self.arenas)
            stay = np.array(
                [c.stay[target] if c and c.stay[target] is not None else np.inf for c in counts], dtype=float
            )
            stay[stay > ends] = np.inf
            return -float(np.isfinite(stay).sum()), float(np.sort(stay)[len(stay) // 2])

        return sorted(choices, key=score)


def _best(runs: Sequence[Counts | None]) -> Counts:
    known = [run for run in runs if run is not None]
    if not known:
        return Counts((None,) * len(TARGETS), (None,) * len(TARGETS), 0)

    def least(lists: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return tuple(min((n for n in column if n is not None), default=None) for column in zip(*lists, strict=True))

    # What was run less far than the others could still have arrived before them.
    limit = min((run.limit for run in known if run.stay[-1] is None), default=known[0].limit)
    return Counts(
        least([r.first for r in known]), least([r.stay for r in known]), limit if len(known) == len(runs) else 0
    )


def measure(label: str, arenas: Sequence[Arena], work: Path, few: bool, again: bool) -> list[dict[str, object]]:
    """Measure one method over a suite, as rows of the table of results."""
    choice = choose_method(label)
    results = Results(work, re.sub(r"\W+", "_", label), again)
    measurement = Measurement(choice.name, arenas, results, few)
    measurement.run(choice, arenas, progress=f"{label}: default")
    rows = [_row(a, label, "default", results.get(choice, a.spec.name), [choice] * 3) for a in arenas]
    if label in OURS or label in ONCE:
        return rows
    measurement.tune()
    singles = measurement.single()
    for arena in arenas:
        name = arena.spec.name
        alone = [results.get(one, name) for one in singles]
        each = [_best([one]) for one in alone]
        firsts, stays = (tuple(getattr(c, kind)[t] for t, c in enumerate(each)) for kind in ("first", "stay"))
        counts = Counts(firsts, stays, _best(alone).limit)
        rows.append(_row(arena, label, "single", counts, singles))
        best = measurement.tuned(arena)
        where = [_setting_of(measurement, arena, best, t) for t in range(len(TARGETS))]
        rows.append(_row(arena, label, "tuned", best, where))
    return rows


def _setting_of(measurement: Measurement, arena: Arena, best: Counts, target: int) -> MethodChoice | None:
    for choice in measurement.settings(arena):
        counts = measurement.results.get(choice, arena.spec.name)
        if best.stay[target] is not None and counts is not None and counts.stay[target] == best.stay[target]:
            return choice
    return None


def _row(
    arena: Arena, method: str, mode: str, counts: Counts | None, settings: Sequence[MethodChoice | None]
) -> dict[str, object]:
    if counts is None:
        raise ValueError(f"{method} was not run on {arena.spec.name}")
    assert mode in MODES
    row: dict[str, object] = {"game": arena.spec.name, "family": arena.spec.family, "actions": arena.game.num_actions}
    row |= {"pure": int(arena.pure), "start": "skewed" if arena.skewed else "uniform", "method": method, "mode": mode}
    for t, power in enumerate((2, 4, 6)):
        row[f"first_1e-{power}"] = "" if counts.first[t] is None else counts.first[t]
        row[f"stay_1e-{power}"] = "" if counts.stay[t] is None else counts.stay[t]
        chosen = settings[t]
        row[f"setting_1e-{power}"] = chosen.label.partition(":")[2] if chosen is not None and mode != "default" else ""
    return row | {"limit": counts.limit}


def held_out() -> list[GameSpec]:
    """The standard suite's games that change with their seed, with other seeds, up to 110 actions."""
    specs = []
    for spec in suite("standard"):
        if "seed=" in spec.name and spec.num_actions <= HELD_OUT_ACTIONS:
            name = re.sub(r"seed=(\d+)", lambda found: f"seed={int(found[1]) + HELD_OUT_SEEDS}", spec.name)
            other = GameSpec(name, spec.family, spec.num_actions)
            if (other.build().P != spec.build().P).any():
                specs.append(other)
    return specs


def write_rows(path: Path, methods: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    """Write the rows of these methods; the file keeps its rows of others."""
    kept: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [dict(row) for row in csv.DictReader(file) if row["method"] not in methods]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, *rows])


def protocol() -> str:
    """The settings that were tried and the limits of the runs, for the page."""
    head = ["method", "settings tried per game", "above 110 actions", "values"]
    head += [f"limit up to {band:,} actions" for band in BANDS]
    lines = [head, ["---", *["---:"] * 2, "---", *["---:"] * len(BANDS)]]
    for name in [*_published(), *ONCE, *dict.fromkeys(label.partition(":")[0] for label in OURS)]:
        tuned = name in _published()
        every, few = (grid(name, few=few) if tuned else [] for few in (False, True))
        sizes = [str(len(every)), str(len(few))] if tuned else ["default only"] * 2
        values = "; ".join(f"{key} {_values(every, key)}" for key in dict(every[-1].settings)) if tuned else ""
        lines.append([f"`{name}`", *sizes, values, *(f"{limit:,}" for limit in LIMITS[name])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _values(choices: Sequence[MethodChoice], key: str) -> str:
    found = sorted({dict(choice.settings)[key] for choice in choices if key in dict(choice.settings)})
    return ", ".join(f"{value:g}" for value in found)


def main() -> None:
    """Measure what is asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=("standard", "held_out", "both"), default="both")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", default=[*OURS, *_published(), *ONCE])
    parser.add_argument("--again", action="store_true", help="forget what was measured of these methods")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page from the kept results")
    arguments = parser.parse_args()
    for name, path in (("standard", STANDARD), ("held_out", HELD_OUT)):
        if arguments.page or arguments.suite not in (name, "both"):
            continue
        specs = suite("standard") if name == "standard" else held_out()
        arenas = [Arena.build(spec) for spec in tqdm(specs, desc=f"{name}: building games", leave=False)]
        for label in arguments.methods:
            rows = measure(label, arenas, WORK / name, name == "held_out", arguments.again)
            write_rows(path, [label], rows)
    missing = unmeasured(STANDARD, [*OURS, *_published(), *ONCE])
    if missing:
        raise SystemExit(f"docs/fastest.md is not written: the standard suite lacks {', '.join(missing)}")
    write_page(protocol())
    print(f"results in {RESULTS.relative_to(ROOT)}, page docs/fastest.md written")


def _published() -> list[str]:
    return [name for name in LIMITS if name not in ONCE and not any(name == o.partition(":")[0] for o in OURS)]


if __name__ == "__main__":
    main()
