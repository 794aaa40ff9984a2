"""Digests of what decides a model's answers: its files by their content, so that a moved folder stays the same."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

__all__ = ["WEIGHTS", "folder_digest", "model_digest"]

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
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


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
