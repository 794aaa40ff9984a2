"""Speed of the game lab: each part beside what else one would use, in one run.

    python benchmarks/games.py                            # every part, on one thread and on two; about four minutes
    python benchmarks/games.py --only update batch        # some parts
    python benchmarks/games.py --write                    # also rewrites the section of benchmarks/README.md

Parts: "update" (an update of `games.run` against a loop in bare NumPy), "egpo" (against EGPO as its paper writes it,
losses on all pairs), "kuhn" (against OpenSpiel's magnetic mirror descent), "bandwidth", "memory" and "batch".

Contenders take turns, in both orders; ratios are medians over the turns of the ratio within a turn, because the time of
anything on a shared machine drifts. Both clocks are read: wall time, and the processor time of the process, which other
programs disturb less. Each number of threads gets a process of its own, for BLAS reads it once.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from games_peers import EVERY, STEP, STRENGTH, PairwiseEGPO, bare_updates
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.games.play.trace import BUFFERED_NUMBERS

ROOT = Path(__file__).parents[1]
README = ROOT / "benchmarks" / "README.md"
THREADS = (1, 2)
MPO = methods.mpo(STEP, STRENGTH, EVERY)
MOST_NUMBERS = 32  # per action that a run may hold beside the buffers of constant size
AGREEMENT = 1e-9  # largest difference of a probability between two programs that claim to do the same

Row = dict[str, Any]
Clock = Literal["wall", "cpu"]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        run: Does the work.
        units: How many updates (or other units) one call does; times are per unit.
    """

    run: Callable[[], object]
    units: int


@dataclass(frozen=True)
class Timings:
    """Seconds per unit of every contender, one entry a turn, by clock and name."""

    seconds: dict[Clock, dict[str, list[float]]]

    def typical(self, name: str, clock: Clock = "wall") -> float:
        """Median seconds per unit."""
        return median(self.seconds[clock][name])

    def ratio(self, name: str, base: str, clock: Clock = "wall") -> float:
        """Median over the turns of one contender's time over another's."""
        pairs = zip(self.seconds[clock][name], self.seconds[clock][base], strict=True)
        return median(own / other for own, other in pairs)


def take_turns(contenders: dict[str, Contender], turns: int) -> Timings:
    """Time all contenders turn by turn, after one call each to warm up."""
    seconds: dict[Clock, dict[str, list[float]]] = {"wall": {}, "cpu": {}}
    for name, contender in contenders.items():
        contender.run()
        seconds["wall"][name], seconds["cpu"][name] = [], []
    for turn in range(turns):
        for name in list(contenders) if turn % 2 == 0 else reversed(contenders):
            wall, cpu = time.perf_counter(), time.process_time()
            contenders[name].run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            seconds["wall"][name].append(wall / contenders[name].units)
            seconds["cpu"][name].append(cpu / contenders[name].units)
    return Timings(seconds)


def measure_update(threads: int) -> list[Row]:
    """An update of `games.run` against the bare loop."""
    others = ("mirror_descent", "egpo", "ogda", "omwu")
    plan = [(10, 1000, 40), (100, 1000, 40), (1000, 100, 40), (4000, 30, 9)]
    rows = []
    for actions, updates, turns in plan if threads == 1 else plan[2:]:
        game = games.random_game(actions, seed=0)
        chosen = {"mpo": MPO}
        if actions in (10, 1000):
            chosen |= {name: methods.build_method(name) for name in others}
        agree("update", bare_updates(game.P, updates), games.run(MPO, game, updates).policy)
        contenders = {"bare": Contender(lambda g=game, n=updates: bare_updates(g.P, n), updates)}
        for name, method in chosen.items():
            contenders[name] = Contender(lambda m=method, g=game, n=updates: games.run(m, g, n), updates)
        timings = take_turns(contenders, turns)
        for name, method in chosen.items():
            rows.append(
                {
                    "actions": actions,
                    "method": name,
                    "evaluations": int(games.run(method, game, 2).evaluations[-1]) / 2,
                    "bare_us": 1e6 * timings.typical("bare"),
                    "run_us": 1e6 * timings.typical(name),
                    "ratio_wall": timings.ratio(name, "bare"),
                    "ratio_cpu": timings.ratio(name, "bare", "cpu"),
                    "ratio_of_least_wall": min(timings.seconds["wall"][name]) / min(timings.seconds["wall"]["bare"]),
                }
            )
    return rows


