"""What noise does to the last iterate: figures and tables of docs/sampled_feedback.md.

    python benchmarks/sampled_feedback.py            # two minutes of one free core; prints the tables
    python benchmarks/sampled_feedback.py --write    # also redraws docs/figures and the tables of the page
    python benchmarks/sampled_feedback.py --only opponents steps

A level is the duality gap of the last iterate, exact whatever the method saw, averaged over the second half of a run
(the last quarter for networks) and over seeds.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from magnetar import games, methods
from magnetar.games.neural import GroupFeedback, GroupSampling, MLPPolicy, OptimizerSettings, run_neural
from magnetar.games.play.feedback import SampledFeedback
from magnetar.methods import Method

DOCS = Path(__file__).parents[1] / "docs"
GAME = games.random_game(10, seed=0)
STRENGTH = 0.1
SEEDS = range(3)
OPPONENTS = (1, 4, 16, 64, 256)
COLORS = {"mpo": "#c1272d", "mpo_rt": "#e08214", "mmd": "#2166ac", "egpo": "#67a9cf", "mirror_descent": "#666666"}
COLORS |= {"omwu": "#4d9221", "extragradient": "#a6d96a"}

Table = list[list[str]]
Result = tuple[Table, Figure | None]


def level(method: Method, updates: int, feedback: Callable[[int], SampledFeedback] | None) -> float:
    """Mean gap over the second half of a tabular run; ``feedback`` makes one for each seed."""
    if feedback is None:
        return float(games.run(method, GAME, updates).duality_gap[updates // 2 :].mean())
    gaps = [games.run(method, GAME, updates, feedback=feedback(seed)).duality_gap for seed in SEEDS]
    return float(np.mean([gap[updates // 2 :].mean() for gap in gaps]))


def settings(step_size: float = 0.2) -> dict[str, Method]:
    """The methods, all with one step size and, where they have a magnet, one strength."""
    return {
        "mpo": methods.mpo(step_size, STRENGTH, magnet_every=50),
        "mpo_rt": methods.mpo_rt(step_size, STRENGTH, magnet_every=50),
        "mmd": methods.mmd(step_size, STRENGTH),
        "egpo": methods.egpo(step_size, STRENGTH),
        "mirror_descent": methods.mirror_descent(step_size),
        "omwu": methods.omwu(step_size),
        "extragradient": methods.extragradient(step_size),
    }


def by_opponents() -> Result:
    """Level of every method against the opponents that an evaluation meets."""
    updates = 4000
    header = ["method", *(f"{count} opponent{'s' if count > 1 else ''}" for count in OPPONENTS), "exact"]
    rows, figure, axes = [header], *new_figure(2)
    for name, method in settings().items():
        levels = [level(method, updates, lambda seed, m=m: SampledFeedback(m, seed=seed)) for m in OPPONENTS]
        exact = level(method, updates, None)
        rows.append([f"`{name}`", *map(shown, [*levels, exact])])
        axes[0].plot(OPPONENTS, levels, "o-", color=COLORS[name], label=name, markersize=4)
        axes[0].axhline(exact, color=COLORS[name], linewidth=0.7, linestyle=":")
    label(axes[0], "opponents that each action meets in an evaluation", "duality gap of the last iterate")
    axes[0].set(xscale="log", yscale="log")
    axes[0].set_xticks(OPPONENTS, [str(count) for count in OPPONENTS])
    axes[0].legend(fontsize=8, frameon=False)
    for name in ("mirror_descent", "mmd", "mpo"):
        trace = games.run(settings()[name], GAME, updates, feedback=SampledFeedback(64))
        axes[1].plot(trace.duality_gap, color=COLORS[name], label=name, linewidth=1)
    label(axes[1], "updates, 64 opponents each", "")
    axes[1].set(yscale="log")
    axes[1].legend(fontsize=8, frameon=False)
    return rows, figure


def by_step() -> Result:
    """MPO's level against its step size, the time η · updates and the time between magnet moves kept."""
    counts = (16, 64, 256)
    sizes = (0.8, 0.4, 0.2, 0.1, 0.05)
    rows: Table = [["η", *(f"{count} opponents" for count in counts), "exact"]]
    table = []
    for eta in sizes:
        method, updates = methods.mpo(eta, STRENGTH, magnet_every=round(10 / eta)), round(600 / eta)
        noisy = [level(method, updates, lambda seed, m=count: SampledFeedback(m, seed=seed)) for count in counts]
        table.append([*noisy, level(method, updates, None)])
    rows += [[f"{eta:g}", *map(shown, line)] for eta, line in zip(sizes, table, strict=True)]
    figure, axes = new_figure(1)
    for column, count in enumerate(counts):
        shade = ("#f4a582", "#d6604d", "#8b0000")[column]
        axes[0].plot(sizes, [line[column] for line in table], "o-", color=shade, label=f"{count} opponents")
    axes[0].plot(sizes, [line[-1] for line in table], ":", color="#666666", label="exact")
    label(axes[0], "step size η", "duality gap of MPO's last iterate")
    axes[0].set(xscale="log", yscale="log")
    axes[0].set_xticks(sizes, [f"{eta:g}" for eta in sizes])
    axes[0].minorticks_off()
    axes[0].legend(fontsize=8, frameon=False)
    return rows, figure


