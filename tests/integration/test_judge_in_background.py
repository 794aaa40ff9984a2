"""A judge on threads changes no result, and neither it nor the trainer waits without need."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import (
    GAME,
    PROMPTS,
    assert_identical,
    make_trainer,
    metrics_without_times,
    read_lines,
    scoring_judge,
    snapshot,
)

from magnetar.errors import JudgeError
from magnetar.judges import Cached, CombinedJudge, Judge, ScoreFunctionJudge
from magnetar.training import gathering
from magnetar.training.checkpoints import complete_checkpoints
from processes import run_two_processes

HERE = Path(__file__).parent

# Groups of four responses, one group a part: six parts in two micro-batches of three prompts.
PARTS: dict[str, Any] = {
    "max_responses_per_pass": 4,
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
}
PATIENCE_SECONDS = 120  # after which an event that cannot come any more fails a test instead of hanging it


class Watched(Judge):
    """The game's judge, with a function that is called with the number (from 1) of each call before its answer."""

    name = "watched"

    def __init__(self, before: Callable[[int], object] = lambda number: None, calls_at_once: int = 1) -> None:
        self.inner, self.before, self.calls_at_once = GAME.judge(), before, calls_at_once
        self.asked: list[tuple[str, ...]] = []
        self.threads: set[threading.Thread] = set()
        self.calls, self.lock = 0, threading.Lock()

    def _group_win_prob(self, prompts: Sequence[Any], responses: Any) -> Any:
        self.watch(prompts)
        return self.inner.group_win_prob(prompts, responses)

    def _cross_win_prob(self, prompts: Sequence[Any], responses: Any, opponents: Any) -> Any:
        self.watch(prompts)
        return self.inner.cross_win_prob(prompts, responses, opponents)

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        self.watch(prompts)
        return self.inner.pair_win_prob(prompts, first, second)

    def watch(self, prompts: Sequence[Any]) -> None:
        with self.lock:
            self.calls += 1
            number = self.calls
            self.asked.append(tuple(dict.fromkeys(prompts)))
            self.threads.add(threading.current_thread())
        self.before(number)

    def _identity(self) -> dict[str, Any]:
        return {"game": self.inner.identity()}


def at_random_times(number: int) -> None:
    time.sleep(random.random() * 0.01)


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS), "what the judge waits for did not happen while it was asked"


def judging_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "magnetar-judging"]


def slow_scores() -> ScoreFunctionJudge:
    inner = scoring_judge()

    def score(prompts: list[Any], responses: list[str]) -> list[float]:
        at_random_times(0)
        return inner.scores(prompts, responses).tolist()

    return ScoreFunctionJudge(score, name="slow words", version="1")


RUNS: dict[str, dict[str, Any]] = {
    "mpo": {"max_steps": 3, "magnet_every": 1},
    "mpo with a role as opponent": {"max_steps": 2, "opponent": "reference", "num_opponents": 3},
    "exact KL, inner epochs, adaptive magnet": {
        **{"kl_estimator": "exact", "inner_epochs": 2, "max_steps": 6, "magnet_schedule": "adaptive"},
        "with_lora": True,
    },
    "nash_md": {"method": "nash_md", "max_steps": 2},
    "nash_md_pg, a mixture": {"method": "nash_md_pg", "max_steps": 2},
    "egpo, look-ahead and inner epochs": {"method": "egpo", "inner_epochs": 2, "max_steps": 8},
    "omwu, two opponents": {"method": "omwu", "inner_epochs": 2, "max_steps": 6},
    "ppo, scores and critic": {"method": "ppo", "inner_epochs": 2, "max_steps": 4, "judge": slow_scores},
    "iterative_dpo, rounds": {"method": "iterative_dpo", "num_rounds": 2, "max_steps": 2},
}


# One of each kind in every run of the suite.
SLOW = ("mpo with a role as opponent", "nash_md_pg, a mixture", "iterative_dpo, rounds")


