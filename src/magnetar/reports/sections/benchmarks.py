"""General benchmarks: a row for each policy, a column for each task and metric."""

from magnetar.evaluation.suite import BenchmarkRecord, SuiteResult
from magnetar.reports.sections.blocks import Section, Table

__all__ = ["benchmark_section"]


def benchmark_section(result: SuiteResult) -> list[Section]:
    """The table of benchmarks.

    Args:
        result: What was found.

    Returns:
        One section, or none.
    """
    if not result.benchmarks:
        return []
    columns = list(dict.fromkeys((one.task, one.metric, _settings(one)) for one in result.benchmarks))
    cells = {(one.policy, (one.task, one.metric, _settings(one))): one for one in result.benchmarks}
    policies = [name for name in result.policies if any(one.policy == name for one in result.benchmarks)]
    header = ["", *(f"{task}, {metric}{f' ({settings})' if settings else ''}" for task, metric, settings in columns)]
    rows = [[policy, *(_figure(cells.get((policy, column))) for column in columns)] for policy in policies]
    return [Section("General benchmarks", "", tables=[Table(header, rows, "± is the harness's standard error.")])]


def _figure(record: BenchmarkRecord | None) -> str:
    if record is None:
        return "–"
    error = "" if record.standard_error is None else f" ± {record.standard_error:.3f}"
    return f"{record.value:.3f}{error}"


def _settings(record: BenchmarkRecord) -> str:
    """What was set, in words; what was left alone is not told."""
    told = {key: value for key, value in record.settings.items() if value is not None and value is not False}
    return ", ".join(key.replace("_", " ") if value is True else f"{key} {value}" for key, value in told.items())
