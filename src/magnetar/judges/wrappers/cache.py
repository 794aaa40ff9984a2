"""Answers kept on disk, so that no question is asked twice."""

from pathlib import Path

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.wrappers.keys import question_keys
from magnetar.judges.wrappers.relay import Answers, Ask, Count, Questions, Relay, relayed
from magnetar.judges.wrappers.store import AnswerStore

__all__ = ["Cached"]


def Cached(judge: Judge, path: str | Path) -> Judge:
    """Keep a judge's answers in a file; later calls, runs and processes read them from there.

    Of a pointwise judge the features of each response are kept, of any other the answers to ordered pairs. What the
    judge has answered is on disk as soon as it comes, so that a run that is killed loses nothing. Answers are found by
    the content of the question and by the judge's identity: a judge that changed never reads what it said before, and
    several judges may share one file. A pair that the judge abstained from is not kept. `stats` adds `cache_hits`,
    `cache_misses` (both count different questions of one call once) and, if it happened, `cache_rebuilt`.

    Args:
        judge: Any judge that can tell its identity.
        path: The file; it and its folder are made if they do not exist.

    Returns:
        A judge of equal answers; pointwise if the judge is.

    Raises:
        JudgeError: If the judge cannot tell what decides its answers, or the file cannot be used.
    """
    identity = judge.identity()
    return relayed(judge, _KeptAnswers(AnswerStore(path), identity))


class _KeptAnswers(Relay):
    """Answers from a store what it holds, and keeps there what the judge answers."""

    for_threads = True

    def __init__(self, store: AnswerStore, identity: str) -> None:
        self.store = store
        self.identity = identity
        self._reported = 0

    def pass_on(self, questions: Questions, ask: Ask, count: Count) -> Answers:
        places: dict[bytes, list[int]] = {}
        for at, key in enumerate(question_keys(self.identity, questions)):
            places.setdefault(key, []).append(at)
        found = self.store.get(places)
        count("cache_hits", len(found))
        count("cache_misses", len(places) - len(found))
        if found:
            yield _spread([(places[key], found[key]) for key in places if key in found])
        missing = [key for key in places if key not in found]
        if missing:
            for index, rows in ask(questions.take([places[key][0] for key in missing])):
                answered = {missing[at]: row for at, row in zip(index, rows, strict=True)}
                self.store.put({key: row for key, row in answered.items() if not np.isnan(row).any()})
                yield _spread([(places[key], row) for key, row in answered.items()])
        if self.store.rebuilt > self._reported:
            count("cache_rebuilt", self.store.rebuilt - self._reported)
            self._reported = self.store.rebuilt


def _spread(answers: "list[tuple[list[int], np.ndarray]]") -> tuple[np.ndarray, np.ndarray]:
    """One row for each place of an answer."""
    index = np.array([at for places, _ in answers for at in places], dtype=np.intp)
    try:
        rows = np.stack([row for places, row in answers for _ in places])
    except ValueError as error:
        raise JudgeError(f"the cache holds answers of different length to one judge: {error}") from error
    return index, rows
