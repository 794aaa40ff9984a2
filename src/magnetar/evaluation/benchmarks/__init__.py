"""General benchmarks: what alignment does to what a model can do, by the LM Evaluation Harness."""

from magnetar.evaluation.benchmarks.harness import find_tasks, list_tasks, run_benchmarks
from magnetar.evaluation.benchmarks.settings import BenchmarkSettings

__all__ = ["BenchmarkSettings", "find_tasks", "list_tasks", "run_benchmarks"]
