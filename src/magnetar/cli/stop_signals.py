"""SIGTERM ends a command as SIGINT does, so that it can keep what is finished."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["stop_signals"]


@contextmanager
def stop_signals() -> Iterator[None]:
    """Let SIGTERM, which schedulers send, raise a `KeyboardInterrupt` with its ``signal_number``."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        interrupt = KeyboardInterrupt()
        interrupt.signal_number = number  # type: ignore[attr-defined]
        raise interrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
