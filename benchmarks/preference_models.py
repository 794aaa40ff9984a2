"""What two thousand human preferences teach: preference models on SmolLM2-135M beside baselines, on one split.

    python benchmarks/preference_models.py                   # baselines, and every judge trained so far
    python benchmarks/preference_models.py --train reward    # trains first: some twenty minutes of one core
    python benchmarks/preference_models.py --write           # also the results and the table of the documentation

The data are 1,999 pairs of Anthropic's hh-rlhf (harmless-base, test split): people chose the less harmful of two
answers to red-team dialogues. A judge in --folder is not trained again; an interrupted training goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GroupKFold

from magnetar.data import load_preferences, split_preferences
from magnetar.data.splits import prompt_key
from magnetar.evaluation.judging import evaluate_judge
from magnetar.judges import build_judge
from magnetar.judges.models.card import CARD_FILE, read_card
from magnetar.training import checkpoints
from magnetar.training.preference import PreferenceConfig, PreferenceTrainer
from magnetar.training.preference.models import load_for_training

DATA = Path(__file__).parents[2] / "shared" / "data" / "hh_harmless_pairs.jsonl.gz"
RESULTS = Path(__file__).parent / "results" / "preference_models.json"
PAGE = Path(__file__).parents[1] / "docs" / "judges" / "training.md"
KINDS = ("reward", "general", "pairwise")
MINUTES_FILE = "processor_minutes.txt"
BEGIN, END = "<!-- preference models: begin -->", "<!-- preference models: end -->"
HELD_OUT = 400
FOLDS = 5
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FloatArray = NDArray[np.float64]


def train_judge(kind: str, train: Dataset, folder: Path, options: argparse.Namespace) -> None:
    """Train one judge with LoRA on the upper layers; goes on where it was interrupted."""
    args = PreferenceConfig(
        output_dir=str(folder / "run"),
        kind=kind,
        max_length=options.max_length,
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        train_sampling_strategy="group_by_length",
        logging_steps=5,
        save_steps=10,
        save_total_limit=1,
        seed=options.seed,
        use_cpu=options.cpu,
        report_to="none",
    )
    model, tokenizer = load_for_training("demo", args.num_labels, dtype="bfloat16")
    layers = range(options.from_layer, int(model.config.num_hidden_layers))
    names = [
        f"layers.{layer}.{part}.{name}"
        for layer in layers
        for part, part_names in (("self_attn", PROJECTIONS[:4]), ("mlp", PROJECTIONS[4:]))
        for name in part_names
    ]
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules=names)
    trainer = PreferenceTrainer(model, args, train, processing_class=tokenizer, peft_config=adapter)
    trainer.labels = {"model": "demo", "dataset": DATA.name}
    started = time.process_time()
    resumed = bool(checkpoints.complete_checkpoints(folder / "run"))
    trainer.train(resume_from_checkpoint=resumed or None)
    trainer.save_judge(folder)
    if not resumed:
        (folder / MINUTES_FILE).write_text(f"{(time.process_time() - started) / 60:.1f}\n", encoding="utf-8")


def symmetric_logistic(train_x: Any, groups: list[str], test_x: Any) -> tuple[FloatArray, float]:
    """P(first beats second) by logistic regression on differences of features, its strength by cross-validation.

    Every pair is there in both orders, and there is no intercept: exchanging the responses exchanges the answer.
    """
    from scipy.sparse import vstack

    both_x = vstack([train_x, -train_x]).tocsr()
    both_y = np.repeat([1, 0], train_x.shape[0])
    folds = list(GroupKFold(FOLDS).split(both_x, both_y, groups + groups))
    model = LogisticRegressionCV(
        Cs=np.logspace(-3, 3, 13),
        cv=folds,
        fit_intercept=False,
        max_iter=5000,
        scoring="neg_log_loss",
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    model.fit(both_x, both_y)
    return model.predict_proba(test_x)[:, 1], float(model.C_)


def baselines(train: Dataset, held_out: Dataset) -> dict[str, tuple[FloatArray, float]]:
    """P(first beats second) on the held-out pairs by length and by words, each fitted on the training pairs."""
    from scipy.sparse import csr_matrix

    groups = [prompt_key(prompt) for prompt in train["prompt"]]

    def lengths(part: Dataset) -> Any:
        logs = [[np.log(len(text)) for text in part[side]] for side in ("first", "second")]
        return csr_matrix((np.array(logs[0]) - np.array(logs[1]))[:, None])

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    vectorizer.fit([*train["first"], *train["second"]])

    def words(part: Dataset) -> Any:
        return vectorizer.transform(part["first"]) - vectorizer.transform(part["second"])

    return {
        "length, fitted": symmetric_logistic(lengths(train), groups, lengths(held_out)),
        "bag of words": symmetric_logistic(words(train), groups, words(held_out)),
    }


def spread_of_baselines(pairs: Dataset, seeds: int) -> dict[str, list[float]]:
    """Held-out accuracy of the cheap baselines on several splits."""
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        train, held_out = split_preferences(pairs, HELD_OUT, seed)
        longer = np.array([len(a) - len(b) for a, b in zip(held_out["first"], held_out["second"], strict=True)])
        found.setdefault("longer wins", []).append(float(np.mean((longer > 0) + 0.5 * (longer == 0))))
        for name, (answer, _) in baselines(train, held_out).items():
            found.setdefault(name, []).append(float(np.mean((answer > 0.5) + 0.5 * (answer == 0.5))))
    return found


def measure(judge: Any, held_out: Dataset, cheap: dict[str, tuple[FloatArray, float]]) -> dict[str, Any]:
    """Measure a judge beside the baselines; intervals by resampling prompts."""
    others = {name: answer for name, (answer, _) in cheap.items()}
    found = evaluate_judge(build_judge(judge), held_out, baselines=others, max_group=0, progress=True).to_dict()
    found["labels"].pop("disagreements", None)
    return found


def longest(prompts: Any, responses: Any) -> list[float]:
    """The plainest judge: longer is better."""
    return [float(len(text)) for text in responses]


def measure_all(pairs: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Baselines and every judge trained so far, on the held-out pairs of the first split."""
    train, held_out = split_preferences(pairs, HELD_OUT, 0)
    cheap = baselines(train, held_out)
    judges = {}
    for kind in KINDS:
        folder = options.folder / kind
        card = read_card(str(folder)) if (folder / CARD_FILE).is_file() else None
        if card is None:
            continue
        judges[kind] = {"training": dict(card.training), **measure(f"{kind}:{folder}", held_out, cheap)}
        minutes = folder / MINUTES_FILE
        judges[kind]["processor_minutes"] = float(minutes.read_text()) if minutes.is_file() else None
    spread = spread_of_baselines(pairs, options.split_seeds)
    return {
        "train_pairs": len(train),
        "held_out_pairs": len(held_out),
        "baselines": measure(longest, held_out, cheap),
        "strengths": {name: strength for name, (_, strength) in cheap.items()},
        "judges": judges,
        "splits": {name: {"accuracies": values} for name, values in spread.items()},
    }


