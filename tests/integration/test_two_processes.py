"""Two processes train as one process with twice the batch does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import (
    GAME,
    PROMPTS,
    TRAINABLE,
    assert_close,
    make_trainer,
    metrics_without_times,
    read_lines,
    snapshot,
    updates_of,
)

from magnetar.training.checkpoints import complete_checkpoints
from processes import run_two_processes

HERE = Path(__file__).parent
SCRIPT = """
from safetensors.torch import save_file
from test_two_processes import Recorder
from tiny_runs import PROMPTS, make_trainer, snapshot

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
judge = Recorder()
trainer = make_trainer(
    folder / "run", judge=judge, per_device_train_batch_size=2, eval_prompts=PROMPTS[:5], **settings
)
trainer.train()
rank = trainer.args.process_index
assert trainer.args.world_size == 2
(folder / f"asked-{rank}.json").write_text(json.dumps(judge.asked))
save_file(snapshot(trainer), folder / f"weights-{rank}.safetensors")
trainer.evaluate()
"""


FAILING = """
from test_two_processes import Recorder
from tiny_runs import make_trainer
from magnetar.errors import JudgeError

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
judge = Recorder()
trainer = make_trainer(folder / "run", judge=judge, **settings)
judge.fails_at = 2 if trainer.args.process_index == 1 else None
try:
    trainer.train()
except JudgeError as error:
    (folder / f"error-{trainer.args.process_index}.txt").write_text(str(error))
"""


EACH = """
from safetensors.torch import save_file
from tiny_runs import make_trainer, snapshot

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, fields in settings.items():
    trainer = make_trainer(folder / name, per_device_train_batch_size=2, **fields)
    trainer.train()
    save_file(snapshot(trainer), folder / f"{name}-{trainer.args.process_index}.safetensors")
"""
# One of each kind of objective and of opponent; mpo has tests of its own above.
ONE_OF_A_KIND = ("nash_md", "egpo", "omwu", "sppo", "inpo", "iterative_dpo")


SHARED_ENGINE = """
from test_two_processes import Recorder
from tiny_runs import GAME, make_trainer
from vllm_reference import ReferenceBackend
from magnetar.errors import JudgeError
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import VllmEngine

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
rank, judge = int(os.environ["RANK"]), Recorder()
start = lambda model: ReferenceBackend(model.config)
engine = VllmEngine(GAME.tokenizer, SamplingParams(3), start, sharers=2, rank=rank)
trainer = make_trainer(folder / "run", judge=judge, rollout_engine=engine, **settings)
judge.fails_at = 2 if rank == 1 else None
try:
    trainer.train()
except JudgeError as error:
    (folder / f"error-{rank}.txt").write_text(str(error))
"""


class Recorder(type(GAME.judge())):
    """The game's judge, with a record of every question."""

    def __init__(self) -> None:
        super().__init__(GAME.texts, GAME.game.P)
        self.asked: list[Any] = []
        self.fails_at: int | None = None

    def _group_win_prob(self, prompts: Any, responses: Any) -> Any:
        self.asked.append([list(prompts), [list(group) for group in responses]])
        if len(self.asked) == self.fails_at:
            raise ConnectionError("the server is down")
        return super()._group_win_prob(prompts, responses)


