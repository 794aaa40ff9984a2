"""A judge that gives recorded answers again, and no others."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray, describe_pair, short_text
from magnetar.judges.comparisons import compare_by
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.judges.wrappers.keys import question_keys
from magnetar.judges.wrappers.record import FORMAT, RESPONSES, RecordedJudge
from magnetar.judges.wrappers.relay import Questions
from magnetar.judges.wrappers.symmetrized import Symmetrized
from magnetar.types import Prompt

__all__ = ["PointwiseReplayJudge", "Record", "ReplayJudge", "check_record", "read_record", "replay"]

_log = logging.getLogger(__name__)

HEADER = "magnetar_record"


@dataclass(frozen=True)
class Record:
    """The answers of one judge in a file.

    Attributes:
        path: The file.
        about: Who answered.
        answers: Rows of shape (D,) by the digest of the question; of an answer that was given twice the later one.
        dropped: Lines that were not whole, as a killed run leaves one.
    """

    path: Path
    about: RecordedJudge
    answers: Mapping[bytes, FloatArray]
    dropped: int

    def lookup(self, judge: str, questions: Questions) -> FloatArray:
        """Answers to N questions, shape (N, D).

        Raises:
            JudgeError: Naming the first question that is not in the file.
        """
        rows = []
        for at, key in enumerate(question_keys("", questions)):
            row = self.answers.get(key)
            if row is None:
                texts = [column[at] for column in questions.texts]
                asked = (
                    describe_pair(questions.prompts[at], *texts)
                    if len(texts) == 2
                    else f"prompt {short_text(questions.prompts[at])}, response {short_text(texts[0])}"
                )
                raise JudgeError(
                    f"judge {judge!r} holds {len(self.answers)} answers but none to this question: {asked}; ask what "
                    "was recorded, or record the run again"
                )
            rows.append(row)
        return np.stack(rows)

    def digest(self) -> Mapping[str, Any]:
        """What decides the answers: the answers."""
        content = blake2b(digest_size=16)
        for key in sorted(self.answers):
            content.update(key + self.answers[key].tobytes())
        return {"answers": content.hexdigest(), "comparison": self.about.comparison}


class ReplayJudge(Judge):
    """Recorded answers to ordered pairs."""

    def __init__(self, record: Record) -> None:
        """Give a record's answers.

        Args:
            record: Of a judge that was asked about pairs.
        """
        self.record = record
        self.name = f"replay:{record.about.name}"
        self.may_abstain = record.about.may_abstain
        _count_dropped(self, record)

    def _identity(self) -> Mapping[str, Any]:
        return self.record.digest()

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return self.record.lookup(self.name, Questions(prompts, (first, second)))[:, 0]


class PointwiseReplayJudge(PointwiseJudge):
    """Recorded features of single responses, compared as their judge did."""

    def __init__(self, record: Record) -> None:
        """Give a record's features.

        Args:
            record: Of a pointwise judge.
        """
        self.record = record
        self.name = f"replay:{record.about.name}"
        _count_dropped(self, record)

    def comparison(self) -> Mapping[str, Any]:
        """The recorded judge's."""
        return self.record.about.comparison or {}

    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Compare as the recorded judge did."""
        return compare_by(self.comparison(), first, second)

    def _identity(self) -> Mapping[str, Any]:
        return self.record.digest()

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return self.record.lookup(self.name, Questions(prompts, (responses,)))


def replay(path: str | Path, *, judge: str | None = None, symmetrize: bool | None = None) -> Judge:
    """Make a judge of a record.

    Args:
        path: A file that `Recorded` wrote.
        judge: Name or id of the judge that is meant, where the file holds several.
        symmetrize: Whether both orders are asked and averaged; as when recording when None.

    Returns:
        A judge that raises a `JudgeError` for a question that is not in the file. `stats` counts `dropped_lines` once.

    Raises:
        JudgeError: If the file cannot be read or holds no such judge.
    """
    record = read_record(path, judge)
    if record.about.questions == RESPONSES:
        if symmetrize:
            raise JudgeError(f"symmetrize has no effect on the record {str(path)!r}: its judge reads single responses")
        return PointwiseReplayJudge(record)
    symmetrize = record.about.symmetrized if symmetrize is None else symmetrize
    return Symmetrized(ReplayJudge(record)) if symmetrize else ReplayJudge(record)


def check_record(path: str | Path) -> Path:
    """Check that a file is the beginning of a record, without reading the rest.

    Args:
        path: The file.

    Returns:
        Its path.

    Raises:
        JudgeError: If there is no such file, or it begins differently.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise JudgeError(f"there is no record {str(file)!r}; record a judge with record={str(file)!r} first")
    with file.open("rb") as stream:
        # A run that was killed at its first write leaves half a line before the next run's first.
        begun = next((content for line in islice(stream, 100) if (content := _parsed(line)) is not None), None)
    if _header(begun) is None:
        raise JudgeError(f"{str(file)!r} is not a record of a judge's answers: it does not begin with {HEADER!r}")
    return file