def interval(estimate: dict[str, Any], percent: bool = True) -> str:
    """A value with its interval."""
    form = "{:.1%}" if percent else "{:.3f}"
    value, low, high = (form.format(estimate[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(found: dict[str, Any]) -> str:
    """The figures as Markdown."""
    names = {"longer wins": "longer wins", "length, fitted": "length, fitted", "bag of words": "bag of words"}
    spread = {name: np.array(found["splits"][name]["accuracies"]) for name in names}
    lines = [
        f"{found['train_pairs']:,} training pairs, {found['held_out_pairs']} held out (no prompt on both sides); 95% "
        "intervals by resampling prompts. The last column holds mean and standard deviation over "
        f"{len(spread['longer wins'])} splits.",
        "",
        "| judge | accuracy | minus bag of words | cross-entropy, nats | calibration error | other splits |",
        "|---|---|---|---|---|---|",
    ]
    measured = found["baselines"]["labels"]["baselines"]
    for name, shown in names.items():
        mean, deviation = spread[name].mean(), spread[name].std(ddof=1)
        accuracy = interval(measured[name]["accuracy"])
        lines.append(f"| {shown} | {accuracy} | | | | {mean:.1%} ± {deviation:.1%} |")
    for kind, one in found["judges"].items():
        labels, minutes = one["labels"], one["processor_minutes"]
        cost = "" if minutes is None else f", {minutes:.0f} min of one core"
        lines.append(
            f"| `{kind}`, SmolLM2-135M{cost} | {interval(labels['accuracy'])} | "
            f"{interval(labels['baselines']['bag of words']['difference'])} | "
            f"{interval(labels['cross_entropy_nats'], percent=False)} | "
            f"{interval(labels['calibration']['error'], percent=False)} | |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="*", default=[], choices=KINDS)
    parser.add_argument("--folder", type=Path, default=Path("runs/preference_models"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--max_length", type=int, default=160)
    parser.add_argument("--from_layer", type=int, default=15, help="lowest layer with LoRA; the model has 30")
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--split_seeds", type=int, default=10, help="splits on which the cheap baselines are measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU where there is an accelerator")
    parser.add_argument("--write", action="store_true", help="write the results and the table of the documentation")
    options = parser.parse_args()

    pairs = load_preferences(options.data)
    train, _ = split_preferences(pairs, HELD_OUT, 0)
    for kind in options.train:
        folder = options.folder / kind
        if not (folder / CARD_FILE).is_file():
            train_judge(kind, train, folder, options)
    found = measure_all(pairs, options)
    print(table(found))
    if options.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
