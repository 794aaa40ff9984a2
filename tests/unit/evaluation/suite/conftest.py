"""A small world for suites: prompts with categories, files of responses, and judges whose answers are known."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

JUDGES = '''
ASKED = []
LIMIT = []

def longer(prompts, first, second):
    """Favours the longer response, and whichever is shown first."""
    if LIMIT and len(ASKED) >= LIMIT[0]:
        raise LIMIT[1]("the connection is gone")
    ASKED.extend(zip(prompts, first, second))
    return [0.6 + 0.3 * ((len(a) > len(b)) - (len(a) < len(b))) for a, b in zip(first, second)]

def letters(prompts, responses):
    """Scores; the cost of a response is its length less five."""
    return [5.0 - len(text) for text in responses]

def rock(prompts, first, second):
    """Rock, paper, scissors by the first letter."""
    return [0.5 + 0.4 * [0, 1, -1]["rps".index(a[0]) - "rps".index(b[0])] for a, b in zip(first, second)]
'''


@pytest.fixture
def prompts() -> list[str]:
    return [f"prompt {number}" for number in range(18)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[str]) -> dict[str, Any]:
    """The working folder has files and judges; a configuration that names them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite_judges.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "suite_judges", raising=False)
    rows = [{"prompt": prompt, "category": "even" if at % 3 else "third"} for at, prompt in enumerate(prompts)]
    write_lines(tmp_path / "prompts.jsonl", rows)
    rng = random.Random(0)
    for name, longest in (("sft", 8), ("mpo-seed0", 12), ("mpo-seed1", 14)):
        write_answers(tmp_path / f"{name}.jsonl", prompts, lambda _, n=longest: "x" * rng.randint(1, n), 2)
    return {
        "output_dir": "out",
        "policies": {"SFT": "file:sft.jsonl", "MPO": ["file:mpo-seed0.jsonl", "file:mpo-seed1.jsonl"]},
        "reference": "SFT",
        "judges": {"longer": "python:suite_judges:longer"},
        "prompts": {"dataset": "prompts.jsonl"},
        "sampling": {"responses": 2},
    }


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_answers(path: Path, prompts: list[str], respond: Callable[[int], str], count: int = 1) -> None:
    write_lines(
        path,
        [{"prompt": prompt, "response": respond(at)} for at, prompt in enumerate(prompts) for _ in range(count)],
    )


def read_answers(path: Path) -> list[list[str]]:
    """Responses by prompt, in the order of the file."""
    groups: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        groups.setdefault(row["prompt"], []).append(row["response"])
    return list(groups.values())
