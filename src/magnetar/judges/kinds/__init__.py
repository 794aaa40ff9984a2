"""The kinds of judge that a spec can name, one file for each family."""

from collections.abc import Mapping
from types import MappingProxyType

from magnetar.judges.kinds import files, language, models, panels, python
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec

__all__ = ["JUDGE_KINDS", "JudgeKind", "JudgeSpec"]

JUDGE_KINDS: Mapping[str, JudgeKind] = MappingProxyType(
    panels.KINDS | models.KINDS | language.KINDS | files.KINDS | python.KINDS
)
"""The kinds of judge that a spec can name."""
