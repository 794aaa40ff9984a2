"""A damaged cache is found out, set aside and rebuilt from its whole rows; what is not ours is left alone."""

import logging
import resource
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from counting_judges import CircleJudge, PairJudge, features

from magnetar.errors import JudgeError
from magnetar.judges import Cached
from magnetar.judges.wrappers.store import APPLICATION, AnswerStore

COUNT = 600


@pytest.fixture(scope="module")
def rows() -> dict[bytes, np.ndarray]:
    rng = np.random.default_rng(0)
    # One number is a win probability or a score, the others are embeddings.
    return {rng.bytes(16): rng.normal(size=(1, 8, 48)[at % 3]) for at in range(COUNT)}


@pytest.fixture(scope="module")
def whole(rows: dict[bytes, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "cache.sqlite"
    store = AnswerStore(path)
    store.put(rows)
    del store
    return path.read_bytes()


def opened(path: Path, rows: dict[bytes, np.ndarray]) -> tuple[AnswerStore, int]:
    """The store and how many rows are missing; what is there must be right, and writing must work."""
    store = AnswerStore(path)
    found = store.get(rows)
    for key, row in found.items():
        np.testing.assert_array_equal(row, rows[key])
    store.put({b"a new key, sixte": np.ones(2)})
    assert len(AnswerStore(path).get([b"a new key, sixte"])) == 1
    return store, len(rows) - len(found)


def test_flipped_bytes_cost_at_most_the_row_they_are_in(rows, whole, tmp_path: Path, caplog):
    rng = np.random.default_rng(1)
    # The header byte by byte, the schema, then anywhere.
    places = [*range(0, 100, 5), *range(3900, 4096, 60), *rng.integers(4096, len(whole), size=25).tolist()]
    rebuilt = 0
    for place in places:
        path = tmp_path / f"flipped-{place}.sqlite"
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        caplog.clear()
        store, missing = opened(path, rows)
        assert missing <= 1, place
        rebuilt += store.rebuilt
        aside = path.with_name(path.name + ".damaged-1")
        assert aside.exists() == bool(store.rebuilt)
        if store.rebuilt:
            assert aside.read_bytes() == bytes(damaged), "the damaged file is kept as it was"
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
            message = caplog.records[0].getMessage()
            assert str(path) in message
            assert str(aside) in message
            assert str(COUNT - missing) in message
    assert rebuilt > 20, "bytes of the header, of pages and of rows were seen to be wrong"


def test_damage_that_comes_while_the_file_is_open_is_found_when_it_is_read(rows, whole, tmp_path: Path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(whole)
    store = AnswerStore(path)
    assert store.rebuilt == 0
    key = next(iter(rows))
    place = whole.index(rows[key].tobytes())
    with path.open("r+b") as file:
        file.seek(place + 3)
        file.write(bytes([whole[place + 3] ^ 0x55]))
    store._connect().execute("PRAGMA shrink_memory")  # or SQLite would answer from what it has read before
    found = store.get(rows)
    assert key not in found
    assert (len(found), store.rebuilt) == (COUNT - 1, 1)
    assert path.with_name("cache.sqlite.damaged-1").exists()


@pytest.mark.parametrize("length", [0.1, 0.3, 0.6, 0.99])
def test_a_truncated_file_keeps_what_is_left(rows, whole, tmp_path: Path, length: float):
    path = tmp_path / "cache.sqlite"
    cut = int(length * len(whole))
    path.write_bytes(whole[:cut])
    store, missing = opened(path, rows)
    left = sum(key + row.tobytes() in whole[:cut] for key, row in rows.items())
    assert store.rebuilt == 1
    assert 0 < COUNT - missing <= left
    assert COUNT - missing >= left - 1, "every row that is whole in the file"


@pytest.mark.parametrize(
    "content", [b"this is no database, but long enough to be looked at\n" * 200, b"\x00" * 5000, b"x"]
)
def test_a_file_that_is_no_database_is_kept_under_another_name(tmp_path: Path, content: bytes, caplog):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    judge = Cached(PairJudge(), path)
    judge.pair_win_prob(["p"], ["a"], ["b"])
    assert path.with_name("notes.txt.damaged-1").read_bytes() == content
    assert "notes.txt.damaged-1" in caplog.text
    assert len(AnswerStore(path)) == 1
    assert judge.stats()["cache_rebuilt"] == 1
    assert "cache_rebuilt" not in judge.stats()


def test_a_run_goes_on_through_damage_and_asks_only_what_was_lost(tmp_path: Path):
    path, texts = tmp_path / "c", [f"text {at}" for at in range(500)]
    expected = features(Cached(CircleJudge(size=500), path), ["p"] * 500, texts)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    inner = CircleJudge()
    judge = Cached(inner, path)
    np.testing.assert_array_equal(features(judge, ["p"] * 500, texts), expected)
    assert len(inner.read) <= 1
    assert judge.stats()["cache_rebuilt"] == 1


def test_rows_that_a_killed_process_left_in_the_write_ahead_file_are_taken_over(tmp_path: Path):
    path = tmp_path / "c"
    rows = {bytes([at]) * 16: np.array([at / 8]) for at in range(8)}
    AnswerStore(path).put({key: row for key, row in rows.items() if key[0] < 4})
    script = (
        "import os, sys, numpy; from magnetar.judges.wrappers.store import AnswerStore; "
        "store = AnswerStore(sys.argv[1]); "
        "[store.put({bytes([at]) * 16: numpy.array([at / 8])}) for at in range(4, 8)]; os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == 9
    assert Path(f"{path}-wal").stat().st_size > 0
    content = path.read_bytes()
    path.write_bytes(b"no database" + content[11:])
    store, missing = opened(path, rows)
    assert (store.rebuilt, missing) == (1, 0)


def test_two_damages_are_kept_apart(rows, whole, tmp_path: Path):
    path = tmp_path / "cache.sqlite"
    for number in (1, 2):
        path.write_bytes(whole[: len(whole) // 2])
        store, _ = opened(path, rows)
        assert store.rebuilt == 1
        del store  # closes the file before it is overwritten
        assert path.with_name(f"cache.sqlite.damaged-{number}").exists()


def test_an_open_store_follows_a_file_that_another_rebuilt(rows, whole, tmp_path: Path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(whole)
    store = AnswerStore(path)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    other = AnswerStore(path)
    assert other.rebuilt == 1
    store.put({b"written by first": np.ones(1)})
    assert len(other.get([b"written by first"])) == 1
    assert store.rebuilt == 0
    assert not path.with_name("cache.sqlite.damaged-2").exists()


def test_a_cache_of_another_version_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "c"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, value BLOB, when_asked REAL)")
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JudgeError, match="is of version 2, expected 1; upgrade magnetar, or name another file"):
        AnswerStore(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path):
    path = tmp_path / "diary.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JudgeError, match="database of another program; name another file"):
        Cached(PairJudge(), path)
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"diary.sqlite", "diary.sqlite.lock"}


def test_paths_that_cannot_be_are_refused(tmp_path: Path):
    with pytest.raises(JudgeError, match="is a folder; give a file in it"):
        AnswerStore(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeError, match=r"cannot lie in .*file', which is a file"):
        AnswerStore(tmp_path / "file" / "deeper" / "c")
    AnswerStore(tmp_path / "new" / "folders" / "c")
    with pytest.raises(JudgeError, match=r"cannot be (used|written)"):
        AnswerStore("/proc/no_cache_here")


def test_a_read_only_folder_is_one_clear_error():
    code = (
        "import os, sys\nfrom magnetar.errors import JudgeError\n"
        "from magnetar.judges.wrappers.store import AnswerStore\n"
        # A superuser may write anywhere, so that somebody else has to ask.
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    AnswerStore(sys.argv[1])\nexcept JudgeError as error:\n    print(error)\n"
    )
    # Not within pytest's own folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "locked"
        folder.mkdir()
        existing = folder / "old"
        AnswerStore(existing)
        existing.chmod(0o444)
        folder.chmod(0o555)
        for path in (folder / "new", existing):
            done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
            assert "is read-only; name another file" in done.stdout, done.stderr
        folder.chmod(0o755)


def test_a_full_disk_is_one_clear_error_and_what_was_kept_stays(tmp_path: Path):
    path = tmp_path / "c"
    code = (
        "import resource, sys\nimport numpy as np\n"
        "from magnetar.errors import JudgeError\nfrom magnetar.judges.wrappers.store import AnswerStore\n"
        "store = AnswerStore(sys.argv[1])\nstore.put({bytes(16): np.ones(1)})\n"
        # The system then refuses to let any file grow beyond this, as a full disk does.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    store.put({at.to_bytes(16, 'big'): np.ones(64) for at in range(1, 2000)})\n"
        "except JudgeError as error:\n    print(error)\n"
        "print(len(store.get([bytes(16)])))\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"the cache '{path}' cannot be used")
    assert "free space on its disk" in first
    assert second == "1"
    store = AnswerStore(path)
    assert (len(store), store.rebuilt) == (1, 0)
