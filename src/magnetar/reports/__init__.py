"""What a person reads after a run: a self-contained page, a model card, figures."""

from magnetar.reports.html import verdict, write_matchup_report, write_run_report
from magnetar.reports.judge_page import write_judge_page
from magnetar.reports.model_card import write_model_card

__all__ = ["verdict", "write_judge_page", "write_matchup_report", "write_model_card", "write_run_report"]
