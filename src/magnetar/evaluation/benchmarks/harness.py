"""General benchmarks by EleutherAI's LM Evaluation Harness: tasks found by name, a policy measured on them."""

import importlib.util
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from peft import PeftModel

from magnetar.errors import ConfigError, DataError, MissingDependencyError, ModelError, unknown_name
from magnetar.evaluation.benchmarks.settings import BenchmarkSettings
from magnetar.evaluation.suite.results import BenchmarkRecord

__all__ = ["HARNESS", "FoundTasks", "find_tasks", "list_tasks", "run_benchmarks"]

HARNESS = "lm_eval"
FIX = "run: pip install 'magnetar[benchmarks]'"
NOT_FIGURES = ("alias", "name", "sample_len", "sample_count")

FoundTasks = dict[str, Any]
"""The harness's tasks and groups, loaded with their data."""


def list_tasks(pattern: str, include_path: str | None = None) -> list[str]:
    """Names that the harness and a folder of one's own offer.

    Args:
        pattern: Such as ``*arc*``.
        include_path: Folder with tasks of your own.

    Returns:
        Tasks, groups and tags, sorted.

    Raises:
        MissingDependencyError: The harness is not installed.
    """
    return [name for name in _manager(include_path, True).all_tasks if fnmatch(name, pattern)]


def find_tasks(settings: BenchmarkSettings) -> FoundTasks:
    """Find tasks by name and load their data, before any model is loaded.

    Args:
        settings: Which tasks.

    Returns:
        What `run_benchmarks` takes.

    Raises:
        ConfigError: An unknown name, with the nearest ones.
        DataError: A task's data cannot be had, or its file is damaged.
        MissingDependencyError: The harness is not installed, or a task needs another package.
    """
    manager = _manager(settings.include_path, False)
    if not all(_matches(manager, task) for task in settings.tasks):
        manager = _manager(
            settings.include_path, True
        )  # the harness's own, whose files take some seconds to look through
    names: list[str] = []
    for task in settings.tasks:
        found = _matches(manager, task)
        if not found:
            raise ConfigError(f"{_nearest(task, manager.all_tasks)} (magnetar benchmark --list 'PATTERN' lists all)")
        names += [name for name in found if name not in names]
    with _quiet():
        try:
            return cast(FoundTasks, manager.load(names))
        except ImportError as error:
            raise MissingDependencyError(
                f"a task of {', '.join(names)} needs a package: {error}; install it"
            ) from error
        except (ConnectionError, FileNotFoundError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(
                f"the data of {', '.join(names)} cannot be had: {_one_line(error)}; check the task's file, or the "
                "connection to the Hugging Face Hub"
            ) from error


def run_benchmarks(
    policy: str,
    model: Any,
    tokenizer: Any,
    tasks: FoundTasks,
    settings: BenchmarkSettings,
    cache: Path | None = None,
) -> list[BenchmarkRecord]:
    """Measure a policy on tasks.

    An adapter is merged into its base first, which is the same function and faster. The harness's answers are kept
    request by request, so that a run that was stopped goes on where it was.

    Args:
        policy: Name in the records.
        model: As `magnetar.modeling.loading.load_policy` returns it; on its device. An adapter is merged in place.
        tokenizer: The model's.
        tasks: As `find_tasks` returns them.
        settings: How they are put.
        cache: File in which answers are kept, for these weights alone; None for nowhere.

    Returns:
        One record for each metric of each task, and of each group.

    Raises:
        ConfigError: A task runs code that the model writes, and that is not allowed.
        ModelError: The model cannot be put to a task.
    """
    unsafe = [name for name, task in tasks["tasks"].items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe and not settings.unsafe_code:
        raise ConfigError(
            f"task {unsafe[0]!r} runs code that the model writes, on this machine; allow it with unsafe_code, or leave "
            "it out"
        )
    if settings.chat_template and tokenizer.chat_template is None:
        raise ModelError(f"chat_template is set, but the tokenizer of {policy!r} has none; leave it out")
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)  # type: ignore[operator]
    with _quiet():
        from lm_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports] - an extra
        from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports] - an extra
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports] - an extra

        harness = cast(Any, HFLM)(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size)
        found = simple_evaluate(
            model=harness,
            tasks=_top_level(tasks),
            task_manager=TaskManager(include_defaults=False),  # the tasks are loaded; its own would look for all again
            num_fewshot=settings.shots,
            limit=settings.limit if settings.limit is None or settings.limit < 1 else int(settings.limit),
            bootstrap_iters=settings.bootstrap,
            log_samples=False,
            apply_chat_template=settings.chat_template,
            system_instruction=settings.system,
            use_cache=None if cache is None else str(cache),
            random_seed=settings.seed,
            numpy_random_seed=settings.seed,
            torch_random_seed=settings.seed,
            fewshot_random_seed=settings.seed,
            confirm_run_unsafe_code=settings.unsafe_code,
        )
    return _records(policy, cast(Mapping[str, Any], found), settings)


def _records(policy: str, found: Mapping[str, Any], settings: BenchmarkSettings) -> list[BenchmarkRecord]:
    records = []
    for task, figures in {**found["results"], **found.get("groups", {})}.items():
        of_task = {
            **settings.of_record(),
            "shots": found.get("n-shot", {}).get(task),
            "version": found.get("versions", {}).get(task),
        }
        samples = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in figures.items():
            name, _, filter_ = key.partition(",")
            if name in NOT_FIGURES or name.endswith("_stderr") or not _is_figure(value):
                continue
            error = figures.get(f"{name}_stderr,{filter_}")
            records.append(
                BenchmarkRecord(
                    policy=policy,
                    task=task,
                    metric=name if filter_ in ("", "none") else f"{name} ({filter_})",
                    value=float(value),
                    standard_error=float(error) if _is_figure(error) else None,
                    samples=samples if isinstance(samples, int) else None,
                    settings=of_task,
                )
            )
    return records


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _manager(include_path: str | None, defaults: bool) -> Any:
    if importlib.util.find_spec(HARNESS) is None:
        raise MissingDependencyError(
            f"general benchmarks need the LM Evaluation Harness, which is not installed; {FIX}"
        )
    with _quiet():
        from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports] - an extra

        return TaskManager(include_path=include_path, include_defaults=defaults)


def _matches(manager: Any, task: str) -> list[str]:
    """Names that a word stands for: itself, those of a pattern, or a file."""
    if task in manager.task_index or Path(task).is_file():
        return [task]
    return manager.match_tasks([task]) if any(mark in task for mark in "*?[") else []


def _nearest(task: str, known: Sequence[str]) -> str:
    """The nearest names only: the whole list has thousands."""
    message = unknown_name("task", task, known).split("known: ")[0].rstrip()
    inside = sorted((name for name in known if task.lower() in name.lower()), key=len)[:5]
    return f"{message} names with it: {', '.join(inside)}" if inside else message


def _top_level(tasks: FoundTasks) -> list[Any]:
    """Groups, and tasks that are in no group, as the harness takes them."""
    groups = tasks.get("groups") or {}
    inside = {task.task_name for group in groups.values() for task in group.get_all_tasks()}
    below = {sub.name for group in groups.values() for sub in group.get_all_groups()}
    return [
        *(group for name, group in groups.items() if name not in below),
        *(task for name, task in tasks["tasks"].items() if name not in inside),
    ]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's remarks below errors to itself, and its packages' warnings about themselves."""
    log = logging.getLogger(HARNESS)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
