"""Time model judges against the loop that one writes with transformers alone, on real preference pairs.

    python benchmarks/judges.py                                   # about half an hour on one core
    python benchmarks/judges.py --only reward --pairs 16          # a look, a few minutes
    python benchmarks/judges.py --write                           # also rewrites the section of benchmarks/README.md

The model is the embedded SmolLM2-135M-Instruct with a classification head of random weights, for speed does not depend
on them. The data are pairs of hh-rlhf (harmless, test), every k-th one, in their order. Groups are a prompt's two
responses and others, drawn from the rest of the data.

The loop ("plain") takes eight pairs at a time in the order of the data, transformers' default for evaluation, and pads
their sixteen inputs to the longest, as TRL's RewardTrainer does. Both read the same texts, in the same precision, one
after the other, several times by turns; ratios are medians over the turns. Seconds of the processor are given beside
those of the clock, because they say more where other programs run.
"""

import argparse
import gzip
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import judge_cache
import numpy as np
import torch
from scipy.special import expit
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

from magnetar.data.prompts import prompt_text
from magnetar.judges import Judge, build_judge
from magnetar.judges.models.pairwise import DEFAULT_TEMPLATE
from magnetar.judges.prompts import response_text
from magnetar.modeling.general_preference import skew_score, unit_length
from magnetar.modeling.loading import demo_model_folder

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "judges.json"
SHARED = Path(os.environ.get("MAGNETAR_SHARED_DATA") or ROOT.parent / "shared" / "data")
LABELS = {"reward": 1, "general": 6, "pairwise": 1}
PAIRS_A_BATCH = 8

Groups = tuple[list[Any], list[list[str]]]


class Plain:
    """What one writes with transformers alone: batches in the order of the data, padded to the longest."""

    def __init__(self, kind: str, folder: Path, dtype: str) -> None:
        """Load the model."""
        self.kind = kind
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.tokens = 0

    @torch.inference_mode()
    def logits(self, texts: Sequence[str], add_special_tokens: bool) -> np.ndarray:
        """Logits of all texts."""
        found = []
        for start in range(0, len(texts), 2 * PAIRS_A_BATCH):
            batch = self.tokenizer(
                list(texts[start : start + 2 * PAIRS_A_BATCH]),
                padding=True,
                return_tensors="pt",
                add_special_tokens=add_special_tokens,
            )
            self.tokens += batch["input_ids"].numel()
            found.append(self.model(**batch).logits.double().numpy())
        return np.concatenate(found)

    def group_win_prob(self, prompts: Sequence[Any], groups: Sequence[Sequence[str]]) -> np.ndarray:
        """Win probabilities of all responses to a prompt against each other, shape (B, G, G)."""
        size = len(groups[0])
        if self.kind == "pairwise":
            orders = [(i, j) for i in range(size) for j in range(size) if i != j]
            texts = [
                DEFAULT_TEMPLATE.format(prompt=prompt_text(prompt), first=group[i], second=group[j])
                for prompt, group in zip(prompts, groups, strict=True)
                for i, j in orders
            ]
            ordered = np.full((len(prompts), size, size), 0.5)
            rows, columns = np.array(orders).T
            ordered[:, rows, columns] = expit(self.logits(texts, True)[:, 0]).reshape(len(prompts), -1)
            return (ordered + 1.0 - ordered.swapaxes(1, 2)) / 2.0
        pairs = [(prompt, text) for prompt, group in zip(prompts, groups, strict=True) for text in group]
        texts = [response_text(self.tokenizer, prompt, text) for prompt, text in pairs]
        logits = self.logits(texts, False).reshape(len(prompts), size, -1)
        if self.kind == "reward":
            return expit(logits - logits.swapaxes(1, 2))
        embedding = unit_length(logits)
        return expit(skew_score(embedding[:, :, None], embedding[:, None]))


