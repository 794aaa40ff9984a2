"""Figures and numbers of the pages in docs/methods: one page for each method of the zoo.

    python benchmarks/method_pages.py                  # every page and the index: about a minute
    python benchmarks/method_pages.py mpo omwu         # these pages, and the index
    python benchmarks/method_pages.py --text           # no figures and no runs on games: what the code says

The text of a page is written by hand. What follows from the code (settings, defaults, measured gaps, commands, sources)
stands between markers ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->`` and is written by this script; so are the
figures.
"""

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
from language_model_sections import at_a_glance, common_block, run_block
from numpy.typing import NDArray

from magnetar import games
from magnetar.errors import unknown_name
from magnetar.methods import (
    METHODS,
    BradleyTerryFit,
    DirectPreference,
    Method,
    OracleObjective,
    RewardObjective,
    SampledLoss,
)
from magnetar.reports.gap_plot import GapCurve, draw_gap_plot
from magnetar.reports.simplex_plot import Trajectory, draw_simplex_plot

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "methods"
FIGURES = PAGES / "figures"

BUDGET = 4000  # evaluations of q
SHOWN = (100, 1000, BUDGET)
PATH_BUDGET = 500  # evaluations of q along the path in the simplex
POLICIES_APART, MAGNETS_APART = 5e-4, 4e-3  # probability: nearer points of a path cannot be told apart in the figure
ROUNDING = 1e-12  # gaps below this may be rounding error and differ from machine to machine


@dataclass(frozen=True)
class FixedGame:
    """A game that every page uses, and the words that name it on the command line."""

    build: Callable[[], games.PreferenceGame]
    words: str
    label: str


GAMES = (
    FixedGame(games.biased_rps, "biased_rps", "biased_rps"),
    FixedGame(lambda: games.random_game(10, seed=0), "random_game --actions 10 --seed 0", "random_game(10)"),
    FixedGame(
        lambda: games.noisy_bradley_terry(20, seed=0),
        "noisy_bradley_terry --actions 20 --seed 0",
        "noisy_bradley_terry(20)",
    ),
)

# Of each setting: symbol, range, what it does. A method's own entry (method, setting) comes before the common one.
SETTINGS: dict[str | tuple[str, str], tuple[str, str, str]] = {
    "step_size": ("η", "above 0", "how far one update moves, against staying at the policy"),
    "magnet_strength": ("α", "above 0", "pull of the magnet, in win probability per nat"),
    "magnet_every": ("T", "1, 2, …", "updates between magnet moves; ignored when `magnet` is given"),
    "magnet": ("", "a `MagnetSchedule`", "another schedule; None is `EveryNUpdates(magnet_every)`"),
    "opponent": ("", "an `Opponent`", "who plays against the responses; None is self-play, the policy itself"),
    "proximal": ("", "", "language models: what keeps an update small, a KL term or PPO's clipping"),
    "clip_range": (
        "ε",
        "in (0, 1)",
        "language models: half-width of the clipping interval; with `proximal='clip'` only",
    ),
    "kl_estimator": (
        "",
        "",
        "language models: KL terms summed over the vocabulary, or estimated from the sampled tokens",
    ),
    "shrink": ("", "in (0, 1)", "the magnet moves when a step is this short beside the first one since its last move"),
    "geometry": ("", "", "steps on probabilities, or on log-probabilities as language models take them"),
    "proximal_scale": ("κ", "above 0", "pull of the magnet, in units of its gap"),
    "loss": ("", "", "language models: how the update is learnt, by policy gradient or by regression on payoffs"),
    "target": ("", "", "language models: what a pair is regressed on: its preference, its payoffs, or its winner"),
    "pairs": ("", "", "language models: which pairs of a group are compared; games compare all"),
    "hard_labels": ("", "", "language models: whether a pair's label is its winner or its win probability"),
    "kl_coef": ("β", "above 0", "weight of KL(π‖ref), in logits of the scores per nat"),
    "reference_weight": ("m", "in [0, 1)", "weight of the reference in the mixture that plays the opponent"),
    "value_clip_range": ("c", "above 0", "language models: how far a value may move before its loss is clipped"),
    "reward_clip": ("", "above 0", "language models: scores and penalties of a token are held within ± this"),
    "discount": ("γ", "in (0, 1]", "language models: discount of later tokens' rewards"),
    "gae_lambda": ("λ", "in [0, 1]", "language models: λ of generalised advantage estimation"),
    "token_average": ("", "", "language models: average a response's loss over its tokens instead of summing"),
    "scale_rewards": ("", "", "divide advantages by the standard deviation of the rewards"),
    ("ppo", "kl_coef"): ("β", "above 0", "weight of KL(π‖ref), in reward per nat"),
    ("rloo", "kl_coef"): ("β", "above 0", "weight of KL(π‖ref), in reward per nat"),
    ("grpo", "kl_coef"): ("β", "above 0", "weight of the penalty, in standard deviations of the reward per nat"),
    ("grpo", "kl_estimator"): ("", "", "the penalty: k3, with the gradient of KL(ref‖π), or with that of KL(π‖ref)"),
    ("nash_md_pg", "magnet_strength"): (
        "β",
        "above 0",
        "pull of the reference (the paper's τ), in win probability per nat",
    ),
    ("omd", "magnet_strength"): ("β", "above 0", "pull of the reference, in win probability per nat"),
    ("online_ipo", "magnet_strength"): ("β", "above 0", "pull of the reference, in win probability per nat"),
    ("inpo", "magnet_strength"): ("β", "above 0", "pull of the reference (the paper's τ), in win probability per nat"),
    ("inpo", "step_size"): ("η", "above 0", "how far one update moves: one over the paper's η"),
    ("egpo", "magnet_strength"): ("β", "above 0", "pull of the reference, in win probability per nat"),
    ("nash_md", "magnet_strength"): (
        "β",
        "above 0",
        "pull of the reference (the paper's τ), in win probability per nat",
    ),
    ("nash_md", "step_size"): (
        "η",
        "in (0, 1/β]",
        "how far one update moves; ηβ is the reference's weight in the mixture",
    ),
    ("ogda", "step_size"): ("η", "above 0", "length of a step in probability, per unit of win probability"),
    ("hamiltonian", "step_size"): ("η", "above 0", "length of a step in logits, per unit of ∇H"),
    ("adagrad_norm", "step_size"): ("η", "above 0", "length of the first step in probability"),
}