def measure_egpo(threads: int) -> list[Row]:
    """Iterations of EGPO: pairwise losses and autograd, in single precision, against `games.run` in double."""
    del threads
    rows = []
    method = methods.egpo(STEP, STRENGTH)
    for actions, iterations, updates in ((10, 200, 2000), (100, 200, 2000), (1000, 5, 200)):
        game = games.random_game(actions, seed=0)
        exact = PairwiseEGPO(game.P, torch.float64)
        exact.iterate(20)
        agree("egpo", exact.policy().numpy(), games.run(method, game, 20).policy)
        pairwise = PairwiseEGPO(game.P, torch.float32)
        timings = take_turns(
            {
                "pairwise": Contender(lambda p=pairwise, n=iterations: p.iterate(n), iterations),
                "run": Contender(lambda g=game, n=updates: games.run(method, g, n), updates),
            },
            turns=9,
        )
        rows.append(
            {
                "actions": actions,
                "pairwise_ms": 1e3 * timings.typical("pairwise"),
                "run_ms": 1e3 * timings.typical("run"),
                "times_faster_wall": timings.ratio("pairwise", "run"),
                "times_faster_cpu": timings.ratio("pairwise", "run", "cpu"),
            }
        )
    return rows


def measure_kuhn(threads: int) -> list[Row]:
    """Iterations on Kuhn poker: OpenSpiel's magnetic mirror descent against ours in behavioural form, and MPO."""
    del threads
    if importlib.util.find_spec("pyspiel") is None:
        print('kuhn: skipped, OpenSpiel is not installed; pip install "magnetar[poker]"', file=sys.stderr)
        return []
    import pyspiel
    from open_spiel.python.algorithms.mmd_dilated import MMDDilatedEnt

    from magnetar.games import extensive

    kuhn = extensive.load_game("kuhn_poker")
    peer = MMDDilatedEnt(pyspiel.load_game("kuhn_poker"), alpha=STRENGTH)

    def iterate_peer(iterations: int) -> None:
        for _ in range(iterations):
            peer.update_sequences()

    chosen = {"mmd": methods.mmd(STEP, STRENGTH), "mpo": methods.mpo(STEP, STRENGTH, magnet_every=30)}
    contenders = {"openspiel": Contender(lambda: iterate_peer(30), 30)}
    for name, method in chosen.items():
        contenders[name] = Contender(lambda m=method: extensive.run_exact(m, kuhn, 1000, measure_at=[]), 1000)
    timings = take_turns(contenders, turns=9)
    return [
        {
            "program": "OpenSpiel, MMDDilatedEnt" if name == "openspiel" else f"magnetar, {name}",
            "iterations_per_second": 1.0 / timings.typical(name),
            "times_faster_wall": timings.ratio("openspiel", name),
            "times_faster_cpu": timings.ratio("openspiel", name, "cpu"),
        }
        for name in contenders
    ]


