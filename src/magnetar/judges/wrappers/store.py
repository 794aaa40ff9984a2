"""A file of kept answers: SQLite, one checked row for each question, several processes at once.

The file holds one table from keys (see `keys`) to rows of numbers. Each row carries its own checksum, so that damage is
seen when a row is read, and whole rows can be found in a damaged file. In SQLite's write-ahead mode readers and writers
of several processes do not block each other, and a killed process loses nothing that it had committed. Opening and
rebuilding are one process's at a time, by a lock file beside it.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from magnetar.errors import JudgeError
from magnetar.judges.checks import FloatArray
from magnetar.judges.wrappers.paths import checked_file
from magnetar.judges.wrappers.salvage import CHECK_BYTES, row_check, salvaged_rows, set_aside

__all__ = ["AnswerStore"]

_log = logging.getLogger(__name__)

APPLICATION = 0x6D676E74  # "mgnt", in the file's header
SCHEMA = 1
TABLE = "CREATE TABLE answers (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
KEYS_PER_QUERY = 500
SMALLEST_DATABASE = 512  # bytes, one page of the smallest size
BUSY_SECONDS = 60.0
DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""What SQLite says of damaged files; an ordinary error, since our statements are right, is one about the file."""
Result = TypeVar("Result")


class _DamagedError(Exception):
    """The file is damaged; the message says what was seen."""


