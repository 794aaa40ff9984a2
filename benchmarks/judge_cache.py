"""What a kept answer costs: hits, misses and opening, in microseconds a question, with the judge itself taken out.

Run ``python benchmarks/judge_cache.py``. Questions are pairs of responses of a few hundred characters to prompts with
several responses each, as in training. `measure` is also called by ``benchmarks/judges.py``.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from magnetar.judges import Cached, Judge, PointwiseJudge
from magnetar.judges.wrappers.store import AnswerStore
from magnetar.types import Prompt

__all__ = ["measure"]


class _Pairs(Judge):
    """Answers at once, so that what is measured is the cache."""

    name = "pairs"

    def _identity(self) -> Mapping[str, Any]:
        return {}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        return np.full(len(prompts), 0.25)


class _Embedding(PointwiseJudge):
    """Eight numbers a response."""

    name = "embedding"

    def _identity(self) -> Mapping[str, Any]:
        return {}

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.full(np.broadcast_shapes(first.shape, second.shape)[:-1], 0.5)

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.zeros((len(prompts), 8))


def questions(prompts: int, group: int, characters: int, seed: int = 0) -> tuple[list[Prompt], list[list[str]]]:
    """Prompts as chat turns and groups of different responses."""
    rng = np.random.default_rng(seed)

    def text(length: int) -> str:
        return "".join(chr(97 + letter) for letter in rng.integers(0, 26, size=length))

    asked: list[Prompt] = [[{"role": "user", "content": text(characters // 2)}] for _ in range(prompts)]
    return asked, [[text(characters) for _ in range(group)] for _ in range(prompts)]


def measure(prompts: int = 200, group: int = 8, characters: int = 800, repeats: int = 5) -> dict[str, float]:
    """Measure the cost of the cache.

    Args:
        prompts: Number of prompts in a call.
        group: Responses to each.
        characters: Length of a response; a prompt has half of it.
        repeats: The best of so many is returned, because the machine does other things too.

    Returns:
        Microseconds a question: ordered pairs (`pair_hit`, `pair_miss`), responses (`response_hit`, `response_miss`),
        and `row_of_open_file`, what opening a file costs for each row in it.
    """
    asked, groups = questions(prompts, group, characters)
    upper = [(b, i, j) for b in range(prompts) for i in range(group) for j in range(i + 1, group)]
    pairs = [asked[b] for b, _, _ in upper], [groups[b][i] for b, i, _ in upper], [groups[b][j] for b, _, j in upper]
    flat = [asked[b] for b in range(prompts) for _ in range(group)], [text for texts in groups for text in texts]
    with TemporaryDirectory() as folder:
        costs = {}
        for name, judge, ask, count in (
            ("pair", _Pairs(), lambda judge: judge.pair_win_prob(*pairs), len(upper)),
            ("response", _Embedding(), lambda judge: judge.features(*flat), prompts * group),
        ):
            bare = min(_seconds(ask, judge) for _ in range(repeats))
            files = [Path(folder) / f"{name}-{at}" for at in range(repeats)]
            miss = min(_seconds(ask, Cached(judge, file)) for file in files)
            cached = Cached(judge, files[0])
            hit = min(_seconds(ask, cached) for _ in range(repeats))
            costs |= {f"{name}_hit": hit / count, f"{name}_miss": (miss - bare) / count}
        opened = min(_seconds(AnswerStore, files[0]) for _ in range(repeats))
        costs["row_of_open_file"] = opened / (prompts * group)
    return {name: 1e6 * seconds for name, seconds in costs.items()}


def _seconds(action: Any, argument: Any) -> float:
    started = time.perf_counter()
    action(argument)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--characters", type=int, default=800)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    args = parser.parse_args()
    costs = measure(args.prompts, args.group, args.characters)
    for name, cost in costs.items():
        print(f"{name:>18} {cost:8.2f} µs")
    if args.json:
        args.json.write_text(json.dumps(costs, indent=2) + "\n")


if __name__ == "__main__":
    main()
