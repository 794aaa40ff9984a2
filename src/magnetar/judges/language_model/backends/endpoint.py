"""A language model behind any OpenAI-compatible endpoint."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from magnetar.errors import JudgeError
from magnetar.judges.language_model.backends.base import Asking, Backend, Reply
from magnetar.judges.language_model.backends.failures import Failure, failure_of
from magnetar.judges.language_model.backends.pacing import Budget, Pace, backoff_seconds
from magnetar.judges.language_model.backends.running import iterate
from magnetar.judges.language_model.backends.settings import EndpointSettings, check_endpoint
from magnetar.judges.language_model.backends.slots import Slots
from magnetar.types import Message

__all__ = ["EndpointBackend"]

BYTES_PER_TOKEN = 3
"""With which a text's tokens are estimated where no tokenizer is named: fewer than in English, so more tokens."""
LONGEST_PAUSE_SECONDS = 600.0
"""Longest wait that a server may ask for before it counts as gone."""

_NOTING = threading.Lock()
_log = logging.getLogger(__name__)


Put = Callable[[tuple[Any, ...]], None]


@dataclass
class _Call:
    """One call of `replies`: what its requests share."""

    client: Any
    key: str | None = field(repr=False)
    asking: Asking
    put: Put
    failed: JudgeError | None = None
    workers: list[asyncio.Task[None]] = field(default_factory=list)
    sending: set[asyncio.Task[Any] | None] = field(default_factory=set)

    def count(self, name: str, amount: float = 1.0) -> None:
        self.put(("count", name, amount))

    def fail(self, error: JudgeError) -> None:
        """Stop: who waits is sent home, who has a request out brings its reply first, since it is paid for."""
        if self.failed is None:
            self.failed = error
        for worker in self.workers:
            if worker not in self.sending and worker is not asyncio.current_task():
                worker.cancel()


