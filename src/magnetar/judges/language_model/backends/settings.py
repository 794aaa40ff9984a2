"""Where and how an endpoint is asked, checked before anything is sent."""

import importlib.util
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from magnetar.errors import JudgeError, MissingDependencyError

__all__ = ["EndpointSettings", "check_endpoint"]

OPENAI_URL = "https://api.openai.com/v1"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how an endpoint is asked.

    Attributes:
        base_url: Its URL, usually ending in /v1; the environment variable OPENAI_BASE_URL, or else OpenAI's, when None.
        api_key_env: Name of the environment variable that holds the key. None: OPENAI_API_KEY, except for a server on
            this machine, which is sent no key unless one is named.
        concurrency: Requests open at the same time, at least 1.
        timeout_seconds: For one request, from sending to the last byte.
        deadline_seconds: For a whole call with all its requests and waits; None for none.
        max_retries: Attempts after the first, for one request.
        max_calls: Requests over the life of the judge, retries included; None for no limit.
        max_tokens_total: Tokens, read and written, over the life of the judge; None for no limit.
        requests_per_minute: Requests sent in any minute; None for no limit.
        temperature: Of the sampling, at least 0; None to leave it to the server, which some models demand.
        top_logprobs: For how many tokens log-probabilities are asked, from 2 to 20.
        tokenizer: Folder or hub name of the model's tokenizer, for exact lengths; an estimate when None.
        extra_body: Further fields of each request, such as ``{"chat_template_kwargs": {"enable_thinking": False}}``
            for a model that would think aloud; None for none.
    """

    base_url: str | None = None
    api_key_env: str | None = None
    concurrency: int = 8
    timeout_seconds: float = 60.0
    deadline_seconds: float | None = None
    max_retries: int = 5
    max_calls: int | None = None
    max_tokens_total: int | None = None
    requests_per_minute: float | None = None
    temperature: float | None = 0.0
    top_logprobs: int = 20
    tokenizer: str | None = None
    extra_body: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _check_whole("concurrency", self.concurrency, 1)
        _check_whole("max_retries", self.max_retries, 0)
        _check_whole("top_logprobs", self.top_logprobs, 2, 20)
        for name in ("max_calls", "max_tokens_total"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        for name in ("timeout_seconds", "deadline_seconds", "requests_per_minute"):
            value = getattr(self, name)
            if value is None and name != "timeout_seconds":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
                raise JudgeError(f"{name} = {value!r}, expected a positive number")
        heat = self.temperature
        if heat is not None and (isinstance(heat, bool) or not isinstance(heat, int | float) or not 0.0 <= heat <= 2.0):
            raise JudgeError(
                f"temperature = {heat!r}, expected a number from 0 to 2, or null to leave it to the server"
            )
        for name in ("base_url", "api_key_env", "tokenizer"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise JudgeError(f"{name} = {value!r}, expected text")
        if self.api_key_env is not None and not VARIABLE.fullmatch(self.api_key_env):
            # Not repeated: it may be the key itself.
            raise JudgeError(
                "api_key_env is not the name of an environment variable (letters, digits and _); put the key into a "
                "variable and give the variable's name, never the key"
            )
        if self.extra_body is not None:
            _check_extra_body(self.extra_body)
        _check_url(self.url)

    @property
    def url(self) -> str:
        """The endpoint's URL, wherever it comes from."""
        return (self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).rstrip("/")

    @property
    def key_name(self) -> str | None:
        """Name of the environment variable that holds the key; None when none is sent."""
        if self.api_key_env is None and urlsplit(self.url).hostname in LOOPBACK:
            return None
        return self.api_key_env or "OPENAI_API_KEY"

    def key(self) -> str | None:
        """The key itself; never stored.

        Raises:
            JudgeError: If its variable is not set, or holds what cannot be a key.
        """
        if self.key_name is None:
            return None
        key = os.environ.get(self.key_name, "").strip()
        if not key:
            raise JudgeError(
                f"the environment variable {self.key_name}, which is to hold the key for {self.url}, is not set; "
                f"set it (export {self.key_name}=...), or name another by api_key_env"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            # The client would quote it in its own error.
            raise JudgeError(
                f"the environment variable {self.key_name} holds blanks or letters that no key has; set it again"
            )
        return key


def check_endpoint(settings: EndpointSettings) -> None:
    """Check what can be known without a request: the client is installed and the key's variable is set.

    Args:
        settings: Where and how an endpoint is asked.

    Raises:
        MissingDependencyError: If the client is not installed.
        JudgeError: If the key's variable is not set.
    """
    if importlib.util.find_spec("openai") is None:
        raise MissingDependencyError(
            'a language model behind an endpoint needs openai, not installed here; run: pip install "magnetar[llm]"'
        )
    key = settings.key()
    if key is not None and settings.url.startswith("http:") and urlsplit(settings.url).hostname not in LOOPBACK:
        _log.warning("the key in %s goes to %s unencrypted; use https", settings.key_name, settings.url)


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not quoted: what stands there may be a key.
        raise JudgeError(
            "base_url holds a user, a password or a query; give the bare URL and the key by an environment variable"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(f"base_url = {url!r}, expected a URL such as http://localhost:8000/v1")


def _check_extra_body(extra: object) -> None:
    try:
        fine = isinstance(extra, dict) and bool(json.dumps(extra))
    except (TypeError, ValueError):
        fine = False
    if not fine or not isinstance(extra, dict):
        raise JudgeError(f"extra_body = {extra!r}, expected a mapping that JSON can write")
    own = sorted(
        extra.keys() & {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs", "stream"}
    )
    if own:
        raise JudgeError(f"extra_body holds {', '.join(own)}, which the judge's own options set; leave it out there")


def _check_whole(name: str, value: object, at_least: int, at_most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least or (at_most and value > at_most):
        limits = f"at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
        raise JudgeError(f"{name} = {value!r}, expected an integer {limits}")
