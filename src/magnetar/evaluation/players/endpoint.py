"""A policy behind an OpenAI-compatible endpoint, asked through the client that language-model judges use."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tqdm import tqdm

from magnetar.errors import DataError, JudgeError, ModelError, unknown_name
from magnetar.evaluation.players.base import Answer, GenerationRequest, StreamingPlayer
from magnetar.judges.language_model.backends.base import Asking, Reply
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.settings import EndpointSettings, check_endpoint
from magnetar.judges.language_model.templates import Choices
from magnetar.rollout import SamplingParams
from magnetar.types import Message, Prompt

__all__ = ["ENDPOINT_PREFIX", "EndpointPlayer", "parse_endpoint"]

ENDPOINT_PREFIX = "endpoint:"
FORM = "endpoint:http://HOST:PORT/v1#model=NAME, or in a file {kind: endpoint, model: NAME, base_url: URL}"
NOT_OURS = ("top_logprobs", "tokenizer", "base_url")
TEXTS = ("model", "api_key_env")
NO_CHOICES = Choices(
    "A", "B"
)  # a reply is free text; an endpoint that is asked for no probabilities reads them nowhere
OPTIONS = tuple(f.name for f in fields(EndpointSettings) if f.name not in NOT_OURS)


@dataclass(frozen=True)
class EndpointPlayer(StreamingPlayer):
    """A model behind an endpoint; prompts are sent as chat turns, and the server renders them.

    Each response is a request of its own, without a seed: what the server draws cannot be repeated, so answers are
    worth keeping. A response that the server's content filter takes away is no answer; a refusal in the model's own
    words is one.

    Attributes:
        model: As the server calls it.
        settings: Where and how it is asked; its temperature is not used.
        temperature: In place of the request's: "request", a number, or None to leave it to the server.
        counts: Requests, retries and tokens so far, by name.
    """

    model: str
    settings: EndpointSettings
    temperature: float | str | None = "request"
    counts: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Model and place."""
        return f"{self.model} at {self.settings.url}"

    def identity(self) -> Mapping[str, Any]:
        """Model, place and further fields of each request; how fast it is asked decides no answer."""
        return {
            "endpoint": self.settings.url,
            "model": self.model,
            "temperature": self.temperature,
            "extra_body": self.settings.extra_body,
        }

    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Ask with ``concurrency`` requests at a time; a prompt comes when all its responses are there.

        Raises:
            ModelError: The server cannot be asked, or a limit is reached.
        """
        group = request.responses_per_prompt
        questions = [turns for prompt in prompts for turns in [_turns(prompt)] * group]
        if not questions:
            return
        asking = Asking(NO_CHOICES, "never", request.sampling.max_new_tokens, self._count)
        replies: list[list[Reply]] = [[] for _ in prompts]
        bar = tqdm(total=len(prompts), desc=f"{self.model} answers", unit="prompt", disable=not request.progress)
        try:
            with bar:
                for place, reply in self._backend(request.sampling).replies(questions, asking):
                    row = place // group
                    replies[row].append(reply)
                    if len(replies[row]) == group:
                        bar.update(1)
                        answer = _answer(replies[row])
                        if answer is not None:
                            yield row, answer
        except JudgeError as error:
            raise ModelError(f"policy {self.name}: {error}") from error

    def missing_words(self, prompts: Sequence[Prompt], missing: Sequence[int], count: int) -> str:
        """How many, and what to do."""
        return (
            f"{self.name} gave no answer to {len(missing)} of {len(prompts)} prompts (a content filter took it away); "
            "leave such prompts out with missing=skip (--missing skip)"
        )

    def _backend(self, sampling: SamplingParams) -> EndpointBackend:
        extra = dict(self.settings.extra_body or {})
        if sampling.top_p < 1.0:
            extra.setdefault("top_p", sampling.top_p)
        if sampling.top_k:
            extra.setdefault("top_k", sampling.top_k)
        temperature = sampling.temperature if self.temperature == "request" else self.temperature
        return EndpointBackend(
            self.model,
            EndpointSettings(**{**asdict(self.settings), "temperature": temperature, "extra_body": extra or None}),
        )

    def _count(self, name: str, amount: float) -> None:
        self.counts[name] = self.counts.get(name, 0.0) + amount


def parse_endpoint(spec: str | Mapping[str, Any]) -> EndpointPlayer:
    """The player that a specification names; nothing is sent.

    Args:
        spec: ``endpoint:URL#model=NAME``, with further settings of `EndpointSettings` after ``&``; or a mapping with
            ``kind: endpoint``, ``model``, ``base_url`` and such settings.

    Returns:
        The player.

    Raises:
        ModelError: A part is missing or cannot be.
        MissingDependencyError: The client is not installed.
    """
    if isinstance(spec, str):
        url, _, rest = spec.removeprefix(ENDPOINT_PREFIX).partition("#")
        given: dict[str, Any] = {"base_url": url or None}
        for part in filter(None, rest.split("&")):
            key, _, value = part.partition("=")
            given[key] = value if key in TEXTS else _value(value)
    else:
        given = {key: value for key, value in spec.items() if key != "kind"}
    model = given.pop("model", None)
    if not isinstance(model, str) or not model:
        raise ModelError(f"policy {str(spec)!r} names no model; expected {FORM}")
    place = given.pop("base_url", None)
    for key in given:
        if key not in OPTIONS:
            raise ModelError(
                f"policy {str(spec)!r}: {unknown_name('option', str(key), ('model', 'base_url', *OPTIONS))}"
            )
    temperature = given.pop("temperature", "request")
    try:
        if temperature != "request":
            EndpointSettings(temperature=temperature)
        settings = EndpointSettings(base_url=place, **given)
        check_endpoint(settings)
    except JudgeError as error:
        raise ModelError(f"policy {str(spec)!r}: {error}; expected {FORM}") from error
    return EndpointPlayer(model, settings, temperature)


def _value(text: str) -> Any:
    """A number, a JSON value or true, false and null where a text is one; otherwise the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _turns(prompt: Prompt) -> list[Message]:
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        raise DataError(
            "a prompt ends with the turn of 'assistant', which an endpoint cannot be asked to continue; let a model in "
            "a folder answer such prompts, or leave them out"
        )
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _answer(replies: Sequence[Reply]) -> Answer | None:
    """The responses to one prompt; None where one is missing."""
    if any(reply.problem and not reply.text for reply in replies):
        return None
    tokens = [reply.tokens for reply in replies if reply.tokens is not None]
    truncated = [reply.truncated for reply in replies if reply.truncated is not None]
    return Answer(
        [reply.text for reply in replies],
        tokens if len(tokens) == len(replies) else None,
        truncated if len(truncated) == len(replies) else None,
    )
