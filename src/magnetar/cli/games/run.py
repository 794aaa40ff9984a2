"""``magnetar games run``: one method on one game."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magnetar import games
from magnetar.errors import ConfigError, unknown_name
from magnetar.games.builders.files import SUFFIXES
from magnetar.games.comparison.choices import MethodChoice, check_updates, choose_method, starting_policy
from magnetar.games.settings import read_settings, setting_text, split_spec

__all__ = ["main"]

LARGEST_POLICY_SHOWN = 10
PLOT_TITLE_WIDTH = 64  # characters that fit above the plot
SHORTHANDS = {
    "step_size": (float, "ETA", "step size"),
    "magnet_strength": (float, "ALPHA", "pull of the magnet"),
    "magnet_every": (int, "N", "updates between magnet moves"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Words after ``magnetar games run``.

    Returns:
        0.

    Raises:
        MagnetarError: Input that cannot be used.
    """
    arguments = _parser().parse_args(argv)
    choice = _method(arguments)
    check_updates(arguments.updates)
    game = _game(arguments)
    initial = _initial(arguments.initial, game)
    _check_pictures(arguments, game)
    trace = games.run(
        choice.method,
        game,
        updates=arguments.updates,
        initial=initial,
        feedback=_feedback(arguments.feedback),
        record=arguments.simplex is not None,
        progress=not arguments.json and sys.stderr.isatty(),
    )
    if arguments.json:
        print(json.dumps(_summary(trace), allow_nan=False))
    else:
        print(_table(trace, choice, game, arguments.initial, arguments.feedback))
    _draw(trace, choice, game, arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="magnetar games run", description="Run a method on an exact preference game.", allow_abbrev=False
    )
    parser.add_argument("--game", default="rps", metavar="GAME", help="a ready-made game, alone or with settings such "
                        "as random:actions=100,seed=3, or a file of win probabilities; see `magnetar games list` "
                        "(default: rps)")  # fmt: skip
    parser.add_argument("--actions", type=int, metavar="N", help="number of actions, for games that take one")
    parser.add_argument("--seed", type=int, metavar="N", help="seed, for random games")
    parser.add_argument("--method", default="mpo", metavar="NAME", help="see `magnetar games list` (default: mpo)")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
                        help="settings of the method, for instance step_size=0.5")  # fmt: skip
    for name, (kind, metavar, text) in SHORTHANDS.items():
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", type=kind, metavar=metavar,
                            help=f"{text}: short for --set {name}={metavar}")  # fmt: skip
    parser.add_argument("--updates", type=int, default=1000, metavar="N", help="number of updates (default: 1000)")
    parser.add_argument("--initial", default="skewed", metavar="uniform|skewed|FILE",
                        help="starting policy, which is also the first magnet. skewed (default) gives action a, "
                        "counted from 1, a probability proportional to 1/a: uniform is already the equilibrium of a "
                        "symmetric game such as rps and would show nothing. FILE holds one row of "
                        "probabilities")  # fmt: skip
    parser.add_argument("--feedback", default="exact", metavar="exact|sampled", help="payoffs as the method sees them: "
                        "exact (default), or estimated from duels, alone or with settings such as "
                        "sampled:opponents=32,responses=16,seed=1")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--plot", metavar="FILE", help="draw gap against evaluations (.png, .svg or .pdf)")
    parser.add_argument("--simplex", metavar="FILE", help="draw the path of the policy and of the magnet, for games of "
                        "three actions (.png, .svg or .pdf)")  # fmt: skip
    return parser


def _method(arguments: argparse.Namespace) -> MethodChoice:
    if ":" in arguments.method:
        raise ConfigError(f"--method is {arguments.method!r}, expected a name alone; give settings by --set NAME=VALUE")
    short = [f"{name}={getattr(arguments, name)}" for name in SHORTHANDS if getattr(arguments, name) is not None]
    words = [*arguments.set, *short]
    return choose_method(f"{arguments.method}:{','.join(words)}" if words else arguments.method)


def _game(arguments: argparse.Namespace) -> games.PreferenceGame:
    if Path(arguments.game).suffix and ":" not in arguments.game:  # no ready-made game has a dot in its name
        game = games.load(arguments.game)
        for setting in ("actions", "seed"):
            if getattr(arguments, setting) is not None:
                raise ConfigError(f"--{setting} is for ready-made games, and {arguments.game} is a file; leave it out")
        return game
    return games.by_name(arguments.game, actions=arguments.actions, seed=arguments.seed)


