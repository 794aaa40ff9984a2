"""What becomes of a damaged cache: it is set aside, and its whole rows are found without SQLite's help."""

import contextlib
import os
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from magnetar.errors import JudgeError
from magnetar.judges.wrappers.keys import KEY_BYTES

__all__ = ["CHECK_BYTES", "row_check", "salvaged_rows", "set_aside"]

CHECK_BYTES = 8
"""Length of the checksum behind the numbers of a row."""
COMPANIONS = ("-wal", "-shm")
"""Files that SQLite keeps beside a database; the first holds rows that are not yet in the database itself."""


def row_check(key: bytes, value: bytes) -> bytes:
    """Checksum of a row.

    Args:
        key: Its key.
        value: Its numbers as bytes.

    Returns:
        `CHECK_BYTES` bytes.
    """
    return blake2b(key + value, digest_size=CHECK_BYTES).digest()


def set_aside(path: Path, file: tuple[int, int]) -> Path | None:
    """Give a damaged cache another name; the caller keeps other processes from it meanwhile.

    Args:
        path: The cache.
        file: Device and inode of the file that was found damaged.

    Returns:
        The new name; None if another process has set that file aside already.

    Raises:
        JudgeError: If it cannot be renamed.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if (status.st_dev, status.st_ino) != file:
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        # The companions first: a new database of the old name must not find them.
        for end in COMPANIONS:
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{end}", f"{aside}{end}")
        os.rename(path, aside)
    except OSError as error:
        raise JudgeError(
            f"the cache {str(path)!r} is damaged and cannot be set aside: {error}; remove it, or name another file"
        ) from error
    return aside


def salvaged_rows(path: Path) -> dict[bytes, bytes]:
    """Find all whole rows in the bytes of a damaged cache, wherever they stand.

    A row is stored as the length of its header, the types of key and value, the key and the value, and its checksum
    tells whether these bytes are one. Rows that SQLite moved or that stand in the write-ahead file twice are equal.

    Args:
        path: The file that was set aside.

    Returns:
        Values, checksum included, by key. Rows of some hundred numbers, which SQLite splits, are not found.
    """
    rows: dict[bytes, bytes] = {}
    for file in (path, Path(f"{path}{COMPANIONS[0]}")):
        with contextlib.suppress(FileNotFoundError):
            rows.update(_rows_in(file.read_bytes()))
    return rows


def _rows_in(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    # SQLite's record format: varints, and the type of a blob of n bytes is 12 + 2 n.
    key_type = re.escape(bytes([12 + 2 * KEY_BYTES]))
    # Looked for ahead only, because what looks like a row may begin within another.
    header = re.compile(b"(?=\x03%b([\x00-\x7f])|\x04%b([\x80-\xff][\x00-\x7f]))" % (key_type, key_type), re.DOTALL)
    for match in header.finditer(content):
        short, long = match.groups()
        kind = short[0] if short else (long[0] & 0x7F) << 7 | long[1]
        length = (kind - 12) // 2
        if kind % 2 or length <= CHECK_BYTES or (length - CHECK_BYTES) % 8:
            continue
        at = match.start() + (3 if short else 4)
        key, value = content[at : at + KEY_BYTES], content[at + KEY_BYTES : at + KEY_BYTES + length]
        if len(value) == length and row_check(key, value[:-CHECK_BYTES]) == value[-CHECK_BYTES:]:
            yield key, value
