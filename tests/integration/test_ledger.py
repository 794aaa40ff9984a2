"""The ledger counts what was asked and sampled, a budget ends the run, and resuming changes neither."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from tiny_runs import GAME, assert_identical, make_trainer, metrics_without_times, read_lines, snapshot

from magnetar.errors import CheckpointError, ConfigError
from magnetar.judges import ScoreFunctionJudge
from magnetar.rollout import SamplingParams, TransformersEngine
from magnetar.training.ledger import Budget, Ledger, counted_answers, read_ledger
from magnetar.training.snapshots import PolicySnapshots, snapshots
from processes import run_two_processes


class Counting(type(GAME.judge())):
    """The game's judge, with every pair that it was asked about."""

    def __init__(self) -> None:
        super().__init__(GAME.texts, GAME.game.P)
        self.pairs = 0

    def _group_win_prob(self, prompts: Any, responses: Any) -> Any:
        for group in responses:
            self.pairs += sum(1 for i in range(len(group)) for _ in range(i))
        return super()._group_win_prob(prompts, responses)

    def _cross_win_prob(self, prompts: Any, responses: Any, opponents: Any) -> Any:
        for mine, theirs in zip(responses, opponents, strict=True):
            self.pairs += sum(1 for _ in mine for _ in theirs)
        return super()._cross_win_prob(prompts, responses, opponents)


class CountingScores(ScoreFunctionJudge):
    """A judge that scores, with the number of scores that it gave."""

    def __init__(self) -> None:
        super().__init__(_scissors, name="scissors")
        self.pairs = 0  # what a method pays for: here each score is one

    def features(self, prompts: Any, responses: Any) -> Any:
        self.pairs += len(responses)
        return super().features(prompts, responses)


def _scissors(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(text.count("scissors")) for text in responses]


class CountingEngine(TransformersEngine):
    """transformers' engine, with every response that it sampled."""

    def __init__(self) -> None:
        super().__init__(cast(Any, GAME.tokenizer), SamplingParams(3, 1.0, 1.0, 0))
        self.lengths: list[int] = []

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self._noted(super().generate(*args, **kwargs))

    def generate_mixture(self, *args: Any, **kwargs: Any) -> Any:
        return self._noted(super().generate_mixture(*args, **kwargs))

    def _noted(self, rollouts: Any) -> Any:
        self.lengths += [len(tokens) for group in rollouts.response_ids for tokens in group]
        return rollouts