# What objectives that ask the game itself keep from update to update, besides policy and magnet.
KEPT_BY: dict[str, tuple[str, ...]] = {
    "ActorCritic": ("the matrix P",),
    "AdaptiveMagneticDescent": ("sum of policies", "last payoffs"),
    "AdaptiveSubgradient": ("one number",),
    "BradleyTerryFit": ("the matrix P",),
    "DirectPreference": ("the matrix P",),
    "GroupRelativeGradient": ("the matrix P",),
    "HamiltonianDescent": (),
    "LeaveOneOutGradient": ("the matrix P",),
    "Recall": ("all policies and payoffs evaluated",),
}


def draw_pages(names: Sequence[str], text_only: bool = False) -> None:
    """Draw the figures of these methods and fill the markers of their pages, then the index."""
    for name in names:
        page = PAGES / f"{name}.md"
        if not page.is_file():
            raise SystemExit(f"{page} is missing: write it first, with the markers of another page")
        contents = blocks(name)
        if not text_only:
            traces = measure(name)
            draw_figures(name, traces)
            contents["measured"] = measured_block(name, traces)
        text = fill(page.read_text(encoding="utf-8"), contents)
        page.write_text(text, encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: written")
    index = PAGES / "README.md"
    contents = {"index": index_block(), "common": common_block()}
    index.write_text(fill(index.read_text(encoding="utf-8"), contents), encoding="utf-8")


def fill(text: str, contents: dict[str, str]) -> str:
    """Replace what stands between the markers of each name.

    Raises:
        ValueError: A marker that the text does not have exactly once.
    """
    for name, content in contents.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"expected the markers {begin} and {end} once each in the page that starts {text[:40]!r}")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def blocks(name: str) -> dict[str, str]:
    """What a page says that follows from the method's definition, by marker."""
    trained = {"language-model-run": run_block(name)} if METHODS[name]().games_only_because is None else {}
    return {
        "figures": figures_block(name),
        "settings": settings_block(name),
        "language-models": at_a_glance(name),
        **trained,
        "command": command_block(name),
        "source": f"Named in the code as: {METHODS[name]().source}.",
    }


@cache
def measure(name: str) -> tuple[games.Trace, ...]:
    """Curves of a run on each fixed game from the uniform policy, as long as the evaluations allow."""
    return tuple(cut(games.run(METHODS[name](), game.build(), updates=BUDGET), BUDGET) for game in GAMES)


def cut(trace: games.Trace, budget: int) -> games.Trace:
    """The part of a trace's curves that a budget pays for."""
    kept = slice(np.flatnonzero(clock(trace)[0] <= budget)[-1] + 1)
    curves = ("duality_gap", "average_gap", "evaluations", "duels")
    return dataclasses.replace(trace, **{curve: getattr(trace, curve)[kept] for curve in curves})


@cache
def path_run(name: str) -> games.Trace:
    """A recorded run on the first fixed game from the skewed policy, as long as `PATH_BUDGET` allows."""
    game = GAMES[0].build()
    start = skewed(game.num_actions)
    longest = cut(games.run(METHODS[name](), game, updates=PATH_BUDGET, initial=start), PATH_BUDGET)
    return games.run(METHODS[name](), game, updates=len(longest.evaluations) - 1, initial=start, record=True)


