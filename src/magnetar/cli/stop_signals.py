"""SIGINT and SIGTERM end a command alike, so that it can keep what is finished."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGINT, and SIGTERM, which schedulers send, raise a `KeyboardInterrupt` with its ``signal_number``.

    SIGINT too: a shell that starts a command in the background has it ignored, and ``kill -INT`` should still work.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        interrupt = KeyboardInterrupt()
        interrupt.signal_number = number  # type: ignore[attr-defined]
        raise interrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
