"""How fast and how much an endpoint is asked: waits between attempts, requests a minute, a budget, a common pause."""

import asyncio
import random
import threading
import time

from magnetar.errors import JudgeError

__all__ = ["Budget", "Pace", "backoff_seconds"]

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
# Calls of a judge may come from several threads; one lock for all, since additions are short.
_LOCK = threading.Lock()


def backoff_seconds(attempt: int, draw: float | None = None) -> float:
    """Wait before another attempt: twice as long each time, between half of it and all of it at random.

    At random, so that many callers turned away together do not come back together.

    Args:
        attempt: How many attempts failed, at least 1.
        draw: A number in [0, 1) in place of a random one.

    Returns:
        Seconds, at most 30.
    """
    longest = min(FIRST_WAIT_SECONDS * 2.0 ** min(attempt - 1, 30), LONGEST_WAIT_SECONDS)
    return longest * (1.0 + (random.random() if draw is None else draw)) / 2.0


class Budget:
    """What may be spent over the life of a judge; a request is only sent when its largest cost still fits.

    Calls in several threads share it.

    Attributes:
        calls: Requests sent.
        tokens: Tokens used by finished requests.
    """

    def __init__(self, max_calls: int | None, max_tokens: int | None) -> None:
        """Set the limits; None for none."""
        self.max_calls = max_calls
        self.max_tokens = max_tokens
        self.calls = 0
        self.tokens = 0
        self._reserved = 0
        self._open = 0

    async def reserve(self, tokens: int) -> None:
        """Take one call and at most this many tokens out of the budget.

        Raises:
            JudgeError: If they do not fit, even after the requests now open have returned what they did not use.
        """
        while not self._reserved_now(tokens):
            await asyncio.sleep(0.02)

    def _reserved_now(self, tokens: int) -> bool:
        """Reserve at once, or not, where open requests may return what they do not use."""
        with _LOCK:
            if self.max_calls is not None and self.calls >= self.max_calls:
                raise JudgeError(
                    f"the budget of max_calls = {self.max_calls} requests is used up; what was answered is kept where "
                    "a cache is used; raise max_calls to go on"
                )
            if self.max_tokens is not None and self.tokens + self._reserved + tokens > self.max_tokens:
                if not self._open:
                    raise JudgeError(
                        f"the budget of max_tokens_total = {self.max_tokens} tokens has "
                        f"{self.max_tokens - self.tokens} left, and the next request may use {tokens}; what was "
                        "answered is kept where a cache is used; raise max_tokens_total to go on"
                    )
                return False
            self.calls += 1
            self._open += 1
            self._reserved += tokens
            return True

    def settle(self, reserved: int, used: int) -> None:
        """Put back what a finished request did not use.

        Args:
            reserved: What was reserved for it.
            used: Tokens it used.
        """
        with _LOCK:
            self._open -= 1
            self._reserved -= reserved
            self.tokens += used


class Pace:
    """When the next request may be sent: so many a minute, evenly, and none while the server asks for a pause."""

    def __init__(self, requests_per_minute: float | None) -> None:
        """Set the rate; None for no limit."""
        self.spacing_seconds = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0
        self._pause_until = 0.0

    def pause(self, seconds: float) -> None:
        """Let nobody send a request for so long."""
        with _LOCK:
            self._pause_until = max(self._pause_until, time.monotonic() + seconds)

    async def turn(self) -> None:
        """Wait until a request may be sent."""
        if self.spacing_seconds:
            # The slot is taken before waiting, so that two that wait do not take the same.
            with _LOCK:
                slot = max(self._next, time.monotonic())
                self._next = slot + self.spacing_seconds
            await asyncio.sleep(slot - time.monotonic())
        while (left := self._pause_until - time.monotonic()) > 0.0:
            await asyncio.sleep(left)