def read_record(path: str | Path, judge: str | None = None) -> Record:
    """Read a judge's answers.

    Args:
        path: A file that `Recorded` wrote.
        judge: Name or id of the judge; may be left out where the file holds one.

    Returns:
        The record.

    Raises:
        JudgeError: If the file cannot be read, the judge is not in it or not told apart, or an answer cannot be.
    """
    file = check_record(path)
    judges: dict[str, RecordedJudge] = {}
    lines: list[tuple[int, Mapping[str, Any]]] = []
    dropped = []
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            content = _parsed(line)
            if content is None:
                dropped.append(number)
            elif (about := _header(content)) is not None:
                judges[about.judge] = about
            else:
                lines.append((number, content))
    if dropped:
        _log.warning("%s: line(s) %s not whole, dropped", file, ", ".join(map(str, dropped)))
    about = _chosen(file, judges, judge)
    answers = dict(_answer(file, number, line, about) for number, line in lines if line.get("judge") == about.judge)
    return Record(file, about, answers, len(dropped))


def _chosen(file: Path, judges: Mapping[str, RecordedJudge], wanted: str | None) -> RecordedJudge:
    found = [about for about in judges.values() if wanted is None or wanted in (about.judge, about.name)]
    names = [f"{about.name} ({about.judge})" for about in judges.values()]
    if not found:
        raise JudgeError(f"{str(file)!r}: {unknown_name('recorded judge', str(wanted), names)}")
    if len(found) > 1:
        raise JudgeError(
            f"{str(file)!r} holds several judges: {', '.join(names)}; say which by judge={found[0].judge!r}"
        )
    return found[0]


def _answer(file: Path, number: int, line: Mapping[str, Any], about: RecordedJudge) -> tuple[bytes, FloatArray]:
    try:
        if about.questions == RESPONSES:
            texts, row = ([line["response"]],), np.array(line["features"], dtype=np.float64)
            valid = row.ndim == 1 and bool(np.isfinite(row).all())
        else:
            texts, answer = ([line["first"]], [line["second"]]), line["win_prob"]
            row = np.array([np.nan if answer is None else answer], dtype=np.float64)
            valid = about.may_abstain if answer is None else 0.0 <= answer <= 1.0
        key = question_keys("", Questions([line["prompt"]], texts))[0]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JudgeError(
            f"{str(file)!r}, line {number}, is not a recorded answer ({type(error).__name__}: {error}); remove it"
        ) from error
    if not valid:
        what = "finite features" if about.questions == RESPONSES else "a win probability in [0, 1]"
        raise JudgeError(f"{str(file)!r}, line {number}: {row.tolist()}, expected {what}; remove the line")
    return key, row


def _parsed(line: bytes) -> Mapping[str, Any] | None:
    """A line's content; None for a line that is not whole."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and line.endswith(b"\n") else None


def _header(content: Mapping[str, Any] | None) -> RecordedJudge | None:
    if content is None or HEADER not in content:
        return None
    if content[HEADER] != FORMAT:
        raise JudgeError(f"the record is of version {content[HEADER]!r}, expected {FORMAT}; upgrade magnetar")
    known = {item.name for item in fields(RecordedJudge)}
    try:
        return RecordedJudge(**{key: value for key, value in content.items() if key in known})
    except TypeError as error:
        raise JudgeError(f"the record's first line does not say who answers: {error}") from error


def _count_dropped(judge: Judge, record: Record) -> None:
    if record.dropped:
        judge._count("dropped_lines", record.dropped)