def by_moves() -> Result:
    """MPO's level against the updates between two moves of its magnet."""
    intervals = (5, 20, 50, 100, 200, 400)
    rows: Table = [["updates between moves", *(str(every) for every in intervals)]]
    for count in (16, 64, 256, None):
        levels = [
            level(
                methods.mpo(0.2, STRENGTH, magnet_every=every),
                4000,
                None if count is None else lambda seed, m=count: SampledFeedback(m, seed=seed),
            )
            for every in intervals
        ]
        rows.append(["exact" if count is None else f"{count} opponents", *map(shown, levels)])
    return rows, None


def by_theory() -> Result:
    """KL from the regularised equilibrium that a fixed magnet allows, beside the closed form."""
    uniform = np.full(GAME.num_actions, 1.0 / GAME.num_actions)
    rows: Table = [["η", "α", "opponents", "measured KL (nats)", "closed form"]]
    for eta, strength, count in ((0.1, 0.3, 32), (0.2, 0.3, 32), (0.1, 0.3, 128), (0.1, 0.1, 32), (0.4, 0.1, 32)):
        target = GAME.regularized_equilibrium(uniform, strength)
        measured = []
        for seed in range(6):
            trace = games.run(
                methods.mmd(eta, strength),
                GAME,
                round(100 / eta),
                initial=target,
                reference=uniform,
                feedback=SampledFeedback(count, seed=seed),
                record=True,
            )
            assert trace.policies is not None
            late = trace.policies[len(trace.policies) // 4 :]
            measured.append((target * np.log(target / late)).sum(-1).mean())
        expected = eta * noise_variance(target, count) / (4 * strength + 2 * eta * strength**2)
        rows.append([f"{eta:g}", f"{strength:g}", str(count), f"{np.mean(measured):.2e}", f"{expected:.2e}"])
    return rows, None


def noise_variance(policy: NDArray[np.float64], opponents: int) -> float:
    """``E Var_π(q̂ − q)`` when every action meets the same draws of π."""
    payoff = GAME.P @ policy
    covariance = (GAME.P * policy) @ GAME.P.T - np.outer(payoff, payoff)
    np.fill_diagonal(covariance, payoff * (1.0 - payoff))
    return float(policy @ np.diag(covariance) - policy @ covariance @ policy) / opponents


def by_groups() -> Result:
    """MPO's level when only a group drawn from the policy is judged, as with a language model."""
    sizes = (8, 16, 32, 64)
    rows: Table = [["", *(f"G = {size} ({size * (size - 1) // 2} duels)" for size in sizes)]]
    for exploration in (0.0, 0.02, 0.1):
        levels = [
            level(
                methods.mpo(0.05, STRENGTH, magnet_every=200),
                4000,
                lambda seed, g=size, x=exploration: SampledFeedback(responses=g, exploration=x, seed=seed),
            )
            for size in sizes
        ]
        rows.append([f"γ = {exploration:g}", *map(shown, levels)])
    # The opponents for each action that cost the same number of duels.
    equal = [max(1, round(size * (size - 1) / 2 / GAME.num_actions)) for size in sizes]
    method = methods.mpo(0.05, STRENGTH, magnet_every=200)
    matched = [level(method, 4000, lambda seed, m=count: SampledFeedback(m, seed=seed)) for count in equal]
    rows.append(["every action judged, as many duels", *map(shown, matched)])
    return rows, None


def by_network() -> Result:
    """Level of a small network trained on groups of judged samples."""
    sizes, updates = (8, 32, 128), 400
    mpo = methods.mpo(1.0, STRENGTH, magnet_every=40)
    adam = OptimizerSettings("adam", learning_rate=0.003, inner_steps=4)
    sgd = OptimizerSettings("sgd", learning_rate=0.05, inner_steps=4)
    chosen: dict[str, tuple[Method, OptimizerSettings]] = {
        "mpo": (mpo, adam),
        "mmd": (methods.mmd(1.0, STRENGTH), adam),
        "mirror_descent": (methods.mirror_descent(1.0), adam),
        "mpo by SGD": (mpo, sgd),
    }

    def gaps(name: str, feedback: GroupFeedback | None, seed: int) -> NDArray[np.float64]:
        method, optimizer = chosen[name]
        policy = MLPPolicy(seed=seed)
        return run_neural(method, GAME, updates, policy=policy, feedback=feedback, optimizer=optimizer).duality_gap

    rows: Table = [["method", *(f"G = {size}" for size in sizes), "all responses, exact"]]
    figure, axes = new_figure(2)
    for name in chosen:
        curves = [[gaps(name, GroupSampling(size, seed=seed), seed) for seed in (1, 2)] for size in sizes]
        exact = [gaps(name, None, seed) for seed in (1, 2)]
        levels = [float(np.mean([curve[-updates // 4 :].mean() for curve in group])) for group in [*curves, exact]]
        rows.append([name, *map(shown, levels)])
        if chosen[name][1] is adam:
            axes[0].plot(sizes, levels[:-1], "o-", color=COLORS[name], label=name, markersize=4)
            axes[0].axhline(levels[-1], color=COLORS[name], linewidth=0.7, linestyle=":")
            axes[1].plot(curves[-1][0], color=COLORS[name], label=name, linewidth=1)
    label(axes[0], "responses in a group", "duality gap of the last network")
    axes[0].set(xscale="log", yscale="log")
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].minorticks_off()
    label(axes[1], f"updates, {sizes[-1]} responses each", "")
    axes[1].set(yscale="log")
    axes[0].legend(fontsize=8, frameon=False)
    return rows, figure


PARTS: dict[str, Callable[[], Result]] = {
    "opponents": by_opponents,
    "steps": by_step,
    "moves": by_moves,
    "theory": by_theory,
    "groups": by_groups,
    "network": by_network,
}
FIGURES = {"opponents": "sampled_opponents.svg", "steps": "sampled_steps.svg", "network": "neural_groups.svg"}


def new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(1, panels, figsize=(4.4 * panels, 3.4), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def shown(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"


def as_markdown(table: Table) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "|" + " --- |" * len(table[0]), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--write", action="store_true", help="redraw the figures and the tables of the docs page")
    args = parser.parse_args()
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "magnetar", "svg.fonttype": "none", "font.size": 9})
    for name in args.only:
        start = time.perf_counter()
        table, figure = PARTS[name]()
        print(f"{name} ({time.perf_counter() - start:.0f} s)\n\n{as_markdown(table)}\n", flush=True)
        if not args.write:
            continue
        if figure is not None:
            figure.savefig(DOCS / "figures" / FIGURES[name], metadata={"Date": None})
        page = DOCS / "sampled_feedback.md"
        marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, found = marked.subn(lambda match, t=table: match[1] + as_markdown(t) + "\n" + match[2], page.read_text())
        if not found:
            raise SystemExit(f"{page} has no place for the table {name!r}")
        page.write_text(text)


if __name__ == "__main__":
    main()
