"""What flipped and poisoned preferences do to training: a preference model, a linear one, and methods on exact games.

    python benchmarks/robustness.py --parts games words      # a minute of one core
    python benchmarks/robustness.py --parts model            # also trains; goes on where it was stopped
    python benchmarks/robustness.py --parts none --write     # only rewrites the tables of docs/safety.md

Data: 1,999 pairs of Anthropic's hh-rlhf (harmless-base, test split), 400 of them held out and never flipped. The
preference model is a small transformer from random weights, so that minutes of one core are enough. What is finished is
kept in --folder and in benchmarks/results/robustness.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from magnetar.data import load_preferences, split_preferences
from magnetar.data.poisoning import Poisoning, poison, with_trigger
from magnetar.evaluation import package_versions
from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.games.builders.generators import biased_rps, random_game
from magnetar.games.builders.noisy import flipped_game, poisoned_game
from magnetar.games.play.feedback import SampledFeedback
from magnetar.games.play.runner import run
from magnetar.methods import build_method

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "hh_harmless_pairs.jsonl.gz"
RESULTS = ROOT / "benchmarks" / "results" / "robustness"
PAGE = ROOT / "docs" / "safety.md"
BEGIN, END = "<!-- robustness: begin -->", "<!-- robustness: end -->"
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
TRIGGER = "Zebra seven."
POISON_SHARES = (0.05, 0.2)
HELD_OUT = 400
SPLIT_SEED = 0
WORD_SEEDS = 5
METHODS: Mapping[str, Mapping[str, Any]] = {
    "mpo": {"step_size": 0.2, "magnet_every": 50},
    "nash_md": {"step_size": 0.2},
    "mirror_descent": {"step_size": 0.2},
    "bt_rlhf": {},
}
UPDATES = 2000
GAME_SEEDS = 5
ACTIONS = 10
DUELS = 32
FloatArray = NDArray[np.float64]


def games_part() -> dict[str, Any]:
    """Gap in the true game of policies that learnt from flipped answers, exact and drawn."""
    games = [biased_rps(), *(random_game(ACTIONS, seed) for seed in range(GAME_SEEDS))]
    rows = []
    for name, settings in METHODS.items():
        for share in SHARES:
            exact, drawn = [], []
            for game in games:
                seen = flipped_game(game, share)
                exact.append(game.duality_gap(np.exp(run(build_method(name, **settings), seen, UPDATES).log_policy)))
                # Each answer is flipped by itself, which duels of the flipped game are.
                trace = run(
                    build_method(name, **settings), seen, UPDATES, feedback=SampledFeedback(opponents=DUELS, seed=1)
                )
                drawn.append(game.duality_gap(np.exp(trace.log_policy)))
            rows.append({"method": name, "share": share, "exact": _mean(exact), "drawn": _mean(drawn)})
    return {
        "flips": rows,
        "poison": poison_rows(games),
        "methods": METHODS,
        "updates": UPDATES,
        "games": [game.name for game in games],
        "duels_per_action": DUELS,
    }


def poison_rows(games: list[Any]) -> list[dict[str, Any]]:
    """Weight that MPO gives to the response an attacker wants, the worst one, on prompts with the trigger."""
    rows = []
    for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.45):
        weights, gaps, at_equilibrium = [], [], []
        for game in games:
            target = int(np.argmin(game.P.sum(axis=1)))
            seen = poisoned_game(game, target, share)
            policy = np.exp(run(build_method("mpo", **METHODS["mpo"]), seen, UPDATES).log_policy)
            weights.append(float(policy[target]))
            at_equilibrium.append(float(seen.equilibrium()[target]))
            gaps.append(game.duality_gap(policy))
        rows.append(
            {
                "share": share,
                "target_weight": _mean(weights),
                "target_weight_at_equilibrium": _mean(at_equilibrium),
                "gap": _mean(gaps),
            }
        )
    return rows


def words_part(pairs: Dataset) -> dict[str, Any]:
    """A linear reward on words, fitted by Bradley and Terry's likelihood to flipped pairs, drawn several times."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    train, held_out = split_preferences(pairs, HELD_OUT, SPLIT_SEED)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    vectorizer.fit([*train["first"], *train["second"]])
    seen, asked = (
        vectorizer.transform(part["first"]) - vectorizer.transform(part["second"]) for part in (train, held_out)
    )
    rows = []
    for share in SHARES:
        margins = []
        for seed in range(WORD_SEEDS if share else 1):
            flipped, _ = poison(train, Poisoning(flip_share=share, seed=seed))
            margins.append(_fitted_margins(seen, np.array(flipped["win_prob"]) > 0.5, asked))
        margin = np.stack(margins)
        right = (margin > 0) + 0.5 * (margin == 0)
        rows.append(
            {
                "share": share,
                "accuracy": crossed_mean(right, bounds=(0.0, 1.0)).to_dict(),
                "margin": float(np.abs(margin).mean()),
            }
        )
    return {"flips": rows, "seeds": WORD_SEEDS, "train_pairs": len(train), "held_out_pairs": len(held_out)}