NO_MAGNET: dict[str, Any] = {"magnet_every": None, "magnet_strength": None}
# name: (settings, pairs of one prompt in an update, opponents' responses to it); the first update of an optimistic
# method has no policy before it, and is its own row.
RUNS: dict[str, tuple[dict[str, Any], int, int]] = {
    "self-play": ({}, 6, 0),
    "two steps on each batch": ({"inner_epochs": 2, "max_steps": 6}, 6, 0),
    "opponents from the reference": ({"opponent": "reference", "num_opponents": 3}, 12, 3),
    "accumulation": ({"gradient_accumulation_steps": 2}, 6, 0),
    "extragradient": ({"method": "egpo", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}, 6 + 12, 3),
    "mixture": ({"method": "nash_md", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}, 12, 3),
    "rewards": ({"method": "rloo", **NO_MAGNET}, 4, 0),
    "rewards and a critic": ({"method": "ppo", **NO_MAGNET}, 4, 0),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_ledger_equals_counts_of_judge_and_engine(tmp_path: Path, name: str) -> None:
    settings, pairs, opponents = RUNS[name]
    judge = CountingScores() if name.startswith("rewards") else Counting()
    engine = CountingEngine()
    trainer = make_trainer(tmp_path, judge=judge, rollout_engine=engine, **settings)
    trainer.train()
    ledger = trainer.ledger
    assert ledger.updates == trainer.plan.updates
    assert ledger.prompts == len(trainer.plan.rows)
    assert ledger.comparisons == judge.pairs == ledger.prompts * pairs
    assert ledger.generated_responses == len(engine.lengths) == ledger.prompts * (4 + opponents)
    assert ledger.generated_tokens == sum(engine.lengths)
    assert ledger.judged_responses == ledger.generated_responses
    assert ledger.seconds > 0


def test_an_optimistic_method_also_pays_for_the_policy_of_the_update_before(tmp_path: Path) -> None:
    judge, engine = Counting(), CountingEngine()
    settings: dict[str, Any] = {"method": "omwu", "num_opponents": 3, "max_steps": 3, **NO_MAGNET}
    trainer = make_trainer(tmp_path, judge=judge, rollout_engine=engine, **settings)
    trainer.train()
    # 2 prompts: 6 pairs in each of 3 updates, and 4 × 3 more from the second update on.
    assert trainer.ledger.comparisons == judge.pairs == 2 * (6 + 18 + 18)
    assert trainer.ledger.generated_tokens == sum(engine.lengths)
    assert trainer.ledger.generated_responses == len(engine.lengths) == 2 * (4 + 7 + 7)


def test_each_line_of_metrics_says_what_was_spent_so_far(tmp_path: Path) -> None:
    judge, engine = Counting(), CountingEngine()
    make_trainer(tmp_path, judge=judge, rollout_engine=engine, max_steps=3).train()
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [row["total_comparisons"] for row in rows] == [12, 24, 36]
    assert [row["total_tokens"] for row in rows] == [sum(engine.lengths[: 8 * update]) for update in (1, 2, 3)]


@pytest.mark.parametrize(
    ("budget", "updates"), [({"max_comparisons": 24}, 2), ({"max_comparisons": 25}, 3), ({"max_tokens": 1}, 1)]
)
def test_training_ends_after_the_update_that_reaches_the_budget(
    tmp_path: Path, budget: dict[str, Any], updates: int
) -> None:
    trainer = make_trainer(tmp_path, **budget)
    trainer.train()
    assert trainer.ledger.updates == updates
    record = json.loads((tmp_path / "ledger.json").read_text())
    assert (record["finished"], record["reason"]) == (True, "budget")
    assert read_ledger(tmp_path) == trainer.ledger


def test_a_run_whose_data_end_first_says_so(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_comparisons=10_000, max_steps=2)
    trainer.train()
    assert json.loads((tmp_path / "ledger.json").read_text())["reason"] == "max_steps or end of data"
    assert trainer.ledger.updates == 2


def test_an_update_is_never_cut_in_two_by_a_budget(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "egpo", "step_size": 1.0, "magnet_every": None, "num_opponents": 3}
    trainer = make_trainer(tmp_path, max_comparisons=1, **settings)
    trainer.train()
    assert (trainer.state.global_step, trainer.ledger.updates) == (2, 1)
    assert trainer.ledger.comparisons == 2 * (6 + 12)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_comparisons": 60}, (1, 4)),
        # Step 3 is in the middle of an update whose comparisons are already booked.
        ({"inner_epochs": 2, "max_steps": 12, "max_comparisons": 48}, (2, 3)),
        ({"method": "egpo", "step_size": 1.0, "magnet_every": None, "max_steps": 8, "max_tokens": 60}, (1, 2)),
    ],
    ids=["self-play", "inner epochs", "extragradient"],
)
def test_the_ledger_of_a_resumed_run_is_that_of_the_uninterrupted_one(
    tmp_path: Path, settings: dict[str, Any], steps: tuple[int, ...]
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1} | settings
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    for step in steps:
        folder = tmp_path / f"resumed-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        resumed = make_trainer(folder, **settings)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert resumed.ledger.counts() == whole.ledger.counts()
        assert resumed.ledger.seconds > 0
        assert metrics_without_times(folder) == metrics_without_times(tmp_path / "whole")
        assert_identical(snapshot(resumed), snapshot(whole))


def test_resuming_a_run_that_spent_its_budget_trains_nothing_more(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 10, "max_comparisons": 24}
    whole = make_trainer(tmp_path, **settings)
    whole.train()
    (tmp_path / "ledger.json").unlink()  # as if it had been killed before the end was written down
    judge = Counting()
    again = make_trainer(tmp_path, judge=judge, **settings)
    again.train(resume_from_checkpoint=True)
    assert judge.pairs == 0
    assert_identical(snapshot(again), snapshot(whole))
    assert read_ledger(tmp_path).counts() == whole.ledger.counts()