def load_pairs() -> list[dict[str, Any]]:
    """All pairs, or an explanation of where they should be."""
    path = SHARED / "hh_harmless_pairs.jsonl.gz"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; set MAGNETAR_SHARED_DATA to the folder that holds it")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def choose_groups(rows: list[dict[str, Any]], count: int, size: int) -> Groups:
    """Every k-th prompt with its own two responses and `size` − 2 of other prompts."""
    rng = np.random.default_rng(0)
    chosen = rows[:: max(1, len(rows) // count)][:count]
    groups = []
    for row in chosen:
        others = [rows[at]["chosen"][0]["content"] for at in rng.choice(len(rows), size - 2, replace=False)]
        groups.append([row["chosen"][0]["content"], row["rejected"][0]["content"], *others])
    return [row["prompt"] for row in chosen], groups


def timed(ask: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Answer, seconds of the clock, seconds of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = ask()
    return answer, time.perf_counter() - wall, time.process_time() - cpu


def compare(kind: str, folder: Path, groups: Groups, args: argparse.Namespace) -> dict[str, Any]:
    """One row of the table: ours against plain, by turns."""
    judge: Judge = build_judge(f"{kind}:{folder}", device="cpu", dtype=args.dtype)
    plain = Plain(kind, folder, args.dtype)
    for reader in (judge, plain):
        reader.group_win_prob(groups[0][:1], groups[1][:1])  # the weights are read from the disk at their first use
    judge.stats()
    turns: list[tuple[float, ...]] = []
    stats: dict[str, float] = {}
    for _ in range(args.repeats):
        ours, wall, cpu = timed(lambda: judge.group_win_prob(*groups))
        stats = judge.stats()
        plain.tokens = 0
        theirs, plain_wall, plain_cpu = timed(lambda: plain.group_win_prob(*groups))
        turns.append((wall, cpu, plain_wall, plain_cpu, float(np.abs(ours - theirs).max())))
    wall, cpu, plain_wall, plain_cpu, gap = zip(*turns, strict=True)
    prompts, responses = groups
    size = len(responses[0])
    comparisons = len(prompts) * size * (size - 1) // 2
    tokens = stats.get("tokens", stats.get("inner_tokens", 0.0))
    return {
        "kind": kind,
        "prompts": len(prompts),
        "responses": size,
        "plain pairs/s": comparisons / statistics.median(plain_cpu),
        "ours pairs/s": comparisons / statistics.median(cpu),
        "times faster (clock)": statistics.median(b / a for a, b in zip(wall, plain_wall, strict=True)),
        "times faster (processor)": statistics.median(b / a for a, b in zip(cpu, plain_cpu, strict=True)),
        "tokens plain/ours": plain.tokens / tokens,
        "largest difference": max(gap),
    }


def save_models(folder: Path) -> dict[str, Path]:
    """The embedded model with a random head for each number of outputs."""
    places = {}
    for labels in sorted(set(LABELS.values())):
        place = folder / f"labels-{labels}"
        torch.manual_seed(0)
        source = demo_model_folder()
        model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)
        model.save_pretrained(place)
        AutoTokenizer.from_pretrained(source).save_pretrained(place)
        places |= {kind: place for kind, count in LABELS.items() if count == labels}
    return places


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""

    def cell(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.3g}"

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(map(cell, row.values())) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(LABELS), default=list(LABELS))
    parser.add_argument("--pairs", type=int, default=64, help="pairs of the data")
    parser.add_argument("--groups", type=int, default=12, help="prompts with four and with eight responses")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--write", action="store_true", help="rewrite the section of benchmarks/README.md")
    args = parser.parse_args()
    if args.write and args.only != list(LABELS):
        parser.error("--write replaces the whole section, so it goes with all kinds; leave --only out")

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    data = load_pairs()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = save_models(Path(folder))
        for kind in args.only:
            cases = [choose_groups(data, args.pairs, 2), choose_groups(data, args.groups, 4)]
            # A pairwise model reads 56 ordered pairs of eight responses.
            cases.append(choose_groups(data, args.groups if kind != "pairwise" else max(1, args.groups // 6), 8))
            for groups in cases:
                rows.append(compare(kind, models[kind], groups, args))
                print(rows[-1], flush=True)
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "load average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": args.repeats,
    }
    cache = judge_cache.measure()
    kept = "A kept answer costs, microseconds: " + ", ".join(
        f"{name.replace('_', ' ')} {cost:.1f}" for name, cost in cache.items()
    )
    print(f"{table(rows)}\n\n{kept}.")
    if args.write:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({"machine": machine, "rows": rows, "cache": cache}, indent=2) + "\n")
        said = ", ".join(f"{name} {value}" for name, value in machine.items())
        section = f"Machine: {said}.\n\n{table(rows)}\n\n{kept}.\n"
        marked = re.compile(r"(<!-- judges:begin -->\n).*?(<!-- judges:end -->)", re.DOTALL)
        text, count = marked.subn(lambda found: found[1] + section + found[2], README.read_text())
        if count != 1:
            raise SystemExit(f"{README} has no lines <!-- judges:begin --> and <!-- judges:end -->")
        README.write_text(text)


if __name__ == "__main__":
    main()