class EndpointBackend(Backend):
    """A model behind an endpoint, asked through the `openai` client with bounded concurrency.

    All calls together have at most `concurrency` requests open, so that calls of several threads keep the endpoint busy
    from the last requests of one to the first of the next, and no busier than one call would.
    """

    def __init__(self, model: str, settings: EndpointSettings | None = None) -> None:
        """Take a model's name.

        Args:
            model: As the server calls it.
            settings: Where and how it is asked.

        Raises:
            MissingDependencyError: If the client is not installed.
            JudgeError: If the key's variable is not set.
        """
        self.model = model
        self.settings = settings or EndpointSettings()
        check_endpoint(self.settings)
        self._budget = Budget(self.settings.max_calls, self.settings.max_tokens_total)
        self._pace = Pace(self.settings.requests_per_minute)
        self._slots = Slots(self.settings.concurrency)
        self._no_logprobs = False
        self._length_field = "max_tokens"
        self._tokenizer: Any = None

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as there may be requests."""
        return self.settings.concurrency

    def leaves_free(self, device: str) -> bool:
        """Always: the work is a server's."""
        return True

    def identity(self) -> Mapping[str, Any]:
        """Model, endpoint and sampling; how fast and how often it is asked decides no answer."""
        settings = self.settings
        return {
            "backend": "endpoint",
            "model": self.model,
            "base_url": settings.url,
            "temperature": settings.temperature,
            "top_logprobs": settings.top_logprobs,
            "tokenizer": settings.tokenizer,
            "extra_body": settings.extra_body,
        }

    def count_tokens(self, text: str) -> int:
        """Exact with the setting `tokenizer`, else one for every three bytes."""
        if self.settings.tokenizer is None:
            return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)
        if self._tokenizer is None:
            from magnetar.modeling.loading import load_tokenizer

            self._tokenizer = load_tokenizer(self.settings.tokenizer)
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def replies(self, questions: Sequence[Sequence[Message]], asking: Asking) -> Iterator[tuple[int, Reply]]:
        """Ask with `concurrency` requests at a time; see `Backend.replies`."""
        self.settings.key()  # a missing key is an error of this thread

        def produce(put: Put) -> Awaitable[None]:
            return self._ask_all(questions, asking, put)

        for kind, key, value in iterate(produce):
            if kind == "count":
                asking.count(key, value)
            else:
                yield key, value

    async def _ask_all(self, questions: Sequence[Sequence[Message]], asking: Asking, put: Put) -> None:
        left = iter(enumerate(questions))
        answered = 0

        async def work(call: _Call) -> None:
            nonlocal answered
            try:
                # A slot is held until no question is left: of several calls the first has all, then the next.
                async with self._slots.one():
                    for at, question in left:
                        reply = await self._ask(question, call)
                        answered += 1
                        put(("reply", at, reply))
                        if call.failed is not None or asking.enough.is_set():
                            return
            except JudgeError as error:
                call.fail(error)

        async with self._client() as client:
            call = _Call(client, self.settings.key(), asking, put)
            try:
                async with asyncio.timeout(self.settings.deadline_seconds):
                    count = min(self.settings.concurrency, len(questions))
                    call.workers = [asyncio.create_task(work(call)) for _ in range(count)]
                    ends = await asyncio.gather(*call.workers, return_exceptions=True)
                    for end in ends:
                        if isinstance(end, Exception):
                            raise end
            except TimeoutError:
                call.failed = JudgeError(
                    f"{self._words}: {answered} of {len(questions)} questions were answered within "
                    f"deadline_seconds = {self.settings.deadline_seconds:g}; raise it, raise concurrency, or ask less"
                )
        if call.failed is not None:
            # A fresh error: the first one's traceback leads to the request.
            raise JudgeError(str(call.failed))

    def _client(self) -> Any:
        import openai

        return openai.AsyncOpenAI(
            api_key=self.settings.key() or "none",
            base_url=self.settings.url,
            timeout=self.settings.timeout_seconds,
            max_retries=0,
        )

    async def _ask(self, question: Sequence[Message], call: _Call) -> Reply:
        """Ask one question until there is a reply or no hope."""
        failures, without = 0, False
        while True:
            wants = call.asking.logprobs != "never" and not self._no_logprobs and not without
            outcome = await self._attempt(question, wants, call)
            if isinstance(outcome, Reply):
                if call.asking.logprobs != "never" and outcome.logprobs is None and outcome.text:
                    self._note_no_logprobs(call, "refuses" if without else "leaves out")
                return outcome
            if outcome.refused and self._length_field == "max_tokens" and "max_completion_tokens" in outcome.reason:
                self._length_field = "max_completion_tokens"
                continue
            if outcome.refused and wants and call.asking.logprobs == "auto":
                # Perhaps the log-probabilities are what it refuses; without them this shows.
                without = True
                continue
            if not outcome.again or failures >= self.settings.max_retries:
                times = f" {failures + 1} times in a row" if failures else ""
                raise JudgeError(f"{self._words}: {outcome.reason}{times}; {outcome.fix}")
            failures += 1
            await self._wait(failures, outcome, call)

    async def _wait(self, failures: int, outcome: Failure, call: _Call) -> None:
        """Wait before another attempt; where the server says how long, nobody asks in the meantime."""
        if call.failed is not None:
            raise call.failed
        call.count("retries")
        seconds = backoff_seconds(failures)
        if outcome.wait_seconds is not None:
            if outcome.wait_seconds > min(LONGEST_PAUSE_SECONDS, self.settings.deadline_seconds or float("inf")):
                raise JudgeError(
                    f"{self._words}: {outcome.reason}; the server asks to wait {outcome.wait_seconds:.0f} seconds, "
                    "which is too long; ask again later"
                )
            seconds = max(outcome.wait_seconds, seconds * 0.1)
            self._pace.pause(seconds)
        _log.info("%s: %s; asking again in %.1f seconds", self._words, outcome.reason, seconds)
        await asyncio.sleep(seconds)

    async def _attempt(self, question: Sequence[Message], logprobs: bool, call: _Call) -> Reply | Failure:
        """Send one request."""
        # A token has at least one byte, so that this is never less than what the request uses.
        largest = call.asking.max_new_tokens + sum(len(turn["content"].encode()) + 32 for turn in question) + 32
        await self._pace.turn()
        await self._budget.reserve(largest)
        call.count("calls")
        used = 0
        call.sending.add(asyncio.current_task())
        try:
            completion = await self._request(question, logprobs, call)
            if not isinstance(completion, Failure):
                used = self._count_usage(completion, largest, call)
        finally:
            call.sending.discard(asyncio.current_task())
            self._budget.settle(largest, used)
        return completion if isinstance(completion, Failure) else _read(completion, logprobs, self.settings.url)

    async def _request(self, question: Sequence[Message], logprobs: bool, call: _Call) -> Any:
        options: dict[str, Any] = {self._length_field: call.asking.max_new_tokens}
        if self.settings.temperature is not None:
            options["temperature"] = self.settings.temperature
        if self.settings.extra_body is not None:
            options["extra_body"] = dict(self.settings.extra_body)
        if logprobs:
            options |= {"logprobs": True, "top_logprobs": self.settings.top_logprobs}
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                return await call.client.chat.completions.create(
                    model=self.model, messages=[dict(turn) for turn in question], **options
                )
        except Exception as error:
            return failure_of(
                error,
                base_url=self.settings.url,
                model=self.model,
                key=call.key,
                key_name=self.settings.key_name or "",
            )

    def _count_usage(self, completion: Any, largest: int, call: _Call) -> int:
        """Count the tokens of a reply; where the server does not say, the most that it can have used."""
        usage = getattr(completion, "usage", None)
        read, written = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if not isinstance(read, int) or not isinstance(written, int) or read < 0 or written < 0:
            call.count("calls_without_usage")
            return largest
        call.count("tokens_in", read)
        call.count("tokens_out", written)
        return read + written

    def _note_no_logprobs(self, call: _Call, how: str) -> None:
        if call.asking.logprobs == "require":
            raise JudgeError(
                f"{self._words} leaves out the log-probabilities; use logprobs='auto' to read its text instead, or a "
                "server that offers them"
            )
        with _NOTING:
            known, self._no_logprobs = self._no_logprobs, True
        if not known:
            call.count("logprobs_refused")
            _log.warning(
                "%s %s log-probabilities; from now on its verdicts are read from its text (0, 1 or a tie)",
                self._words,
                how,
            )

    @property
    def _words(self) -> str:
        return f"model {self.model!r} at {self.settings.url}"


