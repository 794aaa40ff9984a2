"""One page of each kind, whose names, answers and settings are as hostile as a model's or a data set's may be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.cli.games import main as compare_games
from magnetar.evaluation import MatchupSummary, sample_records
from magnetar.evaluation.judging import evaluate_judge
from magnetar.evaluation.suite import SUITE_FILE, SuiteResult
from magnetar.judges import ScoreFunctionJudge
from magnetar.reports import write_judge_page, write_matchup_report, write_report
from unit.reports.conftest import fixture_matchup, write_run
from unit.reports.suite_example import POLICIES, example_suite

EVIL = (
    "<script>window.ran = 1</script><img src='http://127.0.0.1:9/x.png' onerror='window.ran = 1'>"
    "<link rel=stylesheet href='http://127.0.0.1:9/x.css'> </details></section> {{ 7 * 7 }} \u202eoverride & \"quotes\""
)
WORD = "donaudampfschifffahrtsgesellschaft" * 12  # no place to break a line


def hostile_suite() -> SuiteResult:
    """The example, with a hostile answer, prompt, category and note, and one policy with a name that never ends."""
    suite = example_suite()
    first = replace(
        suite.samples[0], prompt=[{"role": EVIL, "content": f"{EVIL} {WORD}"}], category=EVIL,
        responses={name: f"{EVIL} {WORD} \ud800" for name in POLICIES},
    )  # fmt: skip
    text = json.dumps(replace(suite, samples=[first, *suite.samples[1:]], notes=[EVIL, WORD]).to_dict())
    return SuiteResult.from_dict(json.loads(text.replace('"MPO-RT"', json.dumps(f"MPO-RT {WORD[:60]}"))))


def write_hostile_suite(folder: Path) -> None:
    """As JSON of ASCII letters, which can hold half of a surrogate pair."""
    folder.mkdir(exist_ok=True)
    (folder / SUITE_FILE).write_text(json.dumps(hostile_suite().to_dict()))


def write_pipeline(folder: Path, summary: MatchupSummary) -> Path:
    """A folder as `magnetar pipeline` leaves it: SFT, two judges, two seeds of training, an evaluation under way."""
    accuracy = {"value": 0.642, "low": 0.61, "high": 0.67, "confidence": 0.95, "method": "bca", "note": None}
    steps: dict[str, dict[str, Any]] = {
        "sft": {"results": {"loss": 1.93}, "seeds": {"seed": 0}, "hours": 0.4},
        "preference/cost": {"results": {"accuracy": 0.671, "held_out_pairs": 300, "note": None}, "hours": 0.2},
        "preference/pairwise": {"results": {"accuracy": accuracy}, "hours": 0.21},
        "train/MPO/seed-0": {"seeds": {"seed": 0}, "hours": 0.9},
        "train/MPO/seed-1": {"seeds": {"seed": 1}, "hours": 0.95},
        "evaluate": {"hours": 0.6},
    }
    for number, (name, extra) in enumerate(steps.items()):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("train"):
            write_run(place, summary, 30, evaluated=False)
        place.mkdir(exist_ok=True)
        uses = {} if name == "sft" else {"sft:": "ab12" * 8}
        inputs = {"settings": {"learning_rate": 1e-4, "note": EVIL}, "data": {"pairs": "sha256 77aa"}, "uses": uses}
        manifest = {
            "format": 1, "step": name, "inputs": inputs, "outputs": {}, "inputs_digest": f"{number}e" * 16,
            "outputs_digest": f"{number}f" * 16, "versions": {"torch": "2.13"}, "git": {"commit": "0123456789abcdef"},
            "hardware": {"cores": 2, "processor": "x86"}, "started": "", "command": [],
            "finished": f"2026-11-23T1{number}:00:00+00:00", **extra,
        }  # fmt: skip
        (place / "manifest.json").write_text(json.dumps(manifest))
    history = [{"step": step, "loss": 3.0 / step**0.3} for step in range(1, 40)]
    (folder / "sft" / "trainer_state.json").write_text(json.dumps({"log_history": [*history, {"step": 40, "x": 1}]}))
    (folder / "exploit").mkdir()
    (folder / "exploit" / "started.json").write_text("{}")
    write_hostile_suite(folder / "evaluate")
    return folder


def write_pages(folder: Path, summary: MatchupSummary) -> dict[str, Path]:
    """One page of each kind, by kind."""
    from unit.reports.test_comparison_page import found, row

    run = write_run(folder / "run", summary, 100)
    sample = {"prompt": f"{EVIL} {WORD}", "category": EVIL, "policy": f"{EVIL} {WORD}", "opponent": "", "win_prob": 0.5}
    with (run / "evaluation_samples.jsonl").open("a") as file:
        file.write(json.dumps(sample) + "\n")
    evil = replace(summary, judge=EVIL, policy=replace(summary.policy, name=WORD))
    matchup = write_matchup_report(evil, sample_records(fixture_matchup(), 30), folder / "matchup.html")
    write_hostile_suite(folder / "suite")
    (folder / "comparison").mkdir()
    labels = [row(f"method {number}", 0.5 + number / 50) for number in range(9)]
    rows = [*labels, row("reference", None)]
    matrix = [[None if i == j else one.win_rate or labels[0].win_rate for j in range(10)] for i, one in enumerate(rows)]
    curves = found().curves
    from magnetar.reports.comparison_files import write_comparison

    write_comparison(found(rows=rows, matrix=matrix, curves=curves), folder / "comparison")
    return {
        "run": write_report(run),
        "matchup": matchup,
        "suite": write_report(folder / "suite"),
        "comparison": write_report(folder / "comparison"),
        "pipeline": write_report(write_pipeline(folder / "pipeline", summary)),
        "judge": _judge_page(folder),
        "games": _game_page(folder / "games"),
    }


def _game_page(folder: Path) -> Path:
    words = ["--methods", "mirror_descent,mpo", "--updates", "40", "--out", str(folder)]
    assert compare_games(["compare", "--games", "biased_rps,random:actions=4", *words]) == 0
    return folder / "index.html"


def _judge_page(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    count = 60
    pairs = {
        "prompt": [f"{EVIL} {i // 2}" for i in range(count)],
        "first": [f"{WORD} {'x' * (i % 7 + 1)}" for i in range(count)],
        "second": [f"{EVIL} {'y' * (i % 5 + 8)}" for i in range(count)],
        "win_prob": (rng.random(count) > 0.7).astype(float).tolist(),
    }
    judge = ScoreFunctionJudge(lambda prompts, responses: [float(len(text)) for text in responses], name="longer")
    return write_judge_page(evaluate_judge(judge, pairs), folder / "judge.html")
