"""What a person reads after a run: self-contained pages, a model card, figures."""

from magnetar.reports.folders import write_report
from magnetar.reports.judge_page import write_judge_page
from magnetar.reports.model_card import write_model_card
from magnetar.reports.pipeline_page import write_pipeline_report
from magnetar.reports.run_page import verdict, write_matchup_report, write_run_report
from magnetar.reports.suite_page import write_suite_report

__all__ = [
    "verdict",
    "write_judge_page",
    "write_matchup_report",
    "write_model_card",
    "write_pipeline_report",
    "write_report",
    "write_run_report",
    "write_suite_report",
]