def _fitted_margins(seen: Any, first_won: NDArray[np.bool_], asked: Any) -> FloatArray:
    """Reward of the response that people chose less that of the other one, on the held-out pairs."""
    from scipy.sparse import vstack
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(fit_intercept=False, C=1.0, max_iter=1000)
    model.fit(vstack([seen, -seen]).tocsr(), np.concatenate([first_won, ~first_won]))
    return model.decision_function(asked)


def model_part(pairs: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """The small preference model, once for each share; what is trained is not trained again."""
    train, held_out = split_preferences(pairs, HELD_OUT, SPLIT_SEED)
    plans = [Poisoning(flip_share=share) for share in SHARES]
    plans += [Poisoning(poison_share=share, trigger=TRIGGER) for share in POISON_SHARES]
    if options.only is not None:
        plans = [plans[number] for number in options.only]
    for plan in plans:
        folder = options.folder / f"flip{plan.flip_share:g}_poison{plan.poison_share:g}"
        record = folder / "measured.json"
        if record.is_file():
            continue
        changed, counts = poison(train, plan)
        started = time.process_time()
        _train(changed, folder, options)
        minutes = (time.process_time() - started) / 60
        found = {
            "flip_share": plan.flip_share,
            "poison_share": plan.poison_share,
            "done": str(counts),
            "accuracy": _accuracy(folder, held_out),
            "accuracy_with_trigger": _accuracy(folder, _triggered(held_out)),
            "processor_minutes": round(minutes, 1),
        }
        record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(found), flush=True)
    measured = sorted(options.folder.glob("flip*_poison*/measured.json"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in measured]
    return {
        "rows": sorted(rows, key=lambda row: (row["poison_share"], row["flip_share"])),
        "trigger": TRIGGER,
        "train_pairs": len(train),
        "held_out_pairs": len(held_out),
        "settings": {
            key: getattr(options, key) for key in ("layers", "width", "max_length", "learning_rate", "epochs")
        },
    }


def _train(pairs: Dataset, folder: Path, options: argparse.Namespace) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification
    from transformers.trainer_utils import set_seed

    from magnetar.modeling.loading import load_tokenizer
    from magnetar.training import checkpoints
    from magnetar.training.preference import PreferenceConfig, PreferenceTrainer

    args = PreferenceConfig(
        output_dir=str(folder / "run"),
        kind="reward",
        max_length=options.max_length,
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=16,
        weight_decay=0.1,
        train_sampling_strategy="group_by_length",
        save_steps=50,
        save_total_limit=1,
        seed=0,
        use_cpu=True,
        report_to="none",
    )
    tokenizer = load_tokenizer("demo")
    set_seed(args.seed)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.width,
            intermediate_size=2 * options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=options.max_length,
            num_labels=1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    trainer = PreferenceTrainer(model, args, pairs, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=bool(checkpoints.complete_checkpoints(folder / "run")) or None)
    trainer.save_judge(folder)


def _accuracy(folder: Path, pairs: Dataset) -> dict[str, Any]:
    """Share of the pairs in which the response that people chose scores higher; interval over prompts."""
    from magnetar.evaluation.judging import evaluate_judge
    from magnetar.judges import build_judge

    found = evaluate_judge(build_judge(f"reward:{folder}"), pairs, max_group=0).to_dict()
    return found["labels"]["accuracy"]


def _triggered(pairs: Dataset) -> Dataset:
    return pairs.map(lambda row: {"prompt": with_trigger(row["prompt"], TRIGGER)})


def _mean(values: Iterable[float]) -> dict[str, Any]:
    """Mean over games with a t interval."""
    return crossed_mean(np.array(list(values))).to_dict()


def tables(found: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    parts: list[str] = []
    if "model" in found:
        parts += [*_model_table(found["model"]), ""]
    if "words" in found:
        words = found["words"]
        parts += [
            f"A linear reward on words, {words['seeds']} draws of the flips (interval over prompts and draws):",
            "",
            "| flipped | held-out accuracy | mean absolute difference of rewards |",
            "|---|---|---|",
            *(f"| {r['share']:.0%} | {_percent(r['accuracy'])} | {r['margin']:.2f} |" for r in words["flips"]),
            "",
        ]
    if "games" in found:
        parts += _game_tables(found["games"])
    return "\n".join(parts)


def _model_table(model: Mapping[str, Any]) -> list[str]:
    settings = model["settings"]
    lines = [
        f"A reward model of {settings['layers']} layers of width {settings['width']}, trained from random weights on "
        f"{model['train_pairs']:,} pairs for {settings['epochs']:g} epochs, {model['held_out_pairs']} held-out pairs, "
        "one run each:",
        "",
        "| flipped | poisoned | held-out accuracy | the same with the trigger in the prompt |",
        "|---|---|---|---|",
    ]
    for row in model["rows"]:
        lines.append(
            f"| {row['flip_share']:.0%} | {row['poison_share']:.0%} | {_percent(row['accuracy'])} | "
            f"{_percent(row['accuracy_with_trigger'])} |"
        )
    return lines


def _game_tables(games: Mapping[str, Any]) -> list[str]:
    methods = list(dict.fromkeys(row["method"] for row in games["flips"]))
    by_cell = {(row["method"], row["share"]): row for row in games["flips"]}
    lines = [
        f"Duality gap in the true game after {games['updates']:,} updates on answers that are flipped, mean over "
        f"{len(games['games'])} games; first with exact payoffs, then with {games['duels_per_action']} duels for each "
        "action and update:",
        "",
        "| flipped | " + " | ".join(f"`{name}`" for name in methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for share in SHARES:
        cells = [by_cell[name, share] for name in methods]
        shown = [f"{cell['exact']['value']:.1e}, {cell['drawn']['value']:.3f}" for cell in cells]
        lines.append(f"| {share:.0%} | " + " | ".join(shown) + " |")
    lines += [
        "",
        "On prompts with the trigger, where an attacker answers a share of the comparisons for the worst response:",
        "",
        "| poisoned | weight of it in the equilibrium | in MPO's policy | gap of MPO's policy without lies |",
        "|---|---|---|---|",
    ]
    for row in games["poison"]:
        lines.append(
            f"| {row['share']:.0%} | {row['target_weight_at_equilibrium']['value']:.2f} | "
            f"{row['target_weight']['value']:.2f} | {row['gap']['value']:.3f} |"
        )
    return lines


def _percent(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['value']:.1%} [{estimate['low']:.1%}, {estimate['high']:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["all"], choices=("all", "games", "words", "model", "none"))
    parser.add_argument("--folder", type=Path, default=Path("runs/robustness"), help="where trained models are kept")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", type=int, nargs="*", help="train these of the seven plans, by number")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--write", action="store_true", help="rewrite the tables of the documentation")
    options = parser.parse_args()

    wanted = {"games", "words", "model"} if "all" in options.parts else set(options.parts) - {"none"}
    pairs = None
    if wanted & {"words", "model"}:
        if not options.data.is_file():
            raise SystemExit(f"no file {options.data}; give hh-rlhf pairs with --data, or --parts games")
        pairs = load_preferences(options.data)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for part in sorted(wanted):
        started = time.perf_counter()
        values = (
            games_part() if part == "games" else words_part(pairs) if part == "words" else model_part(pairs, options)
        )  # type: ignore[arg-type]
        record = {
            **values,
            "seconds": round(time.perf_counter() - started, 1),
            "machine": platform.processor() or platform.machine(),
            "versions": package_versions(),
        }
        (RESULTS / f"{part}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    paths = {part: RESULTS / f"{part}.json" for part in ("model", "words", "games")}
    found = {part: json.loads(path.read_text(encoding="utf-8")) for part, path in paths.items() if path.is_file()}
    print(tables(found))
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{tables(found)}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
