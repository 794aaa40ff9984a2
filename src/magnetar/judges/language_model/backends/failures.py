"""What went wrong at an endpoint, in words without secrets, and whether asking again may help."""

import email.utils
import math
import re
import time
from dataclasses import dataclass
from typing import Any

__all__ = ["Failure", "failure_of"]

WORDS_SHOWN = 300
"""Longest part of a server's own message that is passed on, in characters."""
_TOO_LONG = re.compile(r"context.{0,20}length|maximum.{0,30}length|too (?:long|many tokens)|max_model_len", re.I)


@dataclass(frozen=True)
class Failure:
    """A request that brought no reply.

    Attributes:
        reason: What happened.
        fix: What the user can do.
        again: Whether the same request may succeed later.
        refused: Whether the server refused the form of the request, so that another form may be taken.
        wait_seconds: How long the server asks to wait; None where it does not say.
    """

    reason: str
    fix: str
    again: bool = False
    refused: bool = False
    wait_seconds: float | None = None


def failure_of(error: Exception, *, base_url: str, model: str, key: str | None, key_name: str) -> Failure:
    """Say what an exception of the client means.

    Nothing of the exception is kept: it holds the request with its key, and a server may repeat a key in its message.

    Args:
        error: What the client raised.
        base_url: The endpoint.
        model: Name of the model.
        key: The key that was sent, to take out of the server's words.
        key_name: Name of the environment variable that holds it.

    Returns:
        The failure.
    """
    import openai

    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return Failure("the request timed out", "raise timeout_seconds or lower concurrency", again=True)
    if isinstance(error, openai.APIStatusError):
        words = _server_words(error.body, key)
        return _of_status(error.status_code, words, error.response.headers, _code(error), base_url, model, key_name)
    if isinstance(error, openai.APIConnectionError):
        cause = type(error.__cause__).__name__ if error.__cause__ is not None else "connection error"
        return Failure(f"the connection failed ({cause})", f"check that a server runs at {base_url}", again=True)
    # A body that is not JSON, or of another form than announced.
    return Failure(
        f"the reply is malformed ({type(error).__name__})", f"check that {base_url} is OpenAI-compatible", again=True
    )


def _of_status(status: int, words: str, headers: Any, code: str, base_url: str, model: str, key_name: str) -> Failure:
    if status in (401, 403):
        # The server's words are left out: some repeat a part of the key.
        held = f"the key in the environment variable {key_name}" if key_name else "a request without a key"
        return Failure(f"HTTP {status}: the server does not accept {held}", "check it, or name another by api_key_env")
    reason = f"HTTP {status}{': ' + words if words else ''}"
    if status == 404:
        return Failure(reason, f"check that the model is called {model!r} and the base_url is {base_url!r}")
    if status == 429 and code == "insufficient_quota":
        return Failure(reason, "the account behind the key has no quota left")
    if status in (408, 409, 429) or status >= 500:
        fix = "lower requests_per_minute or concurrency" if status == 429 else f"look at the log of {base_url}"
        return Failure(reason, fix, again=True, wait_seconds=retry_after_seconds(headers))
    if _TOO_LONG.search(words):
        return Failure(reason, "set max_length to less than the model's context", refused=True)
    return Failure(reason, f"check that {base_url} serves {model!r} as a chat model", refused=status in (400, 422))


def retry_after_seconds(headers: Any) -> float | None:
    """How long the header Retry-After asks to wait, in seconds or as a date; None where it is missing or unreadable."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = email.utils.parsedate_tz(value)
        seconds = float("nan") if date is None else email.utils.mktime_tz(date) - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _code(error: Any) -> str:
    return str(getattr(error, "code", None) or getattr(error, "type", None) or "")


def _server_words(body: object, key: str | None) -> str:
    """The message in a server's error, whatever place it has there, on one line."""
    words: object = body
    if isinstance(body, dict):
        words = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    text = " ".join(str(words or "").split())
    if key:
        text = text.replace(key, "…")
    return text if len(text) <= WORDS_SHOWN else text[: WORDS_SHOWN - 1] + "…"
