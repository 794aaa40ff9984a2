"""Questions to a judge on threads: order, failure, rest; and the order in which parts are begun and finished."""

import random
import threading
import time
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from magnetar.training import judging
from magnetar.training.judging import Judging
from magnetar.training.pipeline import MicroBatch, StepParts, finished_in_order

PATIENCE_SECONDS = 60


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS)


def test_one_thread_answers_in_the_order_of_the_questions() -> None:
    asked: list[int] = []

    def question(number: int) -> int:
        time.sleep(random.random() * 0.002)
        asked.append(number)
        return number * number

    asking = Judging(1)
    answers = [asking.ask(lambda number=number: question(number), [f"prompt {number}"]) for number in range(40)]
    assert [asking.wait(answer) for answer in answers] == [number**2 for number in range(40)]
    assert asked == list(range(40))


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_as_many_questions_are_asked_at_once_as_there_are_threads(threads: int) -> None:
    together = threading.Barrier(max(threads, 1))
    asking = Judging(threads)
    answers = [
        asking.ask(lambda: together.wait(PATIENCE_SECONDS), [str(number)]) for number in range(3 * max(threads, 1))
    ]
    for answer in answers:
        asking.wait(answer)  # a broken barrier raises: fewer than that came together
    assert not asking._alive
    assert not [thread for thread in threading.enumerate() if thread.name == "magnetar-judging"]


def test_without_threads_the_caller_asks() -> None:
    asking = Judging(0)
    answer = asking.ask(threading.current_thread, ["prompt"])
    assert answer.done() and asking.wait(answer) is threading.current_thread()
    failed = asking.ask(lambda: 1 / 0, ["prompt"])
    with pytest.raises(ZeroDivisionError):
        asking.wait(failed)
    with pytest.raises(ZeroDivisionError):
        asking.check()
    with pytest.raises(KeyboardInterrupt):
        Judging(0).ask(interrupt, ["prompt"])


def interrupt() -> None:
    raise KeyboardInterrupt


class PerPrompt:
    """Records what is asked, and fails if one prompt is asked about twice at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open: set[str] = set()
        self.lock, self.other = threading.Lock(), threading.Event()

    def ask(self, name: str) -> str:
        prompt = name[0]
        with self.lock:
            assert prompt not in self.open
            self.open.add(prompt)
            self.asked.append(name)
        if name == "a1":
            wait(self.other)
        if name == "b1":
            self.other.set()
        with self.lock:
            self.open.discard(prompt)
        return name


def test_questions_about_one_prompt_are_asked_one_after_another_and_others_meanwhile() -> None:
    for _ in range(20):
        seen, asking = PerPrompt(), Judging(3)
        names = ["a1", "a2", "b1", "b2", "a3"]
        answers = [asking.ask(partial(seen.ask, name), [name[0]]) for name in names]
        assert [asking.wait(answer) for answer in answers] == names
        assert [name for name in seen.asked if name[0] == "a"] == ["a1", "a2", "a3"]
        assert [name for name in seen.asked if name[0] == "b"] == ["b1", "b2"]


def test_after_a_failure_nothing_is_begun_and_what_was_begun_ends() -> None:
    begun, release = threading.Event(), threading.Event()

    def fails() -> None:
        wait(begun)
        raise ConnectionError("down")

    def goes_on() -> str:
        begun.set()
        wait(release)
        return "paid for"

    asked: list[int] = []
    asking = Judging(2)
    first, second = asking.ask(fails, ["1"]), asking.ask(goes_on, ["2"])
    third = asking.ask(lambda: asked.append(3), ["3"])
    for answer in (first, third):
        with pytest.raises(ConnectionError, match="down"):
            asking.wait(answer)
    with pytest.raises(ConnectionError, match="down"):
        asking.wait(asking.ask(lambda: asked.append(4), ["4"]))
    with pytest.raises(ConnectionError, match="down"):
        asking.check()
    release.set()
    assert asking.wait(second) == "paid for"
    asking.stop(wait=True)
    assert not asked and not asking._alive


def test_stopping_drops_what_waits_and_waits_for_what_is_asked_if_told_to() -> None:
    begun, release = threading.Event(), threading.Event()

    def held() -> str:
        begun.set()
        wait(release)
        return "answered"

    asking = Judging(1)
    first, second = asking.ask(held, ["1"]), asking.ask(lambda: "never", ["2"])
    wait(begun)
    asking.stop(wait=False)  # returns while the first is open
    assert not first.done() and second.cancelled()
    release.set()
    asking.stop(wait=True)
    assert first.result() == "answered" and not asking._alive


def test_the_judge_is_busy_while_any_question_is_open_and_overlaps_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(judging.time, "perf_counter", lambda: now[0])
    both, second_may_end = threading.Barrier(3), threading.Event()

    def first() -> None:
        both.wait(PATIENCE_SECONDS)
        both.wait(PATIENCE_SECONDS)

    def second() -> None:
        first()
        wait(second_may_end)

    asking = Judging(2)
    a, b = asking.ask(first, ["1"]), asking.ask(second, ["2"])
    both.wait(PATIENCE_SECONDS)  # both are open since 0
    now[0] = 10.0
    both.wait(PATIENCE_SECONDS)
    asking.wait(a)
    now[0] = 12.0
    assert asking.take_seconds()["judge"] == 12.0  # the second is still open
    now[0] = 15.0
    second_may_end.set()
    asking.wait(b)
    now[0] = 40.0  # nobody is asked
    assert asking.take_seconds()["judge"] == 3.0
    answer = Judging(0)
    answer.ask(lambda: now.__setitem__(0, 47.0), ["3"])
    assert answer.take_seconds() == {"judge": 7.0, "waiting": 7.0}


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_jobs_are_finished_in_order_and_begun_as_far_ahead_as_the_limit_allows(count: int, limit: int) -> None:
    events: list[tuple[str, int]] = []

    def begin(number: int) -> Any:
        events.append(("begin", number))
        return lambda: events.append(("finish", number)) or number

    assert list(finished_in_order(range(count), begin, limit)) == list(range(count))
    for number in range(count):
        # Job n is finished as soon as ``limit`` jobs are open, or all are begun; and not before.
        begun_before = [n for kind, n in events[: events.index(("finish", number))] if kind == "begin"]
        assert begun_before == list(range(min(count, number + limit)))


def test_a_micro_batch_is_split_into_parts_of_like_length() -> None:
    lengths = [5, 1, 4, 1, 3, 9, 2]
    ids = [[0] * length for length in lengths]
    for size in (1, 2, 3, 7, None):
        batch = MicroBatch.split(4, list(range(10, 17)), ids, size)
        places = [part.places for part in batch.parts]
        assert sorted(place for part in places for place in part) == list(range(7))
        assert all(part.batch == 4 and part.places == sorted(part.places) for part in batch.parts)
        assert [len(part) for part in places[:-1]] == [size or 7] * (len(places) - 1)
        for shorter, longer in pairwise(places):
            assert max(lengths[b] for b in shorter) <= min(lengths[b] for b in longer)


def test_parts_of_a_step_go_to_their_micro_batches() -> None:
    batches = [MicroBatch.split(number, [number * 3 + b for b in range(3)], [[1]] * 3, 2) for number in range(3)]
    step = StepParts(batches, lambda part: lambda: (part.batch, part.places), limit=4)
    for number, batch in enumerate(batches):
        assert not step.done and step.next_batch is batch
        assert list(step.take()) == [(number, [0, 1]), (number, [2])]
    assert step.done
