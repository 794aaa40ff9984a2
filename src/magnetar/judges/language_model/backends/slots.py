"""A number of slots that callers in several threads share, first come first served."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Slots"]


# One for all: what it guards is short, and the rest can be pickled while no slot is waited for.
_LOCK = threading.Lock()


class Slots:
    """So many at a time, whichever thread and event loop they are in; who asked first is let in first.

    `asyncio.Semaphore` belongs to one event loop, and each call of a backend has a loop of its own.
    """

    def __init__(self, count: int) -> None:
        """Set how many."""
        self._free = count
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a slot for the length of the block, after waiting for it."""
        await self._take()
        try:
            yield
        finally:
            self._give_back()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        with _LOCK:
            if self._free:
                self._free -= 1
                return
            turn = loop.create_future()
            self._waiting.append((loop, turn))
        try:
            await turn
        except asyncio.CancelledError:
            with _LOCK:
                waiting = (loop, turn) in self._waiting
                if waiting:
                    self._waiting.remove((loop, turn))
            if not waiting:  # the slot was on its way
                self._give_back()
            raise

    def _give_back(self) -> None:
        with _LOCK:
            if not self._waiting:
                self._free += 1
                return
            loop, turn = self._waiting.popleft()
            # Within the lock: who is sent home now sees that the slot is on its way, and its loop is there until then.
            loop.call_soon_threadsafe(_let_in, turn)


def _let_in(turn: "asyncio.Future[None]") -> None:
    if not turn.done():  # else it was cancelled, and hands its slot on
        turn.set_result(None)