class AnswerStore:
    """Kept answers by key; made to be used by several threads and processes, each with a connection of its own.

    A damaged file is set aside under another name, which a warning tells, and every whole row of it is taken over into
    a new file.

    Attributes:
        path: The file.
        rebuilt: How often this object found the file damaged and rebuilt it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a file, or make a new one.

        Args:
            path: The file; its folder is made if it is not there.

        Raises:
            JudgeError: If the file cannot be read and written, belongs to another program, or is of another version.
        """
        self.path = checked_file("cache", path)
        self.rebuilt = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._trouble(error) from error
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None
        self._alone_at_file = False
        self._guarded(lambda connection: None)

    def __del__(self) -> None:
        connection = getattr(self, "_connection", None)
        # A connection of the parent process is not this one's to close.
        if connection is not None and self._opened is not None and self._opened[0] == os.getpid():
            connection.close()

    def __len__(self) -> int:
        return self._guarded(lambda connection: connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path}

    def __setstate__(self, state: Mapping[str, Path]) -> None:
        self.__init__(state["path"])

    def get(self, keys: Iterable[bytes]) -> dict[bytes, FloatArray]:
        """Look answers up.

        Args:
            keys: Any number of keys.

        Returns:
            The rows that are there, each of shape (D,).

        Raises:
            JudgeError: If the file cannot be read.
        """
        wanted = list(dict.fromkeys(keys))

        def read(connection: sqlite3.Connection) -> dict[bytes, FloatArray]:
            found: dict[bytes, FloatArray] = {}
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                part = wanted[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(part))
                for key, value in connection.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", part):
                    found[key] = _unpacked(key, value)
            return found

        return self._guarded(read)

    def put(self, rows: Mapping[bytes, FloatArray]) -> None:
        """Keep answers; once this returns they outlive the process. A key that is there keeps its first answer.

        Args:
            rows: Rows of shape (D,) by key.

        Raises:
            JudgeError: If the file cannot be written.
        """
        if rows:
            self._insert([(key, _packed(key, row)) for key, row in rows.items()])

    def _guarded(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do something with the file; if it proves damaged, rebuild it and do it again."""
        with self._lock:
            for attempt in range(3):
                try:
                    return action(self._connect())
                except OSError as error:  # of the lock; a lock that is never given is one too
                    raise self._trouble(error) from error
                except (sqlite3.DatabaseError, UnicodeDecodeError, _DamagedError) as error:
                    if attempt < 2 and isinstance(error, sqlite3.Error) and _code(error) == sqlite3.SQLITE_IOERR:
                        # Another process may be setting the file aside, and its log was gone for a moment.
                        self._close()
                        time.sleep(0.1)
                        continue
                    if attempt == 2 or not self._is_damage(error):
                        raise self._trouble(error) from error
                    with self._alone():
                        self._rebuild(error)
        raise AssertionError("unreachable")

    def _connect(self) -> sqlite3.Connection:
        """The connection, made anew in a forked process and where another process has replaced the file."""
        if self._connection is not None and self._opened == self._present():
            return self._connection
        if self._connection is not None and self._opened is not None and self._opened[0] == os.getpid():
            self._connection.close()  # SQLite leaves the files of a database that was moved alone
        self._connection = None
        with self._alone():
            self._opened = self._present()  # what a rebuilding is about, also where opening finds the damage
            connection = self._open()
            self._connection, self._opened = connection, self._present()
        return connection

    def _open(self) -> sqlite3.Connection:
        with contextlib.suppress(FileNotFoundError):
            if 0 < os.stat(self.path).st_size < SMALLEST_DATABASE:  # SQLite would take it for an empty one
                raise _DamagedError("it is too short for a database")
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        try:
            _prepare(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from making or replacing the file; only within `_guarded`."""
        # SQLite does not wait for others while it makes a file, and one that is being replaced must not be opened.
        if self._alone_at_file:
            yield
            return
        lock = Path(f"{self.path}.lock")
        lock.touch()  # an error at once where a file cannot be; the lock would try for as long as it may wait
        with FileLock(lock, timeout=BUSY_SECONDS):  # a new one, since a fork must not inherit it
            self._alone_at_file = True
            try:
                yield
            finally:
                self._alone_at_file = False

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _present(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self.path)
        except OSError:
            return (os.getpid(), -1, -1)
        return (os.getpid(), status.st_dev, status.st_ino)

    def _rebuild(self, damage: Exception) -> None:
        self._close()
        aside = set_aside(self.path, (self._opened or self._present())[1:])
        if aside is None:
            return  # another process was quicker; its new file is opened next
        self.rebuilt += 1
        rows = salvaged_rows(aside)
        _log.warning(
            "the cache %r is damaged (%s); it is kept as %r, and %d whole answers of it were taken over into a new "
            "file",
            str(self.path),
            str(damage),  # not the error, which would keep this object alive with the record
            str(aside),
            len(rows),
        )
        self._insert(list(rows.items()))

    def _insert(self, packed: Sequence[tuple[bytes, bytes]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with _transaction(connection, "IMMEDIATE"):
                connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", packed)

        self._guarded(write)

    def _is_damage(self, error: Exception) -> bool:
        code = _code(error) if isinstance(error, sqlite3.Error) else sqlite3.SQLITE_CORRUPT
        # A wrong byte in the header makes SQLite refuse to write; otherwise the system would say so too.
        read_only = code == sqlite3.SQLITE_READONLY and all(
            os.access(at, os.W_OK) for at in (self.path, self.path.parent)
        )
        return code in DAMAGE or read_only

    def _trouble(self, error: Exception) -> JudgeError:
        return JudgeError(
            f"the cache {str(self.path)!r} cannot be used: {error}; free space on its disk, make file and folder "
            "writable, or name another file"
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours and whole, or make the table in a new one."""
    with _transaction(connection, "DEFERRED"):  # one view, whatever other processes do meanwhile
        # As bytes: what is damaged need not be text.
        schema = connection.execute("SELECT CAST(sql AS BLOB) FROM sqlite_master").fetchall()
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not schema and application == version == 0:
        connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection, "IMMEDIATE"):
            # Another process may have made it meanwhile.
            connection.execute(TABLE.replace("TABLE answers", "TABLE IF NOT EXISTS answers"))
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
    elif (schema, application, version) != ([(TABLE.encode(),)], APPLICATION, SCHEMA):
        ours = application == APPLICATION
        table = (TABLE.encode(),) in schema
        if ours and not table and SCHEMA < version < 256:
            raise JudgeError(
                f"the cache {str(path)!r} is of version {version}, expected {SCHEMA}; upgrade magnetar, or name "
                "another file"
            )
        if not ours and not table:
            raise JudgeError(f"{str(path)!r} is a database of another program; name another file for the cache")
        raise _DamagedError("its header or schema is not that of a cache")
    else:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _DamagedError(" ".join(str(verdict).split()))
    connection.execute("PRAGMA synchronous = NORMAL")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _packed(key: bytes, row: FloatArray) -> bytes:
    value = np.ascontiguousarray(row, dtype="<f8").tobytes()
    return value + row_check(key, value)


def _unpacked(key: bytes, value: bytes) -> FloatArray:
    content = value[:-CHECK_BYTES]
    if row_check(key, content) != value[-CHECK_BYTES:]:
        raise _DamagedError("a row does not agree with its checksum")
    return np.frombuffer(content, dtype="<f8")


def _code(error: sqlite3.Error) -> int:
    # Extended codes say more in their higher bits.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
