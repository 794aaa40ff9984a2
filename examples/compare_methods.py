# %% [markdown]
# # Compare methods
#
# Papers on preference optimisation disagree about which method is best. Two ways to find out for yourself: where the
# truth is known, and on a real model at equal budget.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

from magnetar.cli.main import main as magnetar
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.methods import METHODS
from magnetar.reports.comparison_files import read_comparison
from magnetar.training.enumerable import run_enumerable

EXACT_UPDATES = 60
MODEL = "demo"  # the embedded model; any Hub id
BUDGET = 36  # comparisons by the judge, for each method
PROMPTS = 8  # held out
FOLDER = Path("runs/compared")

# %% [markdown]
# ## Where the truth is known
#
# A transformer over four words that answers with at most three of them has 85 possible responses. All can be listed, so
# its policy is known exactly, and how far it is from the equilibrium. The trainer is the one that trains large models;
# it does not know that anybody looks.

# %%
game = EnumerableGame.build()
settings = {"step_size": 2.0, "magnet_strength": 0.1}
exact = {
    "mirror_descent": {"step_size": 2.0},
    "mmd": settings,
    "egpo": settings,
    "mpo": {**settings, "magnet_every": 10},
}
traces = {name: run_enumerable(game, updates=EXACT_UPDATES, method=name, **given) for name, given in exact.items()}
for name, trace in traces.items():
    last = trace.duality_gap[-max(1, EXACT_UPDATES // 5) :]
    print(f"{name:<15} gap {last.min():.3f} to {last.max():.3f}   reaches: {METHODS[name]().converges_to}")

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for name, trace in traces.items():
    axes.semilogy(np.arange(len(trace.duality_gap)), trace.duality_gap, label=name)
axes.set(xlabel="update", ylabel="exact duality gap")
axes.legend()
figure

# %% [markdown]
# Self-play circles; whoever is held by a reference that never moves stops beside the equilibrium; MPO goes on. [All
# methods](../docs/language_model_evidence.md), with the exact policies at which they come to rest.
#
# ## On a real model, at equal budget
#
# On a real model nobody knows the gap. What one can do: give every method the same number of judge comparisons, let the
# results play each other and the start, on prompts that none was trained on. Use a judge that none learned from
# (`eval_judge`), and several seeds; this small run has neither, and the page that it writes says so.

# %%
config = {
    "output_dir": str(FOLDER),
    "model": MODEL,
    "dataset": "demo",
    "judge": "panel",
    "budget": {"comparisons": BUDGET},
    "seeds": [0],
    "settings": {
        "use_peft": True,
        "lora_target_modules": "all-linear",
        "learning_rate": 3.0e-4,
        "per_device_train_batch_size": 1,
        "num_generations": 4,
        "max_completion_length": 24,
        "report_to": "none",
    },
    "methods": {
        "mpo": {"magnet_every": 2},
        "no self-play": {"method": "mpo", "opponent": "reference"},
        "online_dpo": {},
    },
    "evaluation": {"prompts": PROMPTS, "responses": 2, "curve_points": 1},
}
FOLDER.mkdir(parents=True, exist_ok=True)
(FOLDER / "comparison.yaml").write_text(yaml.safe_dump(config))
magnetar(["compare", "--config", str(FOLDER / "comparison.yaml")])

# %% [markdown]
# The command prints the table and writes a page (`comparison.html`). It can be interrupted, and repeated with more
# methods or seeds: only what is new is computed. The figures are there for your own plots:

# %%
result = read_comparison(FOLDER / "comparison.json")
for row in result.rows:
    rate = row.win_rate
    if rate is not None:
        ends = f"[{rate.low:.1%}, {rate.high:.1%}]" if rate.low is not None and rate.high is not None else ""
        print(f"{row.label:<14} beats the start {rate.value:.1%} {ends}")

# %% [markdown]
# An interval says how far the figure would move with other prompts, and here they are eight. It says nothing about
# another seed, or about another judge: this one is what the methods learned from, and answers of 24 tokens are easily
# bent to its taste. So read no ranking off so small a run, not even where an interval ends above one half. What a
# budget, an interval and a fair comparison are: [comparing methods](../docs/comparing.md). Ten methods on real
# dialogues: [benchmarks](../benchmarks/README.md).
