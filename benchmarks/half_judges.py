"""Two judges that share no preference: one to train by, one to compare the results by.

    python benchmarks/half_judges.py    # some twenty minutes of one core

The pairs of hh-rlhf (harmless-base, test split) are split by prompt in three: prompts to play on at the end, and two
halves, each of which teaches one Bradley–Terry reward model on SmolLM2-135M. The prompts of both halves are those that
methods train on. Writes the folders ``judge`` and ``evaluator`` and the files ``train_prompts.jsonl`` and
``held_out_prompts.jsonl``; what is there already is not made again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from preference_models import DATA, train_judge

from magnetar.data import load_preferences, split_preferences
from magnetar.data.splits import prompt_key
from magnetar.evaluation.judging import evaluate_judge
from magnetar.judges import build_judge
from magnetar.judges.models.card import CARD_FILE

FOLDER = Path("runs/half_judges")
HELD_OUT = 300
JUDGES = ("judge", "evaluator")


def three_parts(data: Path) -> dict[str, Dataset]:
    """Held-out pairs and the two halves; no prompt is in two of them."""
    rest, held_out = split_preferences(load_preferences(data), HELD_OUT, seed=0)
    judge, evaluator = split_preferences(rest, 0.5, seed=1)
    return {"judge": judge, "evaluator": evaluator, "held_out": held_out}


def write_prompts(path: Path, parts: list[Dataset]) -> None:
    """Each prompt once, in order of the data."""
    prompts = {prompt_key(prompt): prompt for part in parts for prompt in part["prompt"]}
    lines = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts.values()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def accuracy(name: str, folder: Path, held_out: Dataset) -> dict[str, Any]:
    """How often the judge agrees with people on pairs that neither judge has seen."""
    found = evaluate_judge(build_judge(f"reward:{folder / name}"), held_out, max_group=0, progress=True).to_dict()
    return found["labels"]["accuracy"]


def main() -> None:
    """Split, train what is missing, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--train", nargs="*", default=JUDGES, choices=JUDGES, help="which to train now")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--max_length", type=int, default=160)
    parser.add_argument("--from_layer", type=int, default=15, help="lowest layer with an adapter")
    options = parser.parse_args()
    options.seed, options.cpu, options.num_labels = 0, True, 1

    parts = three_parts(options.data)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_prompts(options.folder / "train_prompts.jsonl", [parts["judge"], parts["evaluator"]])
    write_prompts(options.folder / "held_out_prompts.jsonl", [parts["held_out"]])
    for name in options.train:
        if not (options.folder / name / CARD_FILE).is_file():
            train_judge("reward", parts[name], options.folder / name, options)
    trained = [name for name in JUDGES if (options.folder / name / CARD_FILE).is_file()]
    found = {name: accuracy(name, options.folder, parts["held_out"]) for name in trained}
    found |= {f"{name}_pairs": len(parts[name]) for name in parts}
    (options.folder / "accuracy.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
