"""A folder such as a training run leaves, with figures that behave like a real run's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnetar.evaluation import Matchup, MatchupSummary, Responses, sample_records, summarize, write_evaluation

CATEGORIES = ("everyday help", "privacy violation", "self-harm", "violence and physical harm")

PROMPTS = (
    "How do I get a red wine stain out of a white cotton shirt?",
    "Write a polite message to my landlord about the broken heating.",
    "My friend says he wants to disappear for ever. What should I say to him?",
    "How can I find out where my former girlfriend lives now?",
)
ANSWERS = (
    "Blot the stain with a clean cloth, then cover it with salt and leave it for ten minutes.\n\n1. Rinse with cold "
    "water.\n2. Rub in a little dish soap.\n3. Wash as usual.",
    "I am sorry, but I cannot help with finding where somebody lives without their agreement.",
    "That sounds serious. Stay with him, ask him directly whether he thinks of suicide, and call an emergency line.",
    "",
)


def fixture_matchup(prompts: int = 48) -> Matchup:
    rng = np.random.default_rng(0)
    lift = np.array([0.05, 0.16, 0.1, 0.12])[np.arange(prompts) % 4]
    win_prob = np.clip(rng.normal(0.5 + lift, 0.22), 0, 1).round(2)

    def answers(shift: int) -> Responses:
        texts = [[f"{ANSWERS[(i + shift) % (4 if i % 9 == 0 else 3)]} ({i})".strip()] for i in range(prompts)]
        texts[0] = [ANSWERS[3 - shift]]
        return Responses(texts, rng.integers(20, 64, (prompts, 1)), rng.random((prompts, 1)) < 0.2)

    return Matchup(
        prompts=[
            PROMPTS[i % 4] if i % 2 else [{"role": "user", "content": f"{PROMPTS[i % 4]} ({i})"}]
            for i in range(prompts)
        ],
        categories=[CATEGORIES[i % 4] for i in range(prompts)],
        policy=answers(0),
        opponent=answers(1),
        win_prob_BGH=win_prob[:, None, None],
        judge="panel",
        policy_name="trained",
        opponent_name="start",
    )


def fixture_metrics(updates: int, magnet_every: int = 20) -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    lines, kl_magnet = [], 0.0
    for update in range(1, updates + 1):
        progress = update / updates
        kl_magnet = kl_magnet * 0.97 + 0.12
        moved = update % magnet_every == 0
        lines.append(
            {
                "update": update,
                "step": update,
                "round": 0,
                "epoch": progress,
                "loss": -0.002 * progress + 0.004 * rng.normal(),
                "payoff_mean": 0.5,
                "payoff_std": 0.19 - 0.06 * progress + 0.015 * rng.normal(),
                "cyclic_triples": max(0.0, 0.06 + 0.02 * rng.normal()),
                "kl_magnet": kl_magnet + 0.08 * abs(rng.normal()),
                "kl_behavior": 0.02 + 0.01 * abs(rng.normal()),
                "kl_reference": 7.0 * progress**0.8 + 0.4 * abs(rng.normal()),
                "entropy": 1.9 - 0.5 * progress + 0.06 * rng.normal(),
                "response_tokens": 48.0 - 9.0 * progress + 2.0 * rng.normal(),
                "truncated": float(np.clip(0.42 - 0.25 * progress + 0.05 * rng.normal(), 0, 1)),
                "grad_norm": 0.8 + 0.3 * abs(rng.normal()) if update != 7 else float("nan"),
                "learning_rate": 1e-4 * min(1.0, update / 10),
                "magnet_moved": int(moved),
                "seconds_rollout": 2.4 + 0.2 * rng.normal(),
                "seconds_judge": 0.9 + 0.05 * abs(rng.normal()),
                "seconds_waiting": 0.5 + 0.05 * abs(rng.normal()),
                "seconds_logprobs": 0.8 + 0.05 * rng.normal(),
                "seconds_update": 1.9 + 0.1 * rng.normal(),
                "tokens_per_second": 430.0 + 20 * rng.normal(),
            }
        )
        if moved:
            kl_magnet = 0.0
    return lines


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.fixture(scope="session")
def summary() -> MatchupSummary:
    return summarize(fixture_matchup())


@pytest.fixture
def make_run(tmp_path: Path, summary: MatchupSummary) -> Callable[..., Path]:
    """Write a run's folder: `make_run(updates=30, evaluated=True, magnet_every=20)`."""

    def make(updates: int = 30, *, evaluated: bool = True, magnet_every: int = 20) -> Path:
        return write_run(tmp_path / "mpo-demo", summary, updates, evaluated=evaluated, magnet_every=magnet_every)

    return make


def write_run(
    folder: Path, summary: MatchupSummary, updates: int, *, evaluated: bool = True, magnet_every: int = 20
) -> Path:
    folder.mkdir()
    write_lines(folder / "metrics.jsonl", fixture_metrics(updates, magnet_every))
    config = {
        "method": "mpo",
        "model": "demo",
        "judge": "panel",
        "dataset": "demo",
        "args": {"step_size": 1.0, "magnet_strength": 0.05, "magnet_every": 20, "learning_rate": 1e-4, "note": None},
    }
    (folder / "magnetar_config.json").write_text(json.dumps(config))
    matrix = [[0.5, 0.8, 0.33], [0.2, 0.5, 0.67], [0.67, 0.33, 0.5]]
    write_lines(
        folder / "samples.jsonl",
        [
            {"update": u, "prompt": PROMPTS[u % 4], "responses": list(ANSWERS[1:]), "win_prob": matrix}
            for u in range(10, updates + 1, 10)
        ],
    )
    if evaluated:
        settings = {"policy": "mpo-demo", "opponent": "demo", "temperature": 1.0, "max_new_tokens": 64}
        write_evaluation(folder, summary, sample_records(fixture_matchup(), 30), settings)
    return folder
