"""``magnetar games compare``: many methods on many games, as a table, plots and one self-contained page."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from magnetar import methods
from magnetar.cli.games.cell_files import ComparisonFolder
from magnetar.cli.stop_signals import stop_signals
from magnetar.errors import ConfigError
from magnetar.games import PreferenceGame
from magnetar.games.comparison.cells import CellResult, result_row, run_cell
from magnetar.games.comparison.choices import (
    Cell,
    MethodChoice,
    check_updates,
    choose_games,
    choose_method,
)
from magnetar.games.settings import split_specs

__all__ = ["main"]


@dataclass
class _Progress:
    """What has been done so far; kept outside the loop so that an interruption can still report it."""

    results: dict[Cell, CellResult] = field(default_factory=dict)
    failures: dict[Cell, str] = field(default_factory=dict)
    reused: int = 0


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Words after ``magnetar games compare``.

    Returns:
        0, or 1 if a cell failed.

    Raises:
        MagnetarError: Input that cannot be used, found before anything runs.
        KeyboardInterrupt: Stopped by SIGINT or SIGTERM; the message says what was kept and how to resume.
    """
    arguments = _parser().parse_args(argv)
    targets = _targets(arguments.targets)
    check_updates(arguments.updates)
    choices = _methods(arguments.methods)
    specs = [spec for words in arguments.games for spec in split_specs(words)]
    games = choose_games(specs, _seeds(arguments.seeds))
    folder = ComparisonFolder(arguments.out)
    cells = [Cell(game, choice, arguments.updates, arguments.initial) for game in games for choice in choices]
    done = _Progress()
    with stop_signals():
        try:
            _run_cells(cells, folder, done, recompute=arguments.recompute)
            _write_rows(cells, folder, done, targets)
            table = folder.path / "results.csv"
            page = _draw(cells, folder, done, targets, arguments, argv)
        except KeyboardInterrupt as stop:
            kept = len(done.results)
            _write_rows([cell for cell in cells if cell in done.results], folder, done, targets)
            stopped = KeyboardInterrupt(
                f"stopped; {kept} of {len(cells)} cells are finished and kept in {folder.path}; "
                "run the same command to resume"
            )
            stopped.signal_number = getattr(stop, "signal_number", signal.SIGINT)  # type: ignore[attr-defined]
            raise stopped from None
    fresh = len(done.results) - done.reused
    print(f"{len(cells)} cells: {fresh} computed, {done.reused} reused, {len(done.failures)} failed")
    print(f"table  {table}\npage   {page}")
    for cell, message in done.failures.items():
        print(f"magnetar games: {cell.choice.label} on {cell.game.label} failed: {message}", file=sys.stderr)
    return 1 if done.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="magnetar games compare",
        description="Run many methods on many games. Finished cells are kept in --out: running the same command again "
        "computes only what is missing.",
        allow_abbrev=False,
    )
    parser.add_argument("--games", nargs="+", required=True, metavar="GAME,…", help="ready-made games with or without "
                        "settings (random:actions=100,seed=3), files, or suites (small, standard)")  # fmt: skip
    parser.add_argument("--methods", nargs="+", required=True, metavar="METHOD,…", help="names with or without "
                        "settings (mpo:step_size=2,magnet_strength=0.05), or all")  # fmt: skip
    parser.add_argument("--updates", type=int, default=5000, metavar="N", help="updates of each run (default: 5000)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--targets", default="1e-2,1e-4,1e-6", metavar="GAP,…",
                        help="gaps that count as solved (default: 1e-2,1e-4,1e-6)")  # fmt: skip
    parser.add_argument(
        "--seeds", metavar="N,…", help="for each random game without a seed: one game for each of these"
    )
    parser.add_argument("--initial", choices=("skewed", "uniform"), default="skewed", help="starting policy: action a, "
                        "counted from 1, has a probability proportional to 1/a (default), or all the same")  # fmt: skip
    parser.add_argument("--format", choices=("svg", "pdf", "png"), action="append", dest="formats",
                        help="also write the plots as; svg is always written")  # fmt: skip
    parser.add_argument("--recompute", action="store_true", help="run every cell, also those that are finished")
    return parser


def _targets(text: str) -> list[float]:
    try:
        targets = sorted({float(word) for word in text.split(",")}, reverse=True)
    except ValueError as error:
        raise ConfigError(f"--targets is {text!r}, expected gaps such as 1e-2,1e-4") from error
    if not all(0 < target < 1 for target in targets):
        raise ConfigError(f"--targets is {text!r}, expected gaps strictly between 0 and 1")
    return targets


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        seeds = list(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise ConfigError(f"--seeds is {text!r}, expected integers such as 0,1,2") from error
    if min(seeds) < 0:
        raise ConfigError(f"--seeds is {text!r}, expected integers of at least 0")
    return seeds


def _methods(words: Sequence[str]) -> list[MethodChoice]:
    specs = [spec for word in words for spec in split_specs(word)]
    specs = [name for spec in specs for name in (methods.METHODS if spec == "all" else (spec,))]
    choices = list(dict.fromkeys(choose_method(spec) for spec in specs))
    if not choices:
        raise ConfigError("no methods to run, expected at least one; see `magnetar games list`")
    return choices


def _run_cells(cells: Sequence[Cell], folder: ComparisonFolder, done: _Progress, recompute: bool) -> None:
    """Compute what is missing; a cell that fails is noted and does not stop the others."""
    built: tuple[str, PreferenceGame] | None = None
    with tqdm(cells, desc="cells", unit="cell", disable=not sys.stderr.isatty()) as bar:
        for cell in bar:
            bar.set_postfix_str(f"{cell.choice.label} on {cell.game.label}"[:50], refresh=False)
            result, note = (None, "") if recompute else folder.load(cell)
            if note:
                tqdm.write(f"magnetar games: {note}; computing it again", file=sys.stderr)
            if result is not None:
                done.results[cell] = result
                done.reused += 1
                continue
            try:
                if built is None or built[0] != cell.game.label:
                    built = (cell.game.label, cell.game.build())
                result = run_cell(cell, built[1])
            except Exception as error:  # whatever it is, the other cells' hours of work must not be lost with it
                done.failures[cell] = f"{error}".strip() or type(error).__name__
                continue
            folder.save(cell, result)
            done.results[cell] = result


def _write_rows(cells: Sequence[Cell], folder: ComparisonFolder, done: _Progress, targets: Sequence[float]) -> None:
    folder.write_table(
        [result_row(cell, done.results.get(cell), done.failures.get(cell, ""), targets) for cell in cells]
    )


def _draw(
    cells: Sequence[Cell],
    folder: ComparisonFolder,
    done: _Progress,
    targets: Sequence[float],
    arguments: argparse.Namespace,
    argv: Sequence[str],
) -> str:
    from magnetar.cli.games.pictures import draw_comparison

    page = draw_comparison(
        cells,
        done.results,
        done.failures,
        targets,
        folder,
        formats=("svg", *dict.fromkeys(form for form in arguments.formats or () if form != "svg")),
        command=shlex.join(["magnetar", "games", "compare", *argv]),
    )
    return str(page)