@pytest.mark.parametrize(
    "settings",
    [
        {"with_lora": True, "gradient_accumulation_steps": 2, "max_steps": 3, "magnet_every": 1},
        {"inner_epochs": 2, "kl_estimator": "exact", "max_steps": 6, "max_tokens_per_pass": 16},
    ],
    ids=["lora-accumulation", "full-inner-epochs"],
)
def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path, settings: dict[str, Any]) -> None:
    # SGD: Adam divides rounding noise by itself where a gradient vanishes, and would hide nothing else.
    settings = settings | {"optim": "sgd", "learning_rate": 0.5}
    run_two_processes(tmp_path / "two", settings, SCRIPT, HERE)
    judge = Recorder()
    one = make_trainer(
        tmp_path / "one", judge=judge, per_device_train_batch_size=4, eval_prompts=PROMPTS[:5], **settings
    )
    start = {name: tensor.clone() for name, tensor in one.roles.current.state_dict().items()}
    one.train()
    moved = max(float((t - start[n]).abs().max()) for n, t in one.roles.current.state_dict().items())
    assert moved > 1e-2  # the tolerance below means something

    two = [load_file(tmp_path / "two" / f"weights-{rank}.safetensors") for rank in range(2)]
    assert_close(two[0], two[1], 0.0)
    assert_close(two[0], snapshot(one), 1e-5)

    asked = [json.loads((tmp_path / "two" / f"asked-{rank}.json").read_text()) for rank in range(2)]
    groups = [
        {(prompt, tuple(group)) for prompts, answers in calls for prompt, group in zip(prompts, answers, strict=True)}
        for calls in (*asked, judge.asked)
    ]
    updates = settings["max_steps"] // settings.get("inner_epochs", 1)
    count = settings.get("gradient_accumulation_steps", 1) * updates
    for rank in range(2):
        assert [len(prompts) for prompts, _ in asked[rank]] == [2] * count
    # Each process asked about its own groups; together they are exactly those of the single process.
    played = [prompt for rank in range(2) for prompts, _ in asked[rank] for prompt in prompts]
    assert sorted(played) == sorted(prompt for prompts, _ in judge.asked for prompt in prompts)
    per_update = len(played) // updates
    assert per_update == 4 * settings.get("gradient_accumulation_steps", 1)
    assert groups[0] | groups[1] == groups[2]

    one.evaluate()
    rows_one, rows_two = metrics_without_times(tmp_path / "one"), metrics_without_times(tmp_path / "two" / "run")
    training = [row for row in rows_one if "loss" in row]
    assert len(training) == settings["max_steps"]
    for row_one, row_two in zip(training, [row for row in rows_two if "loss" in row], strict=True):
        assert row_one.keys() == row_two.keys()
        for name, value in row_one.items():
            # A process counts its own comparisons; everything else is a mean over all prompts.
            if not name.startswith("judge/"):
                assert row_two[name] == pytest.approx(value, rel=1e-3, abs=2e-5), name
    assert "tokens_per_second" in read_lines(tmp_path / "two" / "run" / "metrics.jsonl")[0]
    # The match-up on held-out prompts is the same too: answers depend on the prompt's row, not on who plays it.
    (eval_one,), (eval_two,) = ([row for row in rows if "eval_win_rate" in row] for rows in (rows_one, rows_two))
    for name in ("eval_win_rate", "eval_win_rate_low", "eval_response_tokens", "eval_reference_tokens"):
        assert eval_two.get(name) == pytest.approx(eval_one.get(name), abs=1e-6), name


@pytest.mark.parametrize(
    "methods", [ONE_OF_A_KIND, pytest.param(TRAINABLE, marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_every_method_learns_the_same_on_two_processes(tmp_path: Path, methods: tuple[str, ...]) -> None:
    settings = {
        name: {"method": name, "optim": "sgd", "learning_rate": 0.5, **updates_of(name, updates=2, inner_epochs=2)}
        for name in methods
    }
    run_two_processes(tmp_path / "two", settings, EACH, HERE)  # one launch, for most of it is starting
    for name, fields in settings.items():
        one = make_trainer(tmp_path / name, per_device_train_batch_size=4, **fields)
        start = {key: tensor.clone() for key, tensor in one.roles.current.state_dict().items()}
        one.train()
        moved = max(float((t - start[key]).abs().max()) for key, t in one.roles.current.state_dict().items())
        assert moved > 1e-3, name  # the tolerance below means something
        two = [load_file(tmp_path / "two" / f"{name}-{rank}.safetensors") for rank in range(2)]
        assert_close(two[0], two[1], 0.0)
        assert_close(two[0], snapshot(one), 1e-5)


def test_prompts_of_an_update_are_not_dealt_twice(tmp_path: Path) -> None:
    judge = Recorder()
    trainer = make_trainer(tmp_path, judge=judge, max_steps=3, gradient_accumulation_steps=2)
    trainer.train()
    assert torch.equal(torch.tensor([len(p) for p, _ in judge.asked]), torch.full((6,), 2))
    played = [prompt for prompts, _ in judge.asked for prompt in prompts]
    assert sorted(played) == sorted(PROMPTS)  # 3 updates × 4 prompts: one pass over the twelve


def test_a_judge_that_fails_on_one_process_stops_both_with_one_checkpoint(tmp_path: Path) -> None:
    run_two_processes(tmp_path / "two", {"max_steps": 4}, FAILING, HERE)
    errors = [(tmp_path / "two" / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert "update 2: " in errors[0] and "the server is down" in errors[0]
    assert [path.name for path in complete_checkpoints(tmp_path / "two" / "run")] == ["checkpoint-1"]


@pytest.mark.slow
def test_processes_that_share_an_engine_stop_together_when_one_judge_fails_in_the_middle_of_a_step(
    tmp_path: Path,
) -> None:
    settings = {"max_steps": 2, "gradient_accumulation_steps": 4, "per_device_train_batch_size": 1}
    run_two_processes(tmp_path / "two", settings, SHARED_ENGINE, HERE)
    for rank in range(2):
        assert "the server is down" in (tmp_path / "two" / f"error-{rank}.txt").read_text()
