"""Judges that are files: a table of win probabilities, a record of answers."""

from magnetar.judges.base import Judge
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec, check_true_or_false
from magnetar.judges.matrix import MatrixJudge, load_matrix
from magnetar.judges.replay import check_record, replay

__all__ = ["KINDS"]


def _check_matrix(spec: JudgeSpec) -> None:
    load_matrix(spec.target or "")


def _build_matrix(spec: JudgeSpec) -> MatrixJudge:
    return load_matrix(spec.target or "")


def _check_replay(spec: JudgeSpec) -> None:
    if spec.options.get("symmetrize") is not None:
        check_true_or_false(spec, "symmetrize")
    check_record(spec.target or "")


def _build_replay(spec: JudgeSpec) -> Judge:
    return replay(spec.target or "", **spec.options)


KINDS = {
    "matrix": JudgeKind("file", frozenset(), "matrix:FILE", _check_matrix, _build_matrix),
    "replay": JudgeKind(
        "file", frozenset({"judge", "symmetrize"}), "replay:FILE", _check_replay, _build_replay, scores=None
    ),
}
