"""``magnetar games``: run a method on an exact game, list what there is to run."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.errors import ConfigError, MagnetarError
from magnetar.games.files import SUFFIXES

__all__ = ["main"]

LARGEST_POLICY_SHOWN = 10


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Words after ``magnetar games``.

    Returns:
        Exit code: 0, or 2 for input that cannot be used, whose message goes to stderr.
    """
    if argv and argv[0] == "llm":
        # A language model needs transformers, which must not load for a matrix game.
        return import_module("magnetar.cli.games_llm").main(list(argv[1:]))
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except MagnetarError as error:
        print(f"magnetar games: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="magnetar games", description="Run methods on exact preference games.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list the ready-made games and the methods")
    listing.set_defaults(command=_list)
    commands.add_parser("llm", help="run methods on a language model whose responses can all be listed", add_help=False)
    run = commands.add_parser("run", help="run a method on a game", allow_abbrev=False)
    run.set_defaults(command=_run)
    run.add_argument("--game", default="rps", metavar="NAME|FILE", help="a ready-made game, or a matrix of win "
                     f"probabilities in {', '.join(SUFFIXES)} form (default: rps)")  # fmt: skip
    run.add_argument("--actions", type=int, metavar="N", help="number of actions, for games that take one")
    run.add_argument("--seed", type=int, metavar="N", help="seed, for random games")
    run.add_argument("--method", default="mpo", metavar="NAME", help="see `magnetar games list` (default: mpo)")
    run.add_argument("--updates", type=int, default=1000, metavar="N", help="number of updates (default: 1000)")
    run.add_argument("--step_size", "--step-size", type=float, metavar="ETA", help="default: the method's")
    run.add_argument(
        "--magnet_strength", "--magnet-strength", type=float, metavar="ALPHA", help="default: the method's"
    )
    run.add_argument("--magnet_every", "--magnet-every", type=int, metavar="N",
                     help="updates between magnet moves (default: the method's)")  # fmt: skip
    run.add_argument("--initial", default="skewed", metavar="uniform|skewed|FILE",
                     help="starting policy, which is also the first magnet. skewed (default) gives action a, counted "
                     "from 1, a probability proportional to 1/a: uniform is already the equilibrium of a symmetric "
                     "game such as rps and would show nothing. FILE holds one row of probabilities")  # fmt: skip
    run.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    run.add_argument("--plot", metavar="FILE", help="draw gap against evaluations (.png, .svg or .pdf)")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    game = _game(arguments)
    method = methods.build_method(
        arguments.method,
        step_size=arguments.step_size,
        magnet_strength=arguments.magnet_strength,
        magnet_every=arguments.magnet_every,
    )
    initial = _initial(arguments.initial, game)
    if arguments.plot is not None:
        from magnetar.reports.gap_plot import check_plot_path

        check_plot_path(arguments.plot)
    show_progress = not arguments.json and sys.stderr.isatty()
    trace = games.run(method, game, updates=arguments.updates, initial=initial, progress=show_progress)
    if arguments.json:
        print(json.dumps(_summary(trace), allow_nan=False))
    else:
        print(_table(trace, method, game, arguments.initial))
    if arguments.plot is not None:
        _draw(trace, method, arguments.plot)
    return 0


def _game(arguments: argparse.Namespace) -> games.PreferenceGame:
    if Path(arguments.game).suffix:  # no ready-made game has a dot in its name
        game = games.load(arguments.game)
        for setting in ("actions", "seed"):
            if getattr(arguments, setting) is not None:
                raise ConfigError(f"--{setting} is for ready-made games, and {arguments.game} is a file; leave it out")
        return game
    return games.by_name(arguments.game, actions=arguments.actions, seed=arguments.seed)


def _initial(initial: str, game: games.PreferenceGame) -> NDArray[np.float64]:
    if initial == "uniform":
        return np.full(game.num_actions, 1.0 / game.num_actions)
    if initial == "skewed":
        weight = 1.0 / np.arange(1, game.num_actions + 1)
        return weight / weight.sum()
    if not Path(initial).suffix:
        raise ConfigError(f"--initial is {initial!r}, expected uniform, skewed or a file ({', '.join(SUFFIXES)})")
    return game.distribution(games.load_policy(initial), initial)


def _summary(trace: games.Trace) -> dict[str, object]:
    return {
        "game": trace.game,
        "method": trace.method,
        "updates": len(trace.duality_gap) - 1,
        "evaluations": int(trace.evaluations[-1]),
        "final_gap": float(trace.duality_gap[-1]),
        "best_gap": float(trace.duality_gap.min()),
        "average_gap": float(trace.average_gap[-1]),
        "policy": trace.policy.tolist(),
    }


def _settings(method: methods.Method) -> str:
    objective = method.objective
    parts = [f"step_size {objective.step_size:g}"]
    if objective.magnet_strength > 0:
        parts += [f"magnet_strength {objective.magnet_strength:g}", f"magnet {method.magnet.describe()}"]
    return ", ".join(parts)


def _table(trace: games.Trace, method: methods.Method, game: games.PreferenceGame, initial: str) -> str:
    updates = len(trace.duality_gap) - 1
    shown = sorted({0, updates, *(10**k for k in range(12) if 10**k < updates)})
    lines = [
        f"game     {trace.game}, {game.num_actions} action{'s' if game.num_actions != 1 else ''}, start {initial}",
        f"method   {trace.method}: {_settings(method)}; last iterate: {method.converges_to} ({method.source})",
        "",
        f"{'update':>9}  {'evaluations':>11}  {'gap':>9}  {'gap of average':>14}",
        *(
            f"{k:>9,}  {trace.evaluations[k]:>11,}  {trace.duality_gap[k]:>9.2e}  {trace.average_gap[k]:>14.2e}"
            for k in shown
        ),
        "",
        f"best gap {trace.duality_gap.min():.2e} after update {int(trace.duality_gap.argmin()):,}; "
        f"the magnet moved {len(trace.magnet_moves):,} times",
    ]
    likeliest = np.argsort(-trace.policy, kind="stable")[:LARGEST_POLICY_SHOWN]
    rest = game.num_actions - len(likeliest)
    policy = ", ".join(f"{game.actions[a]} {trace.policy[a]:.4f}" for a in likeliest)
    lines.append(f"policy   {policy}" + (f", and {rest} more" if rest else ""))
    return "\n".join(lines)


def _draw(trace: games.Trace, method: methods.Method, path: str) -> None:
    from magnetar.reports.gap_plot import GapCurve, draw_gap_plot

    draw_gap_plot([GapCurve.from_trace(trace)], path, title=f"{trace.game}: {trace.method}, {_settings(method)}")
    print(f"plot written to {path}", file=sys.stderr)


def _list(arguments: argparse.Namespace) -> int:
    del arguments  # it has no options
    print("games (options: --actions, --seed where the game has them)")
    for name, build in games.BUILDERS.items():
        print(f"  {name:<20} {_first_line(build)}")
    print("\nmethods")
    for name, make in methods.METHODS.items():
        print(f"  {name:<20} {_first_line(make)}")
    return 0


def _first_line(function: object) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
