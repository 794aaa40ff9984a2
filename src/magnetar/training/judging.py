"""The judge beside the training: questions about one part are answered while the next ones are generated."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from magnetar.judges.wrappers.keys import canonical_prompt
from magnetar.types import Prompt

__all__ = ["Judging"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Question(Generic[Result]):
    ask: Callable[[], Result]
    answer: "Future[Result]"
    prompts: frozenset[str]


class Judging:
    """Puts questions to a judge, at once or on threads, and keeps time.

    Threads take questions in the order in which they came. A question about a prompt that an earlier one is about
    waits for it, so that a judge which keeps its answers gives the second what it said to the first, whichever is
    quicker. After a failure no further question is begun. A thread lives while there are questions: nothing is left
    when the last is answered.
    """

    def __init__(self, threads: int, device: torch.device | None = None) -> None:
        """Choose where the judge runs.

        Args:
            threads: Most calls of the judge at a time; 0: the caller asks it, and waits.
            device: Current device of the caller, so that it is also the threads'.
        """
        self.threads = threads
        self._device = device
        self._lock = threading.Lock()
        self._waiting: deque[_Question[Any]] = deque()
        self._asking: list[_Question[Any]] = []
        self._alive: set[threading.Thread] = set()
        self._failure: BaseException | None = None
        self._busy_since = self._busy_seconds = self._waited_seconds = 0.0

    def anew(self) -> "Judging":
        """Another of the same settings, with no question."""
        return Judging(self.threads, self._device)

    def ask(self, question: Callable[[], Result], prompts: Sequence[Prompt]) -> "Future[Result]":
        """Put a question.

        Args:
            question: Asks the judge.
            prompts: What it is about.

        Returns:
            The answer to come, or the exception; that of another question if that failed before this one was begun.
        """
        answer: Future[Result] = Future()
        put = _Question(question, answer, frozenset(canonical_prompt(prompt) for prompt in prompts))
        with self._lock:
            if self._failure is not None:
                answer.set_exception(self._failure)
                return answer
            self._waiting.append(put)
            if self.threads:
                self._start_threads()
        if not self.threads:
            started = time.perf_counter()
            self._work()
            self._waited_seconds += time.perf_counter() - started
        return answer

    def wait(self, answer: "Future[Result]") -> Result:
        """The answer to a question; raises what asking it raised."""
        started = time.perf_counter()
        try:
            return answer.result()
        finally:
            self._waited_seconds += time.perf_counter() - started

    def check(self) -> None:
        """Raise what a question has raised, so that nothing more is begun in vain."""
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def take_seconds(self) -> dict[str, float]:
        """Time since the last call during which the judge was busy ("judge") and was waited for ("waiting")."""
        with self._lock:
            now = time.perf_counter()
            if self._asking:
                self._busy_seconds += now - self._busy_since
                self._busy_since = now
            taken = {"judge": self._busy_seconds, "waiting": self._waited_seconds}
            self._busy_seconds = self._waited_seconds = 0.0
        return taken

    def stop(self, *, wait: bool) -> None:
        """Drop the questions that are not begun.

        Args:
            wait: Also wait for those that are; their answers are paid for, and a judge may keep them.
        """
        with self._lock:
            while self._waiting:
                self._waiting.popleft().answer.cancel()
            alive = list(self._alive)
        if wait:
            for thread in alive:
                thread.join()

    def _start_threads(self) -> None:
        while len(self._alive) < min(self.threads, len(self._asking) + len(self._waiting)):
            # A daemon: a program that is told to end at once does not wait for a server.
            thread = threading.Thread(target=self._run, name="magnetar-judging", daemon=True)
            thread.start()
            self._alive.add(thread)  # it has to wait for the lock before it can be gone

    def _run(self) -> None:
        if self._device is not None and self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # every thread begins on the first one
        self._work()

    def _work(self) -> None:
        """Answer questions until none can be begun."""
        while (question := self._next()) is not None:
            try:
                result = question.ask()
            except BaseException as error:
                self._end(question, error)
                if not self.threads and not isinstance(error, Exception):
                    raise
                question.answer.set_exception(error)
            else:
                self._end(question)
                question.answer.set_result(result)

    def _next(self) -> "_Question[Any] | None":
        """The first question whose prompts are in none that is being asked or waits before it; None ends a thread."""
        with self._lock:
            taken = frozenset[str]().union(*(question.prompts for question in self._asking))
            for place, question in enumerate(self._waiting):
                if not question.prompts & taken:
                    del self._waiting[place]
                    if not self._asking:
                        self._busy_since = time.perf_counter()
                    self._asking.append(question)
                    question.answer.set_running_or_notify_cancel()
                    return question
                taken |= question.prompts
            self._alive.discard(threading.current_thread())
            return None

    def _end(self, question: "_Question[Any]", failure: BaseException | None = None) -> None:
        with self._lock:
            self._asking.remove(question)
            if not self._asking:
                self._busy_seconds += time.perf_counter() - self._busy_since
            if failure is not None:
                self._failure = self._failure or failure
                while self._waiting:
                    self._waiting.popleft().answer.set_exception(failure)
            elif self.threads:
                self._start_threads()  # for those that waited for this one
