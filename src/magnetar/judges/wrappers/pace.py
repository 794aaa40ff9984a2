"""How fast and how many at a time a judge is asked."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from magnetar.errors import JudgeError, checked_integer
from magnetar.judges.base import Judge
from magnetar.judges.checks import IndexArray
from magnetar.judges.wrappers.relay import Answers, Ask, Count, Questions, Relay, relayed

__all__ = ["Batched", "RateLimited", "check_rate"]


def Batched(judge: Judge, questions_per_call: int) -> Judge:
    """Ask a judge some questions at a time, those of like length together, the longest first.

    For Python functions that pad what they read to the longest text of a call, or can take only so much at once.
    `stats` adds `calls`.

    Args:
        judge: Any judge.
        questions_per_call: Most questions of one call, at least 1.

    Returns:
        A judge of equal answers; pointwise if the judge is.

    Raises:
        JudgeError: If the number is not a positive integer.
    """
    return relayed(judge, _Calls(checked_integer("questions_per_call", questions_per_call, 1, JudgeError)))


def RateLimited(judge: Judge, requests_per_minute: float, *, burst: int | None = None) -> Judge:
    """Ask a judge no more than so many questions a minute, evenly.

    A token bucket: it fills with the rate, holds ``burst`` tokens and starts full, and each question takes one. So in
    any span of t minutes at most ``burst + t · requests_per_minute`` questions are asked. The limit is that of this
    judge object: several processes are limited each by itself. `stats` adds `waited_seconds`.

    Args:
        judge: Any judge.
        requests_per_minute: Positive.
        burst: Most questions at once, at least 1; what one second brings, at least 1, when None.

    Returns:
        A judge of equal answers; pointwise if the judge is.

    Raises:
        JudgeError: If a number cannot be.
    """
    rate = check_rate(requests_per_minute) / 60.0
    burst = max(1, int(rate)) if burst is None else checked_integer("burst", burst, 1, JudgeError)
    return relayed(judge, _TokenBucket(rate, burst))


def check_rate(requests_per_minute: float) -> float:
    """Return the rate as a float, or say why it cannot be one."""
    valid = isinstance(requests_per_minute, int | float) and not isinstance(requests_per_minute, bool)
    if not valid or not 0.0 < requests_per_minute < float("inf"):
        raise JudgeError(f"requests_per_minute = {requests_per_minute!r}, expected a positive number")
    return float(requests_per_minute)


_TAKING = threading.Lock()


class _Calls(Relay):
    """Cuts questions into calls by length."""

    for_threads = True

    def __init__(self, size: int) -> None:
        self.size = size

    def pass_on(self, questions: Questions, ask: Ask, count: Count) -> Answers:
        lengths = [sum(map(len, texts)) for texts in zip(*questions.texts, strict=True)]
        order = np.argsort(-np.array(lengths), kind="stable")
        for index in _runs(order, self.size):
            count("calls", 1)
            for part, rows in ask(questions.take(index)):
                yield index[part], rows


class _TokenBucket(Relay):
    """Lets questions through at a rate, at most as many at once as the bucket holds."""

    for_threads = True

    def __init__(
        self,
        per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(burst)
        self._filled_at = clock()

    def pass_on(self, questions: Questions, ask: Ask, count: Count) -> Answers:
        for index in _runs(np.arange(len(questions)), self.burst):
            count("waited_seconds", self._take(len(index)))
            for part, rows in ask(questions.take(index)):
                yield index[part], rows

    def _take(self, amount: int) -> float:
        """Take this many tokens, wait until the bucket would have held them, and return the seconds waited.

        What is taken before it is there is a debt, so that callers from several threads wait one after another.
        """
        started = self._clock()
        with _TAKING:
            self._fill(started)
            self._tokens -= amount
            # The sum of many additions may fall short of a whole number.
            due = started if self._tokens > -1e-9 else started - self._tokens / self.per_second
        now = started
        while now < due:
            self._sleep(due - now)
            now = self._clock()
        return now - started

    def _fill(self, now: float) -> None:
        self._tokens = min(float(self.burst), self._tokens + (now - self._filled_at) * self.per_second)
        self._filled_at = now


def _runs(index: IndexArray, size: int) -> Iterator[IndexArray]:
    for start in range(0, len(index), size):
        yield index[start : start + size]
