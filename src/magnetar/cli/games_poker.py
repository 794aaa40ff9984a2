"""``magnetar games poker``: last iterates on poker in extensive form, from exact values and by sampled self-play."""

import argparse
import inspect
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from magnetar import methods
from magnetar.cli.games_poker_figure import PokerCurve, draw_poker_figure
from magnetar.cli.stop_signals import stop_signals
from magnetar.errors import ConfigError, MagnetarError
from magnetar.games import extensive
from magnetar.games.extensive.exact import check_tremble
from magnetar.games.extensive.openspiel import MAX_HISTORIES, MAX_INFOSTATES
from magnetar.reports.plot_style import check_plot_path

__all__ = ["main"]

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("kuhn_poker", "exact"): {"step_size": 1.0, "magnet_strength": 0.1, "magnet_every": 30, "tremble": 0.0},
    ("kuhn_poker", "sampled"): {"step_size": 1.0, "magnet_strength": 0.1, "magnet_every": 20, "tremble": 0.0},
    ("leduc_poker", "exact"): {"step_size": 2.0, "magnet_strength": 0.02, "magnet_every": 100, "tremble": 1e-3},
    ("leduc_poker", "sampled"): {"step_size": 1.0, "magnet_strength": 0.05, "magnet_every": 100, "tremble": 1e-2},
}
SELF_PLAY = {
    "kuhn_poker": {"episodes": 4096, "learning_rate": 2e-3},
    "leduc_poker": {"episodes": 16384, "learning_rate": 1e-3},
}
USUAL = "kuhn_poker"  # whose settings other games start from
LABELS = {
    ("exact", "mpo"): "MPO",
    ("exact", "mpo_rt"): "MPO-RT",
    ("exact", "mmd"): "MMD, fixed magnet",
    ("exact", "mirror_descent"): "self-play, no magnet",
    ("sampled", "mpo"): "MPO",
    ("sampled", "mpo_rt"): "MPO-RT",
    ("sampled", "mmd"): "MMD, fixed magnet",
    ("sampled", "mirror_descent"): "PPO-style self-play",
}


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Words after ``magnetar games poker``.

    Returns:
        Exit code: 0 done, 2 input that cannot be used, 130 (SIGINT) or 143 (SIGTERM) interrupted after
            writing what was finished.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except MagnetarError as error:
        print(f"magnetar games poker: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="magnetar games poker", allow_abbrev=False,
        description="Exploitability of the last iterate on an OpenSpiel game, by OpenSpiel's own function: methods in "
        "behavioural form with exact values, and a small network by sampled self-play; CFR as a yardstick.",
    )  # fmt: skip
    add = parser.add_argument
    add("--game", default="kuhn_poker", metavar="NAME", help="an OpenSpiel game of two players, zero sum, perfect "
        "recall, small enough to list (default: kuhn_poker; leduc_poker takes minutes)")  # fmt: skip
    add("--max_infostates", "--max-infostates", type=int, default=MAX_INFOSTATES, metavar="N",
        help=f"refuse games with more information states (default: {MAX_INFOSTATES})")  # fmt: skip
    add("--max_histories", "--max-histories", type=int, default=MAX_HISTORIES, metavar="N",
        help=f"refuse games with more histories (default: {MAX_HISTORIES})")  # fmt: skip
    add("--methods", nargs="+", default=["mpo", "mmd", "mirror_descent"], metavar="NAME",
        help="default: mpo mmd mirror_descent")  # fmt: skip
    add("--feedback", choices=("exact", "sampled", "both"), default="both", help="default: both")
    add("--updates", type=int, default=1000, metavar="N", help="updates with exact values (default: 1000)")
    add("--sampled_updates", "--sampled-updates", type=int, default=400, metavar="N",
        help="updates of the network (default: 400)")  # fmt: skip
    add("--seeds", type=int, default=3, metavar="N", help="sampled runs of each method (default: 3)")
    add("--episodes", type=int, metavar="N", help="episodes sampled for each update (default: 4096, leduc_poker 16384)")
    add("--learning_rate", "--learning-rate", type=float, metavar="RATE",
        help="of Adam, for the network (default: 0.002, leduc_poker 0.001)")  # fmt: skip
    add("--step_size", "--step-size", type=float, metavar="ETA", help=_preset_help("step_size"))
    add("--magnet_strength", "--magnet-strength", type=float, metavar="ALPHA", help=_preset_help("magnet_strength"))
    add("--magnet_every", "--magnet-every", type=int, metavar="N", help=_preset_help("magnet_every"))  # fmt: skip
    add("--tremble", type=float, metavar="EPSILON", help="above 0: also run each method that moves its magnet with "
        "this much uniform play mixed into it; " + _preset_help("tremble"))  # fmt: skip
    add("--plot", metavar="FILE", help="draw the curves (.png, .svg or .pdf)")
    add("--json", metavar="FILE", help="write the curves and settings")
    return parser


