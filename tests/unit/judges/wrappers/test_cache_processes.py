"""Several processes at one cache, and one that is killed: nothing is lost, nothing is mixed up."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from counting_judges import PairJudge, pair_answer

from magnetar.judges import Cached
from magnetar.judges.wrappers.store import AnswerStore

HERE = str(Path(__file__).parent)
COMMON = f"""
import os, sys, time
sys.path.insert(0, {HERE!r})
import numpy as np
from counting_judges import PairJudge, pair_answer
from magnetar.judges import Cached
"""

SHARING = (
    COMMON
    + """
path, rank, count, begin = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
time.sleep(max(0.0, begin - time.time()))  # all at once
judge = Cached(PairJudge(size=7), path)
order = np.random.default_rng(rank).permutation(count)
for start in range(0, count, 50):
    texts = [f"text {at}" for at in order[start : start + 50]]
    answer = judge.pair_win_prob(["p"] * len(texts), texts, ["x"] * len(texts))
    assert answer.tolist() == [pair_answer("p", text, "x") for text in texts]
stats = judge.stats()
assert stats["cache_hits"] + stats["cache_misses"] == count and "cache_rebuilt" not in stats, stats
print(int(stats["cache_misses"]))
"""
)

SLOW = (
    COMMON
    + """
judge = Cached(PairJudge(size=2, seconds=0.01), sys.argv[1])
texts = [f"text {at}" for at in range(5000)]
for index, answers in judge.iter_pair_win_prob(["p"] * 5000, texts, ["x"] * 5000):
    print(*(texts[at] for at in index), sep="\\n", flush=True)
"""
)


def start(code: str, *args: object, **options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def outcome(process: "subprocess.Popen[str]") -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def outcomes(processes: "list[subprocess.Popen[str]]") -> list[str]:
    try:
        return [outcome(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_processes_that_begin_at_once_read_and_write_one_file(tmp_path: Path):
    path, count = tmp_path / "c", 600
    begin = time.time() + 4.0
    processes = [start(SHARING, path, rank, count, begin) for rank in range(3)]
    misses = [int(output) for output in outcomes(processes)]
    assert count <= sum(misses) < 3 * count, "each read what others had written"
    store = AnswerStore(path)
    assert (len(store), store.rebuilt) == (count, 0)
    late = PairJudge()
    Cached(late, path).pair_win_prob(["p"] * count, [f"text {at}" for at in range(count)], ["x"] * count)
    assert late.asked == []


def test_a_killed_run_loses_nothing_that_was_answered(tmp_path: Path):
    path = tmp_path / "c"
    process = start(SLOW, path)
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(60)]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    seen += rest.split("\n")[:-1]
    assert 60 <= len(seen) < 5000
    inner = PairJudge()
    answer = Cached(inner, path).pair_win_prob(["p"] * len(seen), seen, ["x"] * len(seen))
    assert inner.asked == []
    np.testing.assert_array_equal(answer, [pair_answer("p", text, "x") for text in seen])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_writes_through_a_connection_of_its_own(tmp_path: Path):
    code = COMMON + (
        "judge = Cached(PairJudge(), sys.argv[1])\n"
        "judge.pair_win_prob(['p'], ['before'], ['x'])\n"
        "mine = judge.relays[0].store._connection\n"
        "child = os.fork()\n"
        "judge.pair_win_prob(['p'] * 50, [f'{child == 0} {at}' for at in range(50)], ['x'] * 50)\n"
        "assert (judge.relays[0].store._connection is mine) == (child != 0)\n"
        "if child == 0:\n    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    outcome(start(code, tmp_path / "c"))
    store = AnswerStore(tmp_path / "c")
    assert (len(store), store.rebuilt) == (101, 0)


def test_processes_that_find_the_same_damage_rebuild_it_once_and_lose_nothing(tmp_path: Path):
    path, count = tmp_path / "c", 600
    texts = [f"text {at}" for at in range(count)]
    judge = Cached(PairJudge(size=count), path)
    judge.pair_win_prob(["p"] * count, texts, ["x"] * count)
    del judge
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    code = COMMON + (
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "inner = PairJudge()\njudge = Cached(inner, sys.argv[1])\ntexts = [f'text {at}' for at in range(600)]\n"
        "answer = judge.pair_win_prob(['p'] * 600, texts, ['x'] * 600)\n"
        "assert answer.tolist() == [pair_answer('p', text, 'x') for text in texts]\nprint(len(inner.asked))\n"
    )
    begin = time.time() + 4.0
    asked = [int(output) for output in outcomes([start(code, path, begin) for _ in range(3)])]
    assert max(asked) < count, "what was whole came from the old file to all of them"
    assert [at.name for at in tmp_path.glob("c.damaged*")] == ["c.damaged-1"], "one of them rebuilt it, once"
    late = PairJudge()
    Cached(late, path).pair_win_prob(["p"] * count, texts, ["x"] * count)
    assert late.asked == []