@pytest.mark.parametrize("run", [pytest.param(run, marks=pytest.mark.slow) if run in SLOW else run for run in RUNS])
def test_a_judge_on_threads_that_answers_at_random_times_changes_not_a_bit(tmp_path: Path, run: str) -> None:
    settings = PARTS | RUNS[run]
    make_judge = settings.pop("judge", None)
    ends, logs = [], []
    for name, background, calls in (("off", False, 1), ("one thread", True, 1), ("three threads", True, 3)):
        judge = make_judge() if make_judge else Watched(at_random_times, calls)
        trainer = make_trainer(tmp_path / name, judge=judge, judge_in_background=background, **settings)
        start = {name: t.clone() for name, t in trainer.roles.current.state_dict().items()}
        trainer.train()
        ends.append(snapshot(trainer))
        logs.append(metrics_without_times(tmp_path / name))
        assert any(not torch.equal(tensor, ends[-1][f"policy.{name}"]) for name, tensor in start.items())
        if isinstance(judge, Watched):
            on_main = threading.main_thread() in judge.threads
            assert on_main != background and judge.calls > 6
    for end, log in zip(ends[1:], logs[1:], strict=True):
        assert_identical(ends[0], end)
        assert log == logs[0]  # the judge's counters are among them
    assert not judging_threads()


@pytest.mark.parametrize("background", [False, True])
def test_parts_and_the_whole_batch_have_the_same_responses_in_the_same_places(tmp_path: Path, background: bool) -> None:
    prompts = [*PROMPTS[:4], "rock paper scissors well"]  # lengths differ, so that parts are not in the batch's order
    seen = []
    for name, at_once in (("whole", None), ("parts", 8)):
        trainer = make_trainer(
            tmp_path / name,
            prompts=prompts,
            judge=Watched(),
            per_device_train_batch_size=5,
            max_steps=1,
            max_responses_per_pass=at_once,
            judge_in_background=background,
        )
        trainer.train()
        seen.append(trainer.last_experience)
    whole, parts = seen
    assert (parts.positions, parts.prompts, parts.texts) == (whole.positions, whole.prompts, whole.texts)
    assert parts.response_ids == whole.response_ids and parts.spent == whole.spent
    assert torch.equal(parts.win_prob_BGH, whole.win_prob_BGH) and torch.equal(parts.truncated_BG, whole.truncated_BG)
    assert parts.cyclic_triples == pytest.approx(whole.cyclic_triples, abs=1e-12)


