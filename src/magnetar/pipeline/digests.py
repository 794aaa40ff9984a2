"""Digests of settings and of contents: what tells that an input has changed."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from magnetar.pipeline.files import write_json

__all__ = ["LOGS", "FileDigests", "digest_of", "weighty"]

BLOCK = 1 << 20
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
DATA = (".json", ".jsonl", ".gz", ".parquet", ".csv", ".txt", ".arrow", ".jinja", ".py", ".yaml", ".zst", ".bz2", ".xz")
CARD_FILE = "magnetar_judge.json"
LOGS = ("metrics.jsonl", "samples.jsonl", "held_out.parquet", "evaluation_samples.jsonl")
CARD_FACTS = ("training", "magnetar")  # of a judge's card: told to people, without effect on an answer


def digest_of(value: Any) -> str:
    """Digest of plain values, whatever the order of their keys: 32 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def weighty(relative: str) -> bool:
    """Whether a file of a stage's folder decides what those that use it compute: weights, data, tokenizers, cards."""
    name = Path(relative).name
    if "checkpoint-" in relative:
        return False
    if name in (CARD_FILE, "tokenizer.json", "chat_template.jinja", "suite.json"):
        return True
    return name.endswith((".safetensors", ".bin")) or (name.endswith((".jsonl", ".parquet")) and name not in LOGS)


class FileDigests:
    """SHA-256 of files, remembered by size and time of modification, so that large ones are read once.

    Args:
        memory: File in which the digests are kept between commands; None to keep none.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if memory is not None and memory.is_file():
            try:
                self._known = dict(json.loads(memory.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):  # it only saves time
                self._known = {}

    def of(self, path: Path) -> str:
        """Digest of a file's bytes; of a judge's card, of what decides its answers."""
        if path.name == CARD_FILE:
            return _card_digest(path)
        stat = path.stat()
        key = str(path.resolve())
        known = self._known.get(key)
        if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
            return str(known[2])
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        self._known[key] = [stat.st_size, stat.st_mtime_ns, digest.hexdigest()]
        self._changed = True
        return digest.hexdigest()

    def of_folder(self, folder: Path) -> str:
        """Digest of the weights and data in a folder, with their names."""
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(WEIGHTS + DATA))
        return digest_of({str(p.relative_to(folder)): self.of(p) for p in files if ".cache" not in p.parts})

    def keep(self) -> None:
        """Write what was learned, for the next command."""
        if self._memory is None or not self._changed:
            return
        write_json(self._memory, self._known)
        self._changed = False


def combined(digests: Iterable[tuple[str, str]]) -> str:
    """Digest of named digests."""
    return digest_of(dict(digests))


def _card_digest(path: Path) -> str:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return digest_of({key: value for key, value in card.items() if key not in CARD_FACTS})
    except (ValueError, AttributeError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