def _preset_help(setting: str) -> str:
    values = (f"{preset[setting]:g} ({game}, {feedback})" for (game, feedback), preset in PRESETS.items())
    return "default: " + ", ".join(values)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.plot is not None:
        check_plot_path(arguments.plot)
    if arguments.json is not None:
        _check_json_path(Path(arguments.json))
    for name in ("updates", "sampled_updates"):
        if getattr(arguments, name) < 0:
            raise ConfigError(f"--{name} is {getattr(arguments, name)}, expected at least 0")
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds is {arguments.seeds}, expected at least 1")
    game = extensive.load_game(
        arguments.game, max_infostates=arguments.max_infostates, max_histories=arguments.max_histories
    )
    plan = _plan(arguments, game)
    curves: list[PokerCurve] = []
    stopped_by = 0
    try:
        with stop_signals():
            for run in plan:
                run(curves)
    except KeyboardInterrupt as stop:
        stopped_by = getattr(stop, "signal_number", signal.SIGINT)
    if curves:
        print(_table(game, curves))
    if arguments.json is not None and curves:
        _write_json(Path(arguments.json), game, curves)
    if arguments.plot is not None and curves:
        draw_poker_figure(curves, arguments.plot, f"{game.name}: exploitability by OpenSpiel's own function")
        print(f"plot written to {arguments.plot}", file=sys.stderr)
    if stopped_by:
        print(f"magnetar games poker: interrupted; {len(curves)} finished curves kept", file=sys.stderr)
        return 128 + stopped_by
    return 0


def _plan(arguments: argparse.Namespace, game: extensive.ExtensiveGame) -> list[Callable[[list[PokerCurve]], None]]:
    """Every run, built (and refused) before the first one starts; a run appends its curve."""
    settings = extensive.SelfPlaySettings(**_chosen(arguments, SELF_PLAY.get(arguments.game, SELF_PLAY[USUAL])))
    measure = extensive.Exploitability(game)
    progress = sys.stderr.isatty()
    plan: list[Callable[[list[PokerCurve]], None]] = []
    feedbacks = ("exact", "sampled") if arguments.feedback == "both" else (arguments.feedback,)
    for feedback in feedbacks:
        wanted = _chosen(arguments, PRESETS.get((arguments.game, feedback), PRESETS[USUAL, feedback]))
        tremble = wanted.pop("tremble")
        check_tremble(tremble)
        for name in dict.fromkeys(arguments.methods):
            method = _method(name, feedback, wanted)
            (extensive.behavioural_form if feedback == "exact" else extensive.sampled_form)(method)
            moves = not isinstance(method.magnet, methods.FixedMagnet)
            for epsilon in dict.fromkeys((0.0, tremble if moves else 0.0)):
                if feedback == "exact":
                    plan.append(_exact_run(method, game, arguments.updates, epsilon, measure, progress))
                else:
                    plan.append(_sampled_run(method, game, arguments, settings, epsilon, measure, progress))
        if feedback == "exact":
            plan.append(_cfr_run(game, arguments.updates, measure, progress))
    return plan


def _chosen(arguments: argparse.Namespace, preset: dict[str, Any]) -> dict[str, Any]:
    """The preset, with what was asked for in its place."""
    return {key: value if getattr(arguments, key) is None else getattr(arguments, key) for key, value in preset.items()}


def _method(name: str, feedback: str, wanted: dict[str, Any]) -> methods.Method:
    accepted = inspect.signature(methods.METHODS[name]).parameters if name in methods.METHODS else {}
    settings = {key: value for key, value in wanted.items() if key in accepted}
    if feedback == "sampled" and name == "mirror_descent":
        settings["proximal"] = "clip"  # as PPO does
    elif feedback == "sampled" and "kl_estimator" in accepted:
        settings["kl_estimator"] = "exact"  # over the legal actions of each information state on the way
    return methods.build_method(name, **settings)


