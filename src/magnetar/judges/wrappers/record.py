"""A judge's answers written down as JSON Lines, to be read by people or given again by ``replay:FILE``.

The first line of each run says who answers:
``{"magnetar_record": 1, "judge": ID, "name": ..., "identity": ..., "questions": "pairs", ...}``. Each further line is
one answer: ``{"judge": ID, "prompt": ..., "first": ..., "second": ..., "win_prob": 0.7}``, null for a masked pair, or,
of a pointwise judge, ``{"judge": ID, "prompt": ..., "response": ..., "features": [1.5]}``.
"""

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.judges.wrappers.paths import checked_file
from magnetar.judges.wrappers.relay import Answers, Ask, Count, Questions, Relay, RelayedJudge, relayed
from magnetar.types import Prompt

__all__ = ["FORMAT", "PAIRS", "RESPONSES", "Recorded", "RecordedJudge", "recorded_judge"]

FORMAT = 1
PAIRS, RESPONSES = "pairs", "responses"
ID_DIGITS = 12
_WRITING = threading.Lock()


@dataclass(frozen=True)
class RecordedJudge:
    """Who answered, as a record says it.

    Attributes:
        judge: Short id, which stands in each of the judge's lines.
        name: Its name.
        identity: Its identity; None if it could not tell.
        questions: "pairs", or "responses" for a pointwise judge.
        comparison: How features of a pointwise judge are compared, see `PointwiseJudge.comparison`.
        may_abstain: Whether answers may be masked.
        symmetrized: Whether the judge was asked in both orders by a `Symmetrized` around the record.
    """

    judge: str
    name: str
    identity: str | None
    questions: str = PAIRS
    comparison: Mapping[str, Any] | None = None
    may_abstain: bool = False
    symmetrized: bool = False


def Recorded(judge: Judge, path: str | Path, *, symmetrized: bool = False) -> Judge:
    """Write each answer of a judge to a file as soon as it comes.

    Of a pointwise judge the features of each response are written, of any other the answers to ordered pairs. A file
    that exists is continued; several judges and processes may write to one file. `stats` adds `recorded`.

    Args:
        judge: Any judge. A pointwise one of a class of its own that does not name its `comparison` is recorded pair by
            pair, and then reads a response once for each pair.
        path: The file; it and its folder are made when the first answer comes.
        symmetrized: Whether the caller puts a `Symmetrized` around the result; the file says so, and the judge that
            replays it does likewise.

    Returns:
        A judge of equal answers; pointwise if the judge is.

    Raises:
        JudgeError: If the file cannot be written.
    """
    about = recorded_judge(judge, symmetrized)
    recorder = _Recorder(checked_file("record", path), about)
    if isinstance(judge, PointwiseJudge) and about.questions == PAIRS:
        return RelayedJudge(judge, [recorder])
    return relayed(judge, recorder)


def recorded_judge(judge: Judge, symmetrized: bool = False) -> RecordedJudge:
    """What a record says of a judge."""
    try:
        identity = judge.identity()
    except JudgeError:
        identity = None  # to be read by people all the same, and told apart by its name
    comparison = judge.comparison() if isinstance(judge, PointwiseJudge) else None
    return RecordedJudge(
        judge=(identity or hashlib.blake2b(judge.name.encode("utf-8", "surrogatepass")).hexdigest())[:ID_DIGITS],
        name=judge.name,
        identity=identity,
        questions=PAIRS if comparison is None else RESPONSES,
        comparison=comparison,
        may_abstain=judge.may_abstain,
        symmetrized=symmetrized,
    )


class _Recorder(Relay):
    """Writes a line for each answer that passes."""

    for_threads = True

    def __init__(self, path: Path, about: RecordedJudge) -> None:
        self.path = path
        self.about = about
        self._begun_by: int | None = None

    def pass_on(self, questions: Questions, ask: Ask, count: Count) -> Answers:
        for index, rows in ask(questions):
            lines = [self._line(questions, int(at), row) for at, row in zip(index, rows, strict=True)]
            self._append(lines)
            count("recorded", len(lines))
            yield index, rows

    def _line(self, questions: Questions, at: int, row: FloatArray) -> dict[str, Any]:
        prompt: Prompt = questions.prompts[at]
        texts = [column[at] for column in questions.texts]
        numbers = [None if np.isnan(number) else float(number) for number in row]
        if self.about.questions == RESPONSES:
            return {"judge": self.about.judge, "prompt": prompt, "response": texts[0], "features": numbers}
        first, second = texts
        return {"judge": self.about.judge, "prompt": prompt, "first": first, "second": second, "win_prob": numbers[0]}

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write whole lines by one call each time, so that processes which share the file do not mix theirs."""
        with _WRITING:
            self._append_alone(lines)

    def _append_alone(self, lines: Sequence[Mapping[str, Any]]) -> None:
        try:
            if self._begun_by != os.getpid():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lines = [{"magnetar_record": FORMAT, **asdict(self.about)}, *lines]
            content = b"".join(map(_encoded, lines))
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                if self._begun_by != os.getpid() and _ends_within_a_line(file):
                    content = b"\n" + content  # a killed run's last line stays a line of its own
                written = os.write(file, content)
            finally:
                os.close(file)
        except OSError as error:
            raise self._trouble(str(error)) from error
        if written < len(content):
            raise self._trouble(f"only {written} of {len(content)} bytes could be written")
        self._begun_by = os.getpid()

    def _trouble(self, problem: str) -> JudgeError:
        return JudgeError(
            f"the record {str(self.path)!r} cannot be written: {problem}; free space on its disk, make it writable, or "
            "name another file"
        )


def _encoded(line: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 cannot say
        return json.dumps(line).encode() + b"\n"


def _ends_within_a_line(file: int) -> bool:
    size = os.fstat(file).st_size
    return size > 0 and os.pread(file, 1, size - 1) != b"\n"
