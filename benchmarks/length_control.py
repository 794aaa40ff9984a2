"""What win rates at equal length do to real models: AlpacaEval's judgements of GPT-4, model by model.

``python benchmarks/length_control.py [--write]`` reads ``../shared/data/alpaca_eval_gpt4_pairs.jsonl.gz``, in which
every response meets one baseline model's, and computes each model's win rate plain and at equal length. It reports how
far either goes along with the length of the responses, and the models that move most.
"""

import argparse
import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.resampling import Resampling
from magnetar.evaluation.length_control import length_controlled_rate

DATA = Path("../shared/data/alpaca_eval_gpt4_pairs.jsonl.gz")
RESULTS = Path("benchmarks/results/length_control.json")
FEWEST = 50


def measure(path: Path) -> dict[str, Any]:
    """Win rates of every model with at least 50 prompts."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows[row["generator_2"]].append(row)
    models = []
    for name, judged in sorted(rows.items()):
        if len(judged) < FEWEST or name == judged[0]["generator_1"]:
            continue
        win_prob = np.array([1.0 - row["win_prob_1"] for row in judged])
        length = np.array([float(len(row["response_2"]) - len(row["response_1"])) for row in judged])
        controlled = length_controlled_rate(win_prob, length, np.arange(len(judged)), Resampling(400, 0.95, 0))
        assert isinstance(controlled, Estimate), controlled
        models.append(
            {
                "model": name,
                "prompts": len(judged),
                "win_rate": float(win_prob.mean()),
                "at_equal_length": controlled.to_dict(),
                "characters_more": float(length.mean()),
            }
        )
    longer = [model["characters_more"] for model in models]
    plain = [model["win_rate"] for model in models]
    controlled_rates = [model["at_equal_length"]["value"] for model in models]
    return {
        "models": models,
        "spearman_with_length": {
            "win_rate": float(spearmanr(plain, longer).statistic),
            "at_equal_length": float(spearmanr(controlled_rates, longer).statistic),
        },
        "spearman_of_both": float(spearmanr(plain, controlled_rates).statistic),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS}")
    args = parser.parse_args()
    if not DATA.is_file():
        print(f"no {DATA}: this benchmark reads real judgements that are not part of the repository", file=sys.stderr)
        return 1
    found = measure(DATA)
    with_length = found["spearman_with_length"]
    print(f"{len(found['models'])} models; rank correlation with the length of the responses: win rate "
          f"{with_length['win_rate']:+.2f}, at equal length {with_length['at_equal_length']:+.2f}; "
          f"of the two with each other {found['spearman_of_both']:+.2f}")  # fmt: skip
    moved = sorted(found["models"], key=lambda model: -abs(model["at_equal_length"]["value"] - model["win_rate"]))
    for model in moved[:8]:
        rate = model["at_equal_length"]
        interval = "" if rate["low"] is None else f" [{rate['low']:.1%}, {rate['high']:.1%}]"
        print(f"{model['model']:<40} {model['characters_more']:+7.0f} characters  {model['win_rate']:.1%} → "
              f"{rate['value']:.1%}{interval}")  # fmt: skip
    if args.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
