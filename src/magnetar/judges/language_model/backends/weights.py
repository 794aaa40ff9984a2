"""Which weights a model has, so that answers are never taken over from others of the same name."""

import hashlib
import json
from pathlib import Path

from magnetar.errors import JudgeError

__all__ = ["weights_fingerprint"]

READ_BYTES = 1 << 22


def weights_fingerprint(source: str) -> str:
    """Digest of a model: of every file of a folder, or name and commit on the Hub; an adapter's base included.

    It reads all weights once, in about the time that loading them takes.

    Args:
        source: Folder or hub name, of a model that has been loaded.

    Returns:
        Text that changes with the weights.

    Raises:
        JudgeError: If neither a folder nor a commit of this name is on this machine.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        from transformers.utils.hub import cached_file, extract_commit_hash

        found = cached_file(source, "config.json", _raise_exceptions_for_missing_entries=False, local_files_only=True)
        found = found or cached_file(
            source, "adapter_config.json", _raise_exceptions_for_missing_entries=False, local_files_only=True
        )
        commit = None if found is None else extract_commit_hash(found, None)
        if commit is None:
            raise JudgeError(f"the commit of model {source!r} is not known, so that its answers cannot be kept")
        return f"{source}@{commit}"
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        if file.name == "README.md":
            continue
        digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(READ_BYTES):
                digest.update(block)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if base:
            digest.update(weights_fingerprint(str(base)).encode())
    return digest.hexdigest()