class Engine:
    """The trainer's engine, with a function that is called with the number of each call when it is done."""

    def __init__(self, trainer: Any, after: Callable[[int], object]) -> None:
        self.inner, self.after, self.calls = trainer._collector.engine, after, 0
        object.__setattr__(trainer._collector, "engine", self)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        rollouts = self.inner.generate(*args, **kwargs)
        self.calls += 1
        self.after(self.calls)
        return rollouts


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_later_groups_are_generated_and_earlier_ones_learned_from_while_the_judge_is_asked(
    tmp_path: Path, micro_batches: int
) -> None:
    generated, learned = {2: threading.Event(), 6: threading.Event()}, threading.Event()

    def before(number: int) -> None:
        if number == 1:
            wait(generated[2])  # of part 2, before part 1 is answered
        elif number == 2:
            wait(generated[6])  # of the last part, perhaps in the second micro-batch, before part 2 is answered
        elif number == 6:
            wait(learned)  # a gradient, before the last part is answered

    judge = Watched(before)
    model = GAME.model(0, dtype=torch.float32)
    settings: dict[str, Any] = PARTS | {
        "per_device_train_batch_size": 6 // micro_batches,
        "gradient_accumulation_steps": micro_batches,
    }
    trainer = make_trainer(tmp_path, judge=judge, model=model, judge_in_background=True, max_steps=1, **settings)
    Engine(trainer, lambda number: generated[number].set() if number in generated else None)

    def taking_gradient(module: Any, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            learned.set()

    model.lm_head.register_forward_hook(taking_gradient)
    trainer.train()
    assert judge.calls == 6


def test_role_log_probabilities_are_measured_while_the_judge_is_asked(tmp_path: Path) -> None:
    measured = threading.Event()
    judge = Watched(lambda number: wait(measured) if number == 2 else None)
    trainer = make_trainer(tmp_path, judge=judge, judge_in_background=True, max_steps=2, num_generations=3)
    run = trainer._collector.passes.run  # in the second update the reference differs from the policy

    def see(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() and trainer.state.global_step == 1:
            measured.set()
        return run(*args, **kwargs)

    passes = type(trainer._collector.passes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "run", lambda self, *args, **kwargs: see(*args, **kwargs))
        trainer.train()
    assert judge.calls == 2


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_parts_wait_than_the_limit_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(gathering, "PARTS_AHEAD", limit)
    full, waiting = threading.Event(), []

    def before(number: int) -> None:
        if number == 1:
            wait(full)
        answered.append(number)

    answered: list[int] = []

    def after(number: int) -> None:
        waiting.append(number - len(answered))
        if number == limit:
            full.set()

    judge = Watched(before)
    trainer = make_trainer(tmp_path, judge=judge, judge_in_background=True, max_steps=2, **PARTS)
    Engine(trainer, after)
    trainer.train()
    assert len(waiting) == 12
    assert max(waiting) == limit


class Broken(Watched):
    """Fails at one of its calls."""

    def __init__(self, fails_at: int | None, error: BaseException, calls_at_once: int = 1) -> None:
        super().__init__(self.fail, calls_at_once)
        self.fails_at, self.error = fails_at, error

    def fail(self, number: int) -> None:
        if number == self.fails_at:
            raise self.error


@pytest.mark.parametrize("error", [JudgeError("the server is down"), ConnectionResetError("the server is down")])
@pytest.mark.parametrize("calls_at_once", [1, 3])
def test_a_judge_that_fails_on_a_thread_stops_the_run_as_one_that_does_not(
    tmp_path: Path, error: Exception, calls_at_once: int
) -> None:
    settings: dict[str, Any] = PARTS | {"judge_in_background": True, "max_steps": 4}
    whole = make_trainer(tmp_path / "whole", judge=Watched(), **settings)
    whole.train()
    judge = Broken(15, error, calls_at_once)  # in the third update of six parts each
    trainer = make_trainer(tmp_path / "run", judge=judge, **settings)
    with pytest.raises(JudgeError, match=r"update 3: .*the server is down.*mend the judge.*resume_from_checkpoint"):
        trainer.train()
    assert [folder.name for folder in complete_checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert not judging_threads()
    # No part was begun after the failure; with three calls at a time, those of the other two were then under way.
    assert 15 <= judge.calls < 15 + calls_at_once
    mended = make_trainer(tmp_path / "run", judge=Watched(), **settings)
    mended.train(resume_from_checkpoint=True)
    assert_identical(snapshot(mended), snapshot(whole))


def test_what_was_answered_before_a_failure_on_a_thread_is_kept(tmp_path: Path) -> None:
    settings: dict[str, Any] = PARTS | {"judge_in_background": True, "max_steps": 2, "max_completion_length": 3}
    for calls_at_once in (1, 3):
        answers = tmp_path / f"answers {calls_at_once}"
        judge = Broken(3, ConnectionResetError("down"), calls_at_once)
        with pytest.raises(JudgeError, match="update 1"):
            make_trainer(tmp_path / "run", judge=Cached(judge, answers), overwrite_output_dir=True, **settings).train()
        kept = [asked for asked in judge.asked if asked != judge.asked[2]]
        judge.asked.clear()
        judge.fails_at = None
        settings["max_steps"] = 1
        make_trainer(tmp_path / "run", judge=Cached(judge, answers), overwrite_output_dir=True, **settings).train()
        settings["max_steps"] = 2
        assert len(kept) >= 2 and judge.asked and not set(judge.asked) & set(kept)


def test_a_trainer_whose_judge_failed_can_train_again(tmp_path: Path) -> None:
    judge = Broken(8, ConnectionResetError("down"))
    trainer = make_trainer(tmp_path, judge=judge, judge_in_background=True, max_steps=3, **PARTS)
    with pytest.raises(JudgeError, match="update 2"):
        trainer.train()
    judge.fails_at = None
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3


def test_a_trainer_whose_judge_failed_in_the_first_update_can_begin_again(tmp_path: Path) -> None:
    settings: dict[str, Any] = PARTS | {"magnet_schedule": "adaptive"}
    judge = Broken(5, ConnectionResetError("down"))
    trainer = make_trainer(
        tmp_path / "run", judge=judge, judge_in_background=True, max_steps=2, overwrite_output_dir=True, **settings
    )
    with pytest.raises(JudgeError, match="nothing was saved"):
        trainer.train()
    judge.fails_at = None
    trainer.train()
    rows = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["update"] for row in rows if "loss" in row] == [1, 2]
    assert all("payoff_std" in row for row in rows if "loss" in row)


def test_an_interrupt_does_not_wait_for_the_judge_and_the_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings: dict[str, Any] = PARTS | {
        **{"judge_in_background": True, "max_steps": 4, "save_strategy": "steps", "save_steps": 1, "inner_epochs": 2},
    }
    whole = make_trainer(tmp_path / "whole", judge=Watched(), **settings)
    whole.train()
    release = threading.Event()

    def before(number: int) -> None:
        if number == 8:  # in the second update, with parts that wait; two signals: stop at once
            for _ in range(2):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                time.sleep(0.05)
            wait(release)

    judge = Watched(before)
    trainer = make_trainer(tmp_path / "run", judge=judge, **settings)
    with pytest.raises(KeyboardInterrupt, match="second signal"):
        trainer.train()
    threads = judging_threads()
    assert len(threads) == 1  # it still has its question, and did not hold the program up
    release.set()
    threads[0].join(PATIENCE_SECONDS)
    assert not judging_threads()
    assert judge.calls == 8  # none of the parts that waited was asked about
    resumed = make_trainer(tmp_path / "run", judge=Watched(), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(resumed), snapshot(whole))


def test_one_signal_lets_the_step_end_and_loses_nothing(tmp_path: Path) -> None:
    settings: dict[str, Any] = PARTS | {"judge_in_background": True, "max_steps": 4}
    whole = make_trainer(tmp_path / "whole", judge=Watched(), **settings)
    whole.train()
    judge = Watched(lambda number: os.kill(os.getpid(), signal.SIGTERM) if number == 8 else None)
    trainer = make_trainer(tmp_path / "run", judge=judge, **settings)
    with pytest.raises(KeyboardInterrupt, match="everything is saved"):
        trainer.train()
    assert judge.calls == 12 and not judging_threads()
    resumed = make_trainer(tmp_path / "run", judge=Watched(), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert_identical(snapshot(resumed), snapshot(whole))


def test_an_interrupt_that_the_judge_raises_reaches_the_caller(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, judge=Broken(3, KeyboardInterrupt("by hand")), judge_in_background=True, max_steps=2, **PARTS
    )
    with pytest.raises(KeyboardInterrupt, match="by hand"):
        trainer.train()


def test_a_panel_with_a_cache_counts_and_answers_alike_on_threads(tmp_path: Path) -> None:
    """Prompts come twice in an update, and the second of equal questions is answered from the cache on threads too."""
    settings: dict[str, Any] = PARTS | {"max_steps": 3, "prompts": ["rock paper", "well rock"], "num_train_epochs": 9}
    logs, ends = [], []
    for background in (False, True):
        folder = tmp_path / str(background)
        judges = {name: Watched(at_random_times, calls_at_once=3) for name in ("a", "b")}
        judge = Cached(CombinedJudge(judges), folder / "answers")
        assert judge.calls_at_once == 3
        trainer = make_trainer(folder / "run", judge=judge, judge_in_background=background, **settings)
        trainer.train()
        logs.append(metrics_without_times(folder / "run"))
        ends.append(snapshot(trainer))
    assert logs[0] == logs[1]
    assert sum(row.get("judge/cache_hits", 0) for row in logs[0]) > 0
    assert_identical(*ends)


def test_a_pair_that_is_left_open_in_one_part_does_not_stop_a_run_that_has_others(tmp_path: Path) -> None:
    class Abstaining(Watched):
        may_abstain = True

        def _group_win_prob(self, prompts: Sequence[Any], responses: Any) -> Any:
            answer = super()._group_win_prob(prompts, responses)
            hidden = np.array([self.hides(prompt) for prompt in prompts])[:, None, None] & ~np.eye(4, dtype=bool)
            return np.where(hidden, np.nan, answer)

        def hides(self, prompt: str) -> bool:
            return prompt != PROMPTS[0]

    settings: dict[str, Any] = {"per_device_train_batch_size": 12, "max_responses_per_pass": 4, "max_steps": 1}
    for background in (False, True):
        trainer = make_trainer(
            tmp_path / str(background), judge=Abstaining(), judge_in_background=background, **settings
        )
        trainer.train()
        weights = trainer.last_experience.response_weight_BG.sum(-1)
        assert weights.count_nonzero() == 1
    silent = Abstaining()
    silent.hides = lambda prompt: True  # type: ignore[method-assign]
    trainer = make_trainer(tmp_path / "silent", judge=silent, judge_in_background=True, **settings)
    with pytest.raises(JudgeError, match="answered none of the pairs of 12 prompts"):
        trainer.train()


def test_the_trainer_waits_for_all_of_a_judge_that_it_asks_itself(tmp_path: Path) -> None:
    for background in (False, True):
        folder = tmp_path / str(background)
        make_trainer(folder, judge=Watched(), judge_in_background=background, max_steps=2, **PARTS).train()
        for row in (row for row in read_lines(folder / "metrics.jsonl") if "loss" in row):
            assert row["seconds_judge"] > 0 and row["seconds_waiting"] > 0
            assert background or row["seconds_waiting"] >= row["seconds_judge"]
            trainer_seconds = sum(row[f"seconds_{stage}"] for stage in ("rollout", "waiting", "logprobs", "update"))
            tokens = row["response_tokens"] * 6 * 4
            assert row["tokens_per_second"] == pytest.approx(tokens / trainer_seconds, rel=1e-6)


# On two processes: the same run without and with threads, then one whose judge fails on one of them in a later part.
TWO = """
import random
from safetensors.torch import save_file
from test_judge_in_background import Broken, Watched, at_random_times
from tiny_runs import make_trainer, snapshot
from magnetar.errors import JudgeError

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
rank = int(os.environ["RANK"])
random.seed(rank)
for name, background in (("off", False), ("on", True)):
    judge = Watched(at_random_times, calls_at_once=2)
    trainer = make_trainer(folder / name, judge=judge, judge_in_background=background, **settings)
    trainer.train()
    assert trainer.args.world_size == 2
    save_file(snapshot(trainer), folder / f"{name}-{rank}.safetensors")
judge = Broken(9 if rank == 1 else None, ConnectionError("the server is down"))
trainer = make_trainer(folder / "failing", judge=judge, judge_in_background=True, **settings)
try:
    trainer.train()
except JudgeError as error:
    (folder / f"error-{rank}.txt").write_text(str(error))
"""


def test_two_processes_learn_the_same_with_threads_and_stop_together(tmp_path: Path) -> None:
    # Six parts an update on each process, in two micro-batches.
    settings = PARTS | {"max_steps": 3, "method": "nash_md", "max_tokens_per_pass": 16}
    run_two_processes(tmp_path / "two", settings, TWO, HERE)
    folder = tmp_path / "two"
    for rank in range(2):
        assert_identical(*(load_file(folder / f"{name}-{rank}.safetensors") for name in ("off", "on")))
    assert_identical(*(load_file(folder / f"on-{rank}.safetensors") for rank in range(2)))
    assert metrics_without_times(folder / "off") == metrics_without_times(folder / "on")
    errors = [(folder / f"error-{rank}.txt").read_text() for rank in range(2)]
    assert errors[0] == errors[1] and "update 2: " in errors[0] and "the server is down" in errors[0]
    assert [path.name for path in complete_checkpoints(folder / "failing")] == ["checkpoint-1"]