def _feedback(spec: str) -> games.SampledFeedback | None:
    kind, settings = split_spec(spec, ConfigError)
    if kind not in ("exact", "sampled"):
        raise ConfigError(unknown_name("feedback", kind, ("exact", "sampled")))
    if kind == "exact":
        if settings:
            raise ConfigError(f"--feedback is {spec!r}, but exact payoffs have no settings; write exact alone")
        return None
    return games.SampledFeedback(**read_settings("feedback", kind, games.SampledFeedback, settings, ConfigError))


def _initial(initial: str, game: games.PreferenceGame) -> NDArray[np.float64]:
    if initial == "uniform" or initial == "skewed":
        return starting_policy(initial, game.num_actions)
    if not Path(initial).suffix:
        raise ConfigError(f"--initial is {initial!r}, expected uniform, skewed or a file ({', '.join(SUFFIXES)})")
    return game.distribution(games.load_policy(initial), initial)


def _check_pictures(arguments: argparse.Namespace, game: games.PreferenceGame) -> None:
    """Refuse pictures that could not be drawn before the run."""
    if arguments.plot is None and arguments.simplex is None:
        return  # matplotlib loads only for those who draw
    from magnetar.reports.plot_style import check_plot_path
    from magnetar.reports.simplex_plot import check_three_actions

    for path in (arguments.plot, arguments.simplex):
        if path is not None:
            check_plot_path(path)
    if arguments.simplex is not None:
        check_three_actions(game.num_actions, game.name)


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
        **({"duels": int(trace.duels[-1])} if trace.duels[-1] else {}),
    }


def _settings(choice: MethodChoice) -> str:
    words = [f"{key} {setting_text(value)}" for key, value in choice.all_settings.items() if value is not None]
    return ", ".join(words)


def _table(trace: games.Trace, choice: MethodChoice, game: games.PreferenceGame, initial: str, feedback: str) -> str:
    updates = len(trace.duality_gap) - 1
    method = choice.method
    shown = sorted({0, updates, *(10**k for k in range(12) if 10**k < updates)})
    lines = [
        f"game     {trace.game}, {game.num_actions} action{'s' if game.num_actions != 1 else ''}, start {initial}"
        + (f", payoffs {feedback}" if feedback != "exact" else ""),
        f"method   {trace.method}: {_settings(choice)}; last iterate: {method.converges_to} ({method.source})",
        "",
        f"{'update':>9}  {'evaluations':>11}  {'gap':>9}  {'gap of average':>14}",
        *(
            f"{k:>9,}  {trace.evaluations[k]:>11,}  {trace.duality_gap[k]:>9.2e}  {trace.average_gap[k]:>14.2e}"
            for k in shown
        ),
        "",
        f"best gap {trace.duality_gap.min():.2e} after update {int(trace.duality_gap.argmin()):,}; "
        f"the magnet moved {len(trace.magnet_moves):,} times"
        + (f"; {trace.duels[-1]:,} duels" if trace.duels[-1] else ""),
    ]
    if method.converges_to == "original equilibrium" and trace.duality_gap[-1] > trace.average_gap[-1] > 1e-9:
        lines.append("still on its way: the average is nearer than the last policy; more updates, or mpo_adaptive")
    likeliest = np.argsort(-trace.policy, kind="stable")[:LARGEST_POLICY_SHOWN]
    rest = game.num_actions - len(likeliest)
    policy = ", ".join(f"{game.actions[a]} {trace.policy[a]:.4f}" for a in likeliest)
    lines.append(f"policy   {policy}" + (f", and {rest} more" if rest else ""))
    return "\n".join(lines)


def _draw(trace: games.Trace, choice: MethodChoice, game: games.PreferenceGame, arguments: argparse.Namespace) -> None:
    if arguments.plot is not None:
        from magnetar.reports.gap_plot import GapCurve, draw_gap_plot

        title = f"{trace.game}\n" + textwrap.fill(f"{trace.method}, {_settings(choice)}", PLOT_TITLE_WIDTH)
        draw_gap_plot([GapCurve.from_trace(trace)], arguments.plot, title)
        print(f"plot written to {arguments.plot}", file=sys.stderr)
    if arguments.simplex is not None:
        from magnetar.reports.simplex_plot import Trajectory, draw_simplex_plot

        draw_simplex_plot([Trajectory.from_trace(trace, choice.has_magnet)], game, arguments.simplex)
        print(f"picture written to {arguments.simplex}", file=sys.stderr)
