"""A player's answers on disk: a line for each prompt, written as soon as it is there, found again by the prompt."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnetar.data.splits import prompt_key
from magnetar.types import Prompt

__all__ = ["AnswerSheet", "answer_seed"]

SURROGATES = "backslashreplace"
"""Half of a surrogate pair, which a sampled response may hold, becomes JSON's own escape for it."""


class AnswerSheet:
    """One player's file: a line that says what decides the answers, then a line for each prompt.

    Attributes:
        path: The file.
        lines: What is known, by `magnetar.data.splits.prompt_key`.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any]) -> None:
        """Open a file, or begin a new one.

        Args:
            path: The file; its folder exists.
            fingerprint: What decides the answers. A file with another one is moved aside, and taken up again when that
                one comes back, so that trying other settings costs no answers. A line that was cut short by a kill is
                left out, so that its prompt is answered again.
        """
        self.path = path
        self.lines: dict[str, dict[str, Any]] = {}
        head = json.dumps(fingerprint, sort_keys=True)
        _take_up(path, head)
        kept = [head]
        if path.is_file():
            # Not `splitlines`, which also splits where a response has a line separator of another kind.
            first, *rest = path.read_text(encoding="utf-8").split("\n")
            for line in rest if _sorted(first) == head else []:
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    self.lines[record.pop("prompt")] = record
                    kept.append(line)
        unfinished = path.with_suffix(".part")
        unfinished.write_text("\n".join(kept) + "\n", encoding="utf-8", errors=SURROGATES)
        unfinished.replace(path)

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep the answers to a prompt, at once."""
        self.lines[key] = dict(record)
        with self.path.open("a", encoding="utf-8", errors=SURROGATES) as file:
            file.write(json.dumps({"prompt": key, **record}, ensure_ascii=False) + "\n")


def answer_seed(seed: int, name: str, prompt: Prompt) -> int:
    """A seed of 63 bits, the same on every machine and whatever else is asked.

    Args:
        seed: Of the whole evaluation.
        name: Of the player: with equal seeds equal policies would give equal answers, and nothing would be compared.
        prompt: What is asked.

    Returns:
        The seed of the player's responses to the prompt.
    """
    digest = hashlib.blake2b(f"{seed}|{name}|{prompt_key(prompt)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _take_up(path: Path, head: str) -> None:
    """Put the file of these answers, if there is one, into its place, and that of others aside."""
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            found = _sorted(file.readline().rstrip("\n"))
        if found in (head, ""):
            return
        path.replace(_aside(path, found))
    before = _aside(path, head)
    if before.is_file():
        before.replace(path)


def _aside(path: Path, head: str) -> Path:
    return path.with_name(f"{path.stem}.{hashlib.blake2b(head.encode(), digest_size=6).hexdigest()}{path.suffix}")


def _sorted(line: str) -> str:
    """A file's first line as this version writes it; empty where it cannot be read."""
    try:
        return json.dumps(json.loads(line), sort_keys=True)
    except ValueError:
        return ""
