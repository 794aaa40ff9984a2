"""Judges that are files: a table of win probabilities."""

from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec
from magnetar.judges.matrix import MatrixJudge, load_matrix

__all__ = ["KINDS"]


def _check_matrix(spec: JudgeSpec) -> None:
    load_matrix(spec.target or "")


def _build_matrix(spec: JudgeSpec) -> MatrixJudge:
    return load_matrix(spec.target or "")


KINDS = {"matrix": JudgeKind("file", frozenset(), "matrix:FILE", _check_matrix, _build_matrix)}