def measure_bandwidth(threads: int) -> list[Row]:
    """Bytes of P that an update reads in a second, beside a product alone and a copy of P (which also writes them)."""
    del threads
    rows = []
    for actions, updates, turns in ((1000, 300, 15), (4000, 20, 9)):
        game = games.random_game(actions, seed=0)
        vector, target = np.full(actions, 1.0 / actions), np.empty_like(game.P)

        def products(matrix: FloatArray, vector: FloatArray, count: int) -> None:
            for _ in range(count):
                np.dot(matrix, vector)

        def copies(matrix: FloatArray, target: FloatArray, count: int) -> None:
            for _ in range(count):
                np.copyto(target, matrix)

        run = Contender(lambda g=game, n=updates: games.run(MPO, g, n), updates + 1)  # the start is evaluated, too
        dot = Contender(lambda m=game.P, v=vector, n=updates: products(m, v, n), updates)
        copy = Contender(lambda m=game.P, t=target, n=updates: copies(m, t, n), updates)
        timings = take_turns({"run": run, "dot": dot, "copy": copy}, turns)
        gigabytes = game.P.nbytes / 1e9
        rows.append(
            {
                "actions": actions,
                "matrix_mb": 1e3 * gigabytes,
                "run_gb_per_s": gigabytes / timings.typical("run"),
                "dot_gb_per_s": gigabytes / timings.typical("dot"),
                "copy_gb_per_s": gigabytes / timings.typical("copy"),
                "share_of_dot_wall": timings.ratio("dot", "run"),
                "share_of_dot_cpu": timings.ratio("dot", "run", "cpu"),
            }
        )
    return rows


def measure_memory(threads: int) -> list[Row]:
    """Most memory that a run holds beyond the game: far below one A × A array."""
    del threads
    rows = []
    for actions, updates in ((1000, 300), (4000, 30)):
        game = games.random_game(actions, seed=0)
        games.run(MPO, game, 2)  # what is imported or cached once is not the run's
        tracemalloc.start()
        games.run(MPO, game, updates)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        buffers = 2 * (BUFFERED_NUMBERS // actions) * actions  # the recorder's, of constant size
        beyond = (peak / 8 - buffers) / actions
        if beyond > MOST_NUMBERS:
            raise SystemExit(f"memory: {beyond:.0f} numbers per action at {actions} actions, expected {MOST_NUMBERS}")
        rows.append(
            {
                "actions": actions,
                "peak_mb": peak / 1e6,
                "share_of_matrix": peak / game.P.nbytes,
                "vectors_beyond_buffers": beyond,
            }
        )
    return rows


def solve_parts(pool: ThreadPoolExecutor, parts: list[list[games.PreferenceGame]], updates: int) -> None:
    """One call of `games.run_batch` for each part, at once."""
    list(pool.map(lambda part: games.run_batch(MPO, part, updates), parts))


def measure_batch(threads: int) -> list[Row]:
    """Action-updates per second of 1,000 games in one call, and one after another.

    On two threads, two calls of 500 games each run at once, since NumPy lets go of Python's lock.
    """
    rows = []
    updates = 1000
    for actions in (3, 10, 30):
        batch = [games.random_game(actions, seed=seed) for seed in range(1000)]
        few = batch[:20]
        for mine, alone in zip(games.run_batch(MPO, few, updates), few, strict=True):
            agree("batch", mine.policy, games.run(MPO, alone, updates).policy)
        with ThreadPoolExecutor(threads) as pool:
            parts = [batch[k::threads] for k in range(threads)]
            timings = take_turns(
                {
                    "batch": Contender(
                        lambda a=(pool, parts, updates): solve_parts(*a), len(batch) * actions * updates
                    ),
                    "loop": Contender(
                        lambda f=few: [games.run(MPO, game, updates) for game in f], 20 * actions * updates
                    ),
                },
                turns=7,
            )
        rows.append(
            {
                "actions": actions,
                "calls": threads,
                "batch_per_us": 1e-6 / timings.typical("batch"),
                "batch_per_us_of_cpu": 1e-6 / timings.typical("batch", "cpu"),
                "loop_per_us": 1e-6 / timings.typical("loop"),
                "times_faster_wall": timings.ratio("loop", "batch"),
            }
        )
    return rows


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "update": measure_update,
    "egpo": measure_egpo,
    "kuhn": measure_kuhn,
    "bandwidth": measure_bandwidth,
    "memory": measure_memory,
    "batch": measure_batch,
}
ONE_THREAD_ONLY = ("kuhn", "memory")  # nothing in them is large enough for two
GOALS = {
    "update": "Goal for mpo: at most 3 at 10 actions, 1.3 at 1,000 and 4,000. Bare is one evaluation an update.",
    "egpo": "Pairwise losses by autograd in PyTorch, single precision; `games.run` in double.",
    "kuhn": "Iterations a second; the measure of exploitability is not timed. OpenSpiel works on the sequence form.",
    "bandwidth": "Bytes of P read in a second. A copy reads and writes each byte; one of the two is counted.",
    "memory": "Peak during a run without the game; and how many vectors of A numbers beside the recorder's buffers.",
    "batch": "Millions of action-updates (games × actions × updates) a second, 1,000 games, 1,000 updates. Goal: 20.",
}