def test_seconds_of_an_interrupted_run_add_up(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    make_trainer(tmp_path, **settings).train()
    path = tmp_path / "checkpoint-1" / "magnetar_state.json"
    state = json.loads(path.read_text())
    state["ledger"]["seconds"] = 1000.0
    path.write_text(json.dumps(state))
    resumed = make_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert 1000.0 < resumed.ledger.seconds < 1100.0


@pytest.mark.parametrize("name", ["max_comparisons", "max_tokens"])
@pytest.mark.parametrize("value", [0, -5])
def test_a_budget_that_is_not_positive_is_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        make_trainer(tmp_path, **cast(Any, {name: value}))


@pytest.mark.parametrize("seed", range(20))
def test_counted_answers_equal_an_enumeration_of_pairs(seed: int) -> None:
    b, g, h = ((seed * 7 + 3) % 5, (seed * 5 + 1) % 6, (seed * 3 + 2) % 4)
    within = sum(1 for _ in range(b) for i in range(g) for _ in range(i))
    across = sum(1 for _ in range(b) for _ in range(g) for _ in range(h))
    assert counted_answers(b, g, None) == within
    assert counted_answers(b, g, h) == across
    assert counted_answers(b, g, None, rewards_only=True) == b * g


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"opponent": "reference", "num_opponents": 3},
        {"method": "egpo", "step_size": 1.0, "magnet_every": None, "num_opponents": 3},
        {"method": "omwu", "num_opponents": 3, **NO_MAGNET},
        {"method": "rloo", **NO_MAGNET},
    ],
)
@pytest.mark.parametrize("unit", ["comparisons", "tokens", "updates"])
def test_no_run_needs_more_updates_than_foreseen(tmp_path: Path, settings: dict[str, Any], unit: str) -> None:
    budget = Budget(unit, {"comparisons": 70, "tokens": 60, "updates": 3}[unit])  # type: ignore[arg-type]
    limit: dict[str, Any] = {} if unit == "updates" else {f"max_{unit}": budget.amount}
    judge = CountingScores() if settings.get("method") == "rloo" else None
    probe = make_trainer(tmp_path / "probe", judge=judge, **settings)
    foreseen = probe.settings.updates_within(budget)
    steps = foreseen * probe.settings.steps_per_update
    trainer = make_trainer(tmp_path / "run", judge=judge, **cast(Any, settings | {"max_steps": steps} | limit))
    trainer.train()
    assert budget.reached(trainer.ledger)
    if unit == "comparisons":
        assert trainer.ledger.updates == foreseen
    assert trainer.ledger.updates <= foreseen


def test_policies_are_kept_when_a_share_of_the_budget_is_spent(tmp_path: Path) -> None:
    def train(folder: Path, resume: Path | None = None) -> Any:
        trainer = make_trainer(folder, max_comparisons=60, save_strategy="steps", save_steps=1, with_lora=True)
        trainer.add_callback(PolicySnapshots(trainer, Budget("comparisons", 60), 3))
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        return trainer

    train(tmp_path / "whole")
    kept = snapshots(tmp_path / "whole")
    # 12 comparisons an update: a third (20) is passed with the second, two thirds (40) with the fourth.
    assert [(path.name, ledger.comparisons) for path, ledger in kept] == [("update-2", 24), ("update-4", 48)]
    weights = {path.name: (path / "adapter_model.safetensors").read_bytes() for path, _ in kept}
    assert len(set(weights.values())) == 2
    for step in (1, 2, 3):
        folder = tmp_path / f"resumed-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        train(folder, folder / f"checkpoint-{step}")
        again = {path.name: (path / "adapter_model.safetensors").read_bytes() for path, _ in snapshots(folder)}
        assert again == weights


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text('{"updates": 3')
    with pytest.raises(CheckpointError, match=r"ledger\.json cannot be read"):
        read_ledger(tmp_path)


def test_ledgers_add_up() -> None:
    one, two = Ledger(1, 2, 3, 4, 5, 6, 7.0), Ledger(10, 20, 30, 40, 50, 60, 70.0)
    assert one + two == Ledger(11, 22, 33, 44, 55, 66, 77.0)
    assert Ledger.from_counts(two.counts()) == Ledger(10, 20, 30, 40, 50, 60)


LEDGER_SCRIPT = """
from dataclasses import asdict

from tiny_runs import make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
trainer = make_trainer(folder / "run", **settings)
trainer.train()
(folder / f"ledger-{trainer.args.process_index}.json").write_text(json.dumps(asdict(trainer.ledger)))
"""


@pytest.mark.slow
def test_two_processes_together_spend_what_one_does(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.5, "max_tokens": 60}
    run_two_processes(tmp_path / "two", settings, LEDGER_SCRIPT, Path(__file__).parent)
    one = make_trainer(tmp_path / "one", per_device_train_batch_size=4, **settings)
    one.train()
    for rank in range(2):
        ledger = Ledger(**json.loads((tmp_path / "two" / f"ledger-{rank}.json").read_text()))
        assert ledger.counts() == one.ledger.counts()
    assert read_ledger(tmp_path / "two" / "run").counts() == one.ledger.counts()
    assert one.ledger.updates < 6
