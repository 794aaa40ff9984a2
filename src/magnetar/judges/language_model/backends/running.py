"""An asynchronous producer, used from ordinary code: also where an event loop is running already, as in notebooks."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

__all__ = ["iterate"]

Item = TypeVar("Item")


def iterate(produce: Callable[[Callable[[Item], None]], Awaitable[None]]) -> Iterator[Item]:
    """Run a coroutine on a thread of its own and get what it puts out as it does.

    Args:
        produce: Is given a function that puts out an item, and returns when it is done.

    Yields:
        The items; those put out before an error come before it. When the consumer stops early, the coroutine is
        cancelled and waited for, so that nothing goes on in the background.

    Raises:
        BaseException: What the coroutine raised.
    """
    items: queue.SimpleQueue[tuple[Item | None, BaseException | None]] = queue.SimpleQueue()
    cancel: list[Callable[[], object]] = []
    started = threading.Event()

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
        started.set()
        await produce(lambda item: items.put((item, None)))

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            items.put((None, error))
        else:
            items.put((None, StopIteration()))
        finally:
            started.set()  # also where there was no loop to start, for want of files

    thread = threading.Thread(target=run, name="magnetar-judge", daemon=True)
    thread.start()
    try:
        while True:
            item, end = items.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item  # type: ignore[misc]
    finally:
        started.wait()
        if thread.is_alive() and cancel:
            # The loop may have closed by itself in this moment.
            with contextlib.suppress(RuntimeError):
                cancel[0]()
            thread.join()
