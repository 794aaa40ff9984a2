"""Language models as judges: templates, delimiting, reading of answers, and where the models are."""

from magnetar.judges.language_model.backends import Asking, Backend, Reply
from magnetar.judges.language_model.injections import InjectionReport, load_injections, measure_injections
from magnetar.judges.language_model.judge import LanguageModelJudge
from magnetar.judges.language_model.templates import TEMPLATE_NAMES, Choices, JudgeTemplate, load_template

__all__ = [
    "TEMPLATE_NAMES",
    "Asking",
    "Backend",
    "Choices",
    "InjectionReport",
    "JudgeTemplate",
    "LanguageModelJudge",
    "Reply",
    "load_injections",
    "load_template",
    "measure_injections",
]