@cache
def costs_nothing(name: str) -> bool:
    """Whether the first update reads the whole matrix and the others nothing, so that updates are what to count."""
    game = games.random_game(5, seed=0)
    cost = games.run(METHODS[name](), game, updates=4).evaluations
    return bool(cost[-1] == cost[1] >= game.num_actions)


def clock(trace: games.Trace) -> tuple[NDArray[np.int64], str]:
    """What a run has spent after each update, and its name."""
    if costs_nothing(trace.method):
        return np.arange(len(trace.evaluations)), "updates"
    return trace.evaluations, "evaluations"


def skewed(actions: int) -> NDArray[np.float64]:
    """The command line's skewed start: action a, counted from 1, has a probability proportional to 1/a."""
    weights = 1.0 / np.arange(1, actions + 1)
    return weights / weights.sum()


def draw_figures(name: str, traces: Sequence[games.Trace]) -> None:
    """Gap against evaluations on all games from the uniform policy, and the path on the first from the skewed one."""
    FIGURES.mkdir(exist_ok=True)
    curves = [gap_curve(trace, game.label) for trace, game in zip(traces, GAMES, strict=True)]
    spent = clock(traces[0])[1].replace("evaluations", "evaluations of the payoffs")
    draw_gap_plot(curves, FIGURES / f"{name}_gap.svg", f"{name}: duality gap", x_label=spent, log_x=True)
    path = Trajectory.from_trace(path_run(name), has_magnet(METHODS[name](), path_run(name)))
    draw_simplex_plot([thinned(path)], GAMES[0].build(), FIGURES / f"{name}_path.svg")
    for figure in (FIGURES / f"{name}_gap.svg", FIGURES / f"{name}_path.svg"):
        trim_svg(figure)


def gap_curve(trace: games.Trace, label: str) -> GapCurve:
    """Curve of a run without magnet ticks; where a method stopped asking, it stays to the end of the axis."""
    spent, gap, average = clock(trace)[0], trace.duality_gap, trace.average_gap
    if spent[-1] == spent[-2]:
        spent, gap, average = np.append(spent, BUDGET), np.append(gap, gap[-1]), np.append(average, average[-1])
    return GapCurve(label, spent, gap, average)


def thinned(path: Trajectory) -> Trajectory:
    """The path without points that lie on top of the one before."""
    magnets = None if path.magnets is None else apart(path.magnets, MAGNETS_APART)
    return dataclasses.replace(path, policies=apart(path.policies, POLICIES_APART), magnets=magnets)


