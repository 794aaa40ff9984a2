"""Which loss finds a best response: policy gradient, or regression of log-ratios; exact on an enumerable model.

    python benchmarks/best_response.py --seeds 8

Attackers are trained from sampled responses against a frozen tiny model; what they win is computed exactly.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.training.enumerable import run_enumerable

LOSSES = {
    "policy gradient": {"method": "mirror_descent"},
    "regression": {"method": "mmd", "loss": "regression", "magnet_strength": 0.002},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--group", type=int, default=8, help="responses of the attacker to a prompt")
    parser.add_argument("--opponents", type=int, default=4, help="responses of the frozen model to a prompt")
    parser.add_argument("--out", type=Path, help="write the results here as JSON")
    options = parser.parse_args()
    game = EnumerableGame.build()
    results: dict[str, list[float]] = {name: [] for name in LOSSES}
    for seed in range(options.seeds):
        for name, settings in LOSSES.items():
            trace = run_enumerable(
                game,
                updates=options.updates,
                learning_rate=options.learning_rate,
                inner_epochs=1,
                seed=seed,
                sampled=True,
                num_generations=options.group,
                num_opponents=options.opponents,
                opponent="reference",
                **settings,
            )
            payoff = game.game.P @ trace.policies[0]
            share = (float(trace.policy @ payoff) - 0.5) / (float(payoff.max()) - 0.5)
            results[name].append(share)
            print(f"seed {seed}, {name}: {share:.1%} of the exact exploitability", file=sys.stderr, flush=True)
    better = np.array(results["regression"]) - np.array(results["policy gradient"])
    summary = {
        **{name: {"mean": float(np.mean(shares)), "shares": shares} for name, shares in results.items()},
        "regression less policy gradient": {
            "mean": float(better.mean()),
            "standard_error": float(better.std(ddof=1) / len(better) ** 0.5) if len(better) > 1 else None,
        },
    }
    record = {"settings": {k: v for k, v in vars(options).items() if k != "out"}, "share_of_exact": summary}
    print(json.dumps(record, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
