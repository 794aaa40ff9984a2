"""The embedded judge: annotators of different tastes, combined by vote."""

from magnetar.judges.panel.annotators import ANNOTATORS, defects
from magnetar.judges.panel.features import Features
from magnetar.judges.panel.judge import PanelJudge

__all__ = ["ANNOTATORS", "Features", "PanelJudge", "defects"]
