"""Judges: who beats whom.

``build_judge("panel")`` and its like turn one spec string, mapping, function or object into a `Judge`. Judges that
need models or optional packages are loaded on demand.
"""

from typing import TYPE_CHECKING, Any

from magnetar.judges.base import Judge
from magnetar.judges.checks import validate_win_prob
from magnetar.judges.combined import CombinedJudge
from magnetar.judges.cycles import cyclic_triple_share
from magnetar.judges.function import FunctionJudge, ScoreFunctionJudge
from magnetar.judges.matrix import MatrixJudge
from magnetar.judges.pointwise import PointwiseJudge, ScalarJudge
from magnetar.judges.replay import replay
from magnetar.judges.scores import group_scores, require_scores
from magnetar.judges.spec import JUDGE_KINDS, JudgeSpec, build_judge, parse_judge_spec, parse_scoring_spec
from magnetar.judges.wrappers import Batched, Cached, Flipped, RateLimited, Recorded, Symmetrized

if TYPE_CHECKING:
    from magnetar.judges.language_model import LanguageModelJudge
    from magnetar.judges.models.general import GeneralPreferenceJudge
    from magnetar.judges.models.pairwise import PairwiseModelJudge
    from magnetar.judges.models.scalar import RewardModelJudge
    from magnetar.judges.panel import PanelJudge

__all__ = [
    "JUDGE_KINDS",
    "Batched",
    "Cached",
    "CombinedJudge",
    "Flipped",
    "FunctionJudge",
    "GeneralPreferenceJudge",
    "Judge",
    "JudgeSpec",
    "LanguageModelJudge",
    "MatrixJudge",
    "PairwiseModelJudge",
    "PanelJudge",
    "PointwiseJudge",
    "RateLimited",
    "Recorded",
    "RewardModelJudge",
    "ScalarJudge",
    "ScoreFunctionJudge",
    "Symmetrized",
    "build_judge",
    "cyclic_triple_share",
    "group_scores",
    "parse_judge_spec",
    "parse_scoring_spec",
    "replay",
    "require_scores",
    "validate_win_prob",
]

_ON_DEMAND = {
    "GeneralPreferenceJudge": "magnetar.judges.models.general",
    "LanguageModelJudge": "magnetar.judges.language_model",
    "PairwiseModelJudge": "magnetar.judges.models.pairwise",
    "PanelJudge": "magnetar.judges.panel",
    "RewardModelJudge": "magnetar.judges.models.scalar",
}


def __getattr__(name: str) -> Any:
    """Import judges that load transformers only when they are asked for."""
    if name in _ON_DEMAND:
        from importlib import import_module

        return getattr(import_module(_ON_DEMAND[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