def apart(points: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """The first point, the last, and those between that are some way from the last one kept."""
    kept = [points[0]]
    kept.extend(point for point in points[1:-1] if np.abs(point - kept[-1]).max() >= distance)
    return np.array([*kept, points[-1]])


def trim_svg(path: Path) -> None:
    """Round coordinates to a hundredth of a point, which no eye sees and which makes the file smaller."""
    text = re.sub(r"(?<![\w#.])-?\d+\.\d{3,}", rounded, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


def rounded(number: re.Match[str]) -> str:
    """A number of an SVG file with two decimals, or with four where it is a scale or another small number."""
    value = float(number[0])
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def has_magnet(method: Method, trace: games.Trace) -> bool:
    """Whether a magnet or a fixed reference pulled on the policy."""
    named = bool(getattr(method.objective, "needs_magnet", False))
    return (
        named
        or isinstance(method.objective, (BradleyTerryFit, DirectPreference, RewardObjective))
        or len(trace.magnet_moves) > 0
    )


def figures_block(name: str) -> str:
    """The two figures, side by side where there is room."""
    return (
        f"![{name}: duality gap against evaluations of the payoffs on three games](figures/{name}_gap.svg)\n"
        f"![{name}: path of the policy on biased rock–paper–scissors](figures/{name}_path.svg)"
    )


def measured_block(name: str, traces: Sequence[games.Trace]) -> str:
    """Gaps after some numbers of evaluations, on each fixed game."""
    regularized = METHODS[name]().converges_to == "regularised equilibrium"
    head = ["game", *(f"last iterate, {shown:,}" for shown in SHOWN), "worst of the last tenth", f"average, {BUDGET:,}"]
    head += [f"last iterate, regularised game, {BUDGET:,}"] if regularized else []
    rows = []
    for trace, game in zip(traces, GAMES, strict=True):
        last = [trace.duality_gap[np.flatnonzero(clock(trace)[0] <= shown)[-1]] for shown in SHOWN]
        tail = trace.duality_gap[-max(1, (len(trace.duality_gap) - 1) // 10) :].max()
        values = [*last, tail, trace.average_gap[-1]]
        if regularized:
            values.append(regularised_gap(METHODS[name](), game.build(), len(trace.evaluations) - 1))
        rows.append([f"`{game.build().name}`", *(number(value) for value in values)])
    return (
        "Duality gap in the original game, from the uniform policy; the columns count "
        f"{clock(traces[0])[1].replace('evaluations', 'evaluations of q')}\n"
        "([how to read this](README.md#how-to-read-figures-and-tables)).\n\n"
    ) + table(head, rows)


def regularised_gap(method: Method, game: games.PreferenceGame, updates: int) -> float:
    """Gap of the last policy in the game regularised towards the uniform policy, where the run starts."""
    uniform = np.full(game.num_actions, 1 / game.num_actions)
    strength = inspect.signature(METHODS[method.name]).parameters["magnet_strength"].default
    return game.regularized_gap(games.run(method, game, updates=updates).policy, uniform, strength)


def number(value: float) -> str:
    """Two digits, or that the value is rounding error."""
    return f"{value:.2g}" if value >= 1e-3 else "rounding error" if value < ROUNDING else f"{value:.1e}"


def settings_block(name: str) -> str:
    """Table of the settings, defaults read from the signature."""
    rows = []
    for key, parameter in inspect.signature(METHODS[name]).parameters.items():
        entry = SETTINGS.get((name, key), SETTINGS.get(key))
        if entry is None:
            raise ValueError(f"setting {key!r} of {name} has no symbol, range and meaning; add them to SETTINGS")
        symbol, allowed, meaning = entry
        if get_origin(parameter.annotation) is Literal:
            allowed = " or ".join(f"`{option!r}`" for option in get_args(parameter.annotation))
        rows.append([f"`{key}`", symbol or "–", f"`{parameter.default!r}`", allowed, meaning])
    return table(["name", "symbol", "default", "range", "what it does"], rows)


def command_block(name: str) -> str:
    """Commands that reproduce the figures."""
    start, lines = f"magnetar games run --method {name} --game", []
    for index, game in enumerate(GAMES):
        updates = BUDGET if costs_nothing(name) else len(measure(name)[index].evaluations) - 1
        lines.append(f"{start} {game.words} --initial uniform --updates {updates} --plot gap.svg")
    updates = len(path_run(name).evaluations) - 1
    lines.append(f"{start} {GAMES[0].words} --initial skewed --updates {updates} --simplex path.svg")
    lines.append(f"python benchmarks/method_pages.py {name}  # this page: both figures, all numbers")
    return "\n".join(["```bash", *lines, "```"])


def index_block() -> str:
    """Table of all methods."""
    rows = []
    for name, make in METHODS.items():
        method = make()
        rows.append(
            [
                f"[`{name}`]({name}.md)",
                method.converges_to,
                evaluations_words(method),
                memory_words(method),
                "average of all" if method.converges_to == "average only" else "one",
                "yes" if method.games_only_because is None else "loss only" if has_loss(method) else "no",
                method.source,
            ]
        )
    head = ["method", "last iterate reaches", "evaluations an update", "kept between updates", "models to serve"]
    return table([*head, "language models", "source"], rows)


def has_loss(method: Method) -> bool:
    """Whether the objective exists as a loss on sampled responses."""
    return isinstance(method.objective, SampledLoss)


def evaluations_words(method: Method) -> str:
    """Evaluations of q that an update costs, as counted by the runner in the first ten updates on a game."""
    game = games.random_game(50, seed=0)
    first, *rest = np.diff(games.run(method, game, updates=10).evaluations)
    each = str(min(rest)) if min(rest) == max(rest) else f"{min(rest)} to {max(rest)}"
    once = first - max(rest)
    return each if once <= 0 else f"{each}, and {'A' if once == game.num_actions else once} once"


def memory_words(method: Method) -> str:
    """What the method keeps from update to update besides the policy."""
    kept = []
    trace = games.run(method, games.random_game(5, seed=0), updates=100)
    if has_magnet(method, trace):
        kept.append("magnet" if len(trace.magnet_moves) > 0 else "reference")
    if method.prediction == "optimistic":
        kept.append("last payoffs")
    if isinstance(method.objective, OracleObjective):
        kind = type(method.objective).__name__
        if kind not in KEPT_BY:
            raise ValueError(f"what {kind} keeps between updates is not known; add it to KEPT_BY")
        kept.extend(KEPT_BY[kind])
    return ", ".join(["policy", *kept])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="methods whose pages to redraw (default: all)")
    parser.add_argument("--text", action="store_true", help="write only what follows from the code, no figures")
    arguments = parser.parse_args()
    names = arguments.methods or list(METHODS)
    for name in names:
        if name not in METHODS:
            raise SystemExit(unknown_name("method", name, METHODS))
    draw_pages(names, arguments.text)


if __name__ == "__main__":
    main()
