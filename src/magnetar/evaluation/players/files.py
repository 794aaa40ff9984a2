"""Answers that are in a file already."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from magnetar.errors import DataError
from magnetar.evaluation.players.base import Answer, GenerationRequest, StreamingPlayer
from magnetar.types import Prompt

__all__ = ["FilePlayer"]


@dataclass(frozen=True)
class FilePlayer(StreamingPlayer):
    """Answers read from a JSON-lines file of objects with ``prompt`` and ``response``; a prompt may occur repeatedly.

    Lengths in tokens and truncation are unknown, and reported so.

    Attributes:
        path: The file, ``.jsonl`` or ``.jsonl.gz``.
    """

    path: Path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Look the prompts up; the first ``responses_per_prompt`` answers of each count, in the file's order.

        Raises:
            DataError: The file cannot be read, or a line is not as described.
        """
        known = self._by_prompt()
        count = request.responses_per_prompt
        for row, prompt in enumerate(prompts):
            texts = known.get(_key(prompt), [])
            if len(texts) >= count:
                yield row, Answer(texts[:count])

    def unanswered(self, prompts: Sequence[Prompt], count: int) -> list[int]:
        """Indices of prompts with too few answers."""
        known = self._by_prompt()
        return [row for row, prompt in enumerate(prompts) if len(known.get(_key(prompt), [])) < count]

    def missing_words(self, prompts: Sequence[Prompt], missing: Sequence[int], count: int) -> str:
        """Which prompt is the first without enough answers, and what to do."""
        first = prompts[missing[0]]
        found = len(self._by_prompt().get(_key(first), []))
        return (
            f"{self.path} has too few answers for {len(missing)} of {len(prompts)} prompts; the first, "
            f"{json.dumps(first, ensure_ascii=False)[:80]}, has {found}, expected {count}. Prompts must equal "
            "the dataset's exactly; leave such prompts out with missing=skip (--missing skip), or ask for fewer with "
            "--limit or --responses_per_prompt"
        )

    def _by_prompt(self) -> dict[str, list[str]]:
        answers: dict[str, list[str]] = {}
        for prompt, response in self._lines():
            answers.setdefault(_key(prompt), []).append(response)
        return answers

    def _lines(self) -> Iterator[tuple[Prompt, str]]:
        opener = gzip.open if self.path.suffix == ".gz" else open
        try:
            with opener(self.path, "rt", encoding="utf-8") as lines:
                yield from (self._record(line, number) for number, line in enumerate(lines, start=1) if line.strip())
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.path} cannot be read ({type(error).__name__}: {error}); expected UTF-8 text of one JSON object "
                "a line, whole, and compressed by gzip if its name ends in .gz"
            ) from error

    def _record(self, line: str, number: int) -> tuple[Prompt, str]:
        try:
            record = json.loads(line)
            prompt, response = record["prompt"], record["response"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}, line {number}: {type(error).__name__}: {error}; expected an object like "
                '{"prompt": "...", "response": "..."}'
            ) from error
        if not isinstance(response, str):
            raise DataError(f"{self.path}, line {number}: response is {response!r}, expected a string")
        return prompt, response


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False)
