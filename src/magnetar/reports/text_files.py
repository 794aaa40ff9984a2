"""Text into a file, whole or not at all."""

import os
import tempfile
from pathlib import Path

from magnetar.errors import DataError

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> Path:
    """Write a page; a reader never sees half of it.

    Characters that UTF-8 cannot hold (halves of surrogate pairs, which a model's output may contain) become "?".

    Args:
        path: Where to write; its folder is made if need be.
        text: What to write.

    Returns:
        ``path``.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode("utf-8", "replace"))
            Path(name).chmod(0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write the page to {str(path)!r} ({error}); choose another place") from error
    return path