def _read(completion: Any, logprobs: bool, url: str) -> Reply | Failure:
    """What a completion says; the client hands over whatever the server sent, unchecked."""
    malformed = f"check that {url} is OpenAI-compatible"
    choices = getattr(completion, "choices", None)
    if not isinstance(choices, list) or not choices:
        return Failure("the reply has no choices", malformed, again=True)
    message = getattr(choices[0], "message", None)
    content = getattr(message, "content", None)
    if getattr(choices[0], "finish_reason", None) == "content_filter":
        return Reply("", None, "the server's content filter took the reply away")
    refusal = getattr(message, "refusal", None)
    if refusal:
        return Reply(refusal if isinstance(refusal, str) else "", None, "the model refused to answer")
    if content is not None and not isinstance(content, str):
        return Failure(f"the reply's content is a {type(content).__name__}, expected text", malformed, again=True)
    if message is None:
        return Failure("the reply has no message", malformed, again=True)
    written = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    end = getattr(choices[0], "finish_reason", None)
    return Reply(
        content or "",
        _first_logprobs(choices[0]) if logprobs else None,
        tokens=written if isinstance(written, int) and written >= 0 else None,
        truncated=end == "length" if isinstance(end, str) else None,
    )


def _first_logprobs(choice: Any) -> dict[str, float] | None:
    """Log-probabilities at the first token of a reply; values are left for the judge to check."""
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(content, list) or not content:
        return None
    listed = getattr(content[0], "top_logprobs", None)
    if not isinstance(listed, list) or not listed:
        return None
    return {str(getattr(item, "token", "")): getattr(item, "logprob", float("nan")) for item in listed}
