"""A suite: policies × judges × prompts, measured once and written into one file."""

from magnetar.evaluation.suite.files import SUITE_FILE, merge_section, read_suite, write_suite
from magnetar.evaluation.suite.results import (
    AttackRecord,
    BenchmarkRecord,
    CategoryCost,
    CategoryWinRate,
    CostRecord,
    ExploitabilityRecord,
    Histogram,
    MatchupRecord,
    OrderRecord,
    PathStep,
    PolicyRecord,
    PromptsRecord,
    SampleRecord,
    SuiteResult,
    TournamentRecord,
)

__all__ = [
    "SUITE_FILE",
    "AttackRecord",
    "BenchmarkRecord",
    "CategoryCost",
    "CategoryWinRate",
    "CostRecord",
    "ExploitabilityRecord",
    "Histogram",
    "MatchupRecord",
    "OrderRecord",
    "PathStep",
    "PolicyRecord",
    "PromptsRecord",
    "SampleRecord",
    "SuiteResult",
    "TournamentRecord",
    "merge_section",
    "read_suite",
    "write_suite",
]
