"""Digests of what decides a model's answers: its files by their content, so that a moved folder stays the same."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

__all__ = ["WEIGHTS", "files_digest", "folder_digest", "model_digest"]

WEIGHTS = ("*.safetensors", "*.bin", "adapter_config.json", "config.json")
"""Files that decide what a model computes."""
RENDERING = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "chat_template.jinja", "vocab.json")
"""Files that decide how a prompt becomes tokens."""


def folder_digest(folder: Path, patterns: Iterable[str]) -> str:
    """Digest of the names and contents of some files of a folder.

    Args:
        folder: The folder.
        patterns: Which files, as shell patterns.

    Returns:
        32 hexadecimal digits.
    """
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return files_digest(paths)


def files_digest(paths: Iterable[Path]) -> str:
    """Digest of the names and contents of some files; large ones are read once for as long as they stay as they are.

    Args:
        paths: The files, in their order.

    Returns:
        32 hexadecimal digits.
    """
    return _digest(tuple((path.absolute(), _state(path)) for path in paths))


def model_digest(spec: str) -> str:
    """Digest of a model, of its tokenizer, and of the base beneath it if it is an adapter in a folder.

    Args:
        spec: A folder, or a name, which stands for itself.

    Returns:
        Hexadecimal digits, or the name.
    """
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        return spec
    own = folder_digest(folder, (*WEIGHTS, *RENDERING))
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        return own
    base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
    return f"{own} on {model_digest(str(base))}"


def _state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[Path, tuple[int, ...]], ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path, _ in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