def agree(part: str, first: FloatArray, second: FloatArray) -> None:
    """Stop unless two programs that are compared reach the same policy."""
    difference = float(np.abs(first - second).max())
    if not difference <= AGREEMENT:
        raise SystemExit(f"{part}: policies differ by {difference:.1e}, expected at most {AGREEMENT}: a wrong program")


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpuinfo, cache = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
    model = re.search(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index] - numpy types it as optional
    packages = {"numpy": "numpy", "torch": "torch", "open-spiel": "pyspiel"}
    installed = {name: version(name) for name, module in packages.items() if importlib.util.find_spec(module)}
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "last_level_cache": cache.read_text().strip() if cache.exists() else "unknown",
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        **installed,
    }


def measure_in_child(threads: int, parts: list[str]) -> dict[str, list[Row]]:
    """Rows of the parts, from a process with that many threads."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    command = [sys.executable, __file__, "--child", str(threads), "--only", *parts]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the measurements on {threads} threads failed with status {done.returncode}, see above")
    return json.loads(done.stdout)


def as_markdown(result: dict[str, Any]) -> str:
    """Machine and one table a part."""
    machine = ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in result["machine"].items())
    lines = [f"Machine: {machine}.", ""]
    for part, goal in GOALS.items():
        rows = [{"threads": int(t), **row} for t, parts in result["threads"].items() for row in parts.get(part, [])]
        if not rows:
            if any(part in parts for parts in result["threads"].values()):
                lines += [f"**{part}**: skipped, for what it needs is not installed", ""]
            continue
        header = [key.replace("_", " ") for key in rows[0]]
        lines += [f"**{part}**: {goal}", "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
        lines += [f"| {' | '.join(shown(value) for value in row.values())} |" for row in rows] + [""]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A cell: three digits of what was measured."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "benchmarks" / "games.json", help="where to write")
    parser.add_argument("--write", action="store_true", help="rewrite the section of benchmarks/README.md")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write and args.only != list(PARTS):
        parser.error("--write replaces the whole section, so it goes with all parts; leave --only out")
    if args.child is not None:
        torch.set_num_threads(args.child)
        print(json.dumps({part: PARTS[part](args.child) for part in args.only}))
        return
    result: dict[str, Any] = {"machine": describe_machine(), "threads": {}}
    for threads in THREADS:
        if parts := [part for part in args.only if threads == 1 or part not in ONE_THREAD_ONLY]:
            result["threads"][str(threads)] = measure_in_child(threads, parts)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    table = as_markdown(result)
    print(f"{table}\n{args.json}")
    if args.write:
        marked = re.compile(r"(<!-- games:begin -->\n).*?(<!-- games:end -->)", re.DOTALL)
        text, found = marked.subn(lambda match: match[1] + table + match[2], README.read_text())
        if not found:
            raise SystemExit(f"{README} has no place for the tables")
        README.write_text(text)


if __name__ == "__main__":
    main()