def _exact_run(
    method: methods.Method, game: extensive.ExtensiveGame, updates: int, tremble: float,
    measure: extensive.Exploitability, progress: bool,
) -> Callable[[list[PokerCurve]], None]:  # fmt: skip
    def run(curves: list[PokerCurve]) -> None:
        average = method.converges_to == "average only"
        trace = extensive.run_exact(
            method, game, updates, tremble=tremble, average=average, measure=measure, progress=progress
        )
        curves.append(_curve("exact", method, tremble, [trace], {}))

    return run


def _sampled_run(
    method: methods.Method, game: extensive.ExtensiveGame, arguments: argparse.Namespace,
    settings: extensive.SelfPlaySettings, tremble: float, measure: extensive.Exploitability, progress: bool,
) -> Callable[[list[PokerCurve]], None]:  # fmt: skip
    def run(curves: list[PokerCurve]) -> None:
        traces: list[extensive.ExtensiveTrace] = []
        try:
            for seed in range(arguments.seeds):
                traces.append(
                    extensive.run_sampled(
                        method, game, arguments.sampled_updates, seed=seed, settings=settings, tremble=tremble,
                        measure=measure, progress=progress,
                    )
                )  # fmt: skip
        finally:  # an interruption keeps the seeds that are done
            if traces:
                curves.append(_curve("sampled", method, tremble, traces, vars(settings)))

    return run


def _cfr_run(
    game: extensive.ExtensiveGame, updates: int, measure: extensive.Exploitability, progress: bool
) -> Callable[[list[PokerCurve]], None]:
    def run(curves: list[PokerCurve]) -> None:
        trace = extensive.run_cfr(game, updates, measure=measure, progress=progress)
        last, average = trace.exploitability[None], trace.average_exploitability
        curves.append(PokerCurve("exact", "cfr", "CFR, average policy", trace.updates, last, average, {}))

    return run


def _curve(
    feedback: str, method: methods.Method, tremble: float, traces: list[extensive.ExtensiveTrace],
    extra: dict[str, object],
) -> PokerCurve:  # fmt: skip
    label = LABELS.get((feedback, method.name), method.name)
    settings: dict[str, object] = {**method.settings, **extra}
    if tremble > 0:
        label, settings = f"{label}, trembling magnet", {**settings, "tremble": tremble}
    return PokerCurve(
        feedback=feedback,
        method=method.name + ("+tremble" if tremble > 0 else ""),
        label=label,
        updates=traces[0].updates,
        last=np.stack([trace.exploitability for trace in traces]),
        average=traces[0].average_exploitability,
        settings=settings,
    )


def _table(game: extensive.ExtensiveGame, curves: Sequence[PokerCurve]) -> str:
    width = max(len(curve.label) for curve in curves)
    lines = [
        f"{game.name}: {game.num_infostates} information states, {len(game.node_kind):,} histories, payoffs within "
        f"±{game.payoff_bound:g} chips",
        "exploitability in chips per game (NashConv, the duality gap, is twice it); sampled: median [range] over seeds",
        "",
        f"{'feedback':<8}  {'method':<{width}}  {'updates':>7}  {'start':>9}  {'last iterate':<30}  average",
    ]
    for curve in curves:
        last = curve.last[:, -1]
        text = f"{np.median(last):.2e}" + (f" [{last.min():.2e}, {last.max():.2e}]" if len(last) > 1 else "")
        average = "" if curve.average is None else f"{curve.average[-1]:.2e}"
        lines.append(
            f"{curve.feedback:<8}  {curve.label:<{width}}  {curve.updates[-1]:>7,}  {np.median(curve.last[:, 0]):>9.2e}"
            f"  {text:<30}  {average}".rstrip()
        )
    return "\n".join(lines)


def _check_json_path(path: Path) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"json file {path}: no folder {path.parent}; create it first")
    if path.is_dir():
        raise ConfigError(f"json file {path} is a folder, expected a file name")


def _write_json(path: Path, game: extensive.ExtensiveGame, curves: Sequence[PokerCurve]) -> None:
    record = {
        "game": game.name,
        "infostates": game.num_infostates,
        "payoff_bound": game.payoff_bound,
        "unit": "exploitability, chips per game; NashConv is twice it",
        "curves": [
            {
                "feedback": curve.feedback,
                "method": curve.method,
                "label": curve.label,
                "settings": curve.settings,
                "updates": curve.updates.tolist(),
                "exploitability": curve.last.tolist(),
                "average_exploitability": None if curve.average is None else curve.average.tolist(),
            }
            for curve in curves
        ],
    }
    try:
        path.write_text(json.dumps(record, allow_nan=False, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(f"json file {path} cannot be written: {error}") from error
