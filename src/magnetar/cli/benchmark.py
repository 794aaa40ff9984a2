"""`magnetar benchmark`: general benchmarks through the LM Evaluation Harness, one command."""

import argparse
import hashlib
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.arguments import at_least, options_of, parse_known
from magnetar.errors import ConfigError

if TYPE_CHECKING:
    from magnetar.evaluation.benchmarks import BenchmarkSettings
    from magnetar.evaluation.suite import BenchmarkRecord, PolicyRecord

__all__ = ["NamedModel", "main", "run_policy"]

ANSWERS = "benchmark_answers"
"""Folder beside ``suite.json`` in which the harness's answers are kept."""


@dataclass(frozen=True)
class NamedModel:
    """A policy to be measured.

    Attributes:
        name: In tables and files.
        spec: What `load_policy` loads.
    """

    name: str
    spec: str


def main(argv: list[str]) -> int:
    """Find the tasks, measure each model, print a table, and extend ``suite.json``.

    Args:
        argv: Arguments after ``magnetar benchmark``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    from magnetar.evaluation.benchmarks import BenchmarkSettings, find_tasks, list_tasks

    if args.list is not None:
        print("\n".join(list_tasks(args.list, args.include_path)))
        return 0
    models = _models(args.model or [])
    settings = BenchmarkSettings(
        tasks=tuple(word.strip() for word in (args.tasks or "").split(",") if word.strip()),
        include_path=args.include_path,
        shots=args.shots,
        limit=args.limit,
        chat_template=args.chat_template,
        system=args.system,
        batch_size=args.batch_size,
        seed=args.seed,
        unsafe_code=args.unsafe_code,
    )
    tasks = find_tasks(settings)
    if args.output_dir is not None:
        from magnetar.evaluation.suite.files import refuse_others

        refuse_others(args.output_dir, {model.name: _policy_record(model) for model in models}, {})
    records: list[BenchmarkRecord] = []
    for model in models:
        records += run_policy(model, tasks, settings, args.dtype, args.output_dir)
    print(_table(records))
    if args.output_dir is not None:
        print(f"figures: {args.output_dir / 'suite.json'}", file=sys.stderr)
    return 0


def run_policy(
    model: NamedModel, tasks: Any, settings: "BenchmarkSettings", dtype: str, folder: Path | None
) -> "list[BenchmarkRecord]":
    """Measure one policy, and write what was found at once.

    Args:
        model: The policy.
        tasks: As `find_tasks` returns them.
        settings: How they are put.
        dtype: Precision of the weights.
        folder: Where ``suite.json`` and the answers are kept; None for nowhere.

    Returns:
        The records.

    Raises:
        ModelError: The model cannot be loaded.
    """
    import torch

    from magnetar.evaluation.benchmarks import run_benchmarks
    from magnetar.evaluation.players.digests import model_digest
    from magnetar.evaluation.suite import merge_section
    from magnetar.modeling.loading import load_policy

    loaded, tokenizer = load_policy(model.spec, dtype=dtype)
    on_device: Any = loaded.to("cuda") if torch.cuda.is_available() else loaded  # type: ignore[arg-type]
    cache = None if folder is None else folder / ANSWERS / _short(f"{model_digest(model.spec)} {dtype}")
    records = run_benchmarks(model.name, on_device, tokenizer, tasks, settings, cache)
    if folder is not None:
        said = {**vars(settings), "harness": f"lm_eval {version('lm_eval')}"}
        merge_section(folder, "benchmarks", records, policies={model.name: _policy_record(model)}, settings=said)
    return records


def _policy_record(model: NamedModel) -> "PolicyRecord":
    from magnetar.evaluation.players import player_digest, player_kind
    from magnetar.evaluation.suite import PolicyRecord

    return PolicyRecord((model.spec,), player_kind(model.spec), digests=(player_digest(model.spec),))


def _short(text: str) -> str:
    """A file's name that stands for a text."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _models(given: list[str]) -> list[NamedModel]:
    """Models as ``SPEC`` or ``NAME=SPEC``, checked as far as that needs no loading."""
    from magnetar.evaluation.players import check_player_spec, player_kind

    if not given:
        raise ConfigError("model is missing; give --model SPEC, or --model NAME=SPEC several times")
    models: list[NamedModel] = []
    for word in given:
        name, equals, spec = word.partition("=")
        model = NamedModel(name, spec) if equals and "/" not in name else NamedModel(word, word)
        check_player_spec(model.spec)
        if player_kind(model.spec) not in ("model", "adapter"):
            raise ConfigError(
                f"model {model.spec!r} is no model that is run here, and benchmarks need its probabilities; give a "
                "Hub id or a folder"
            )
        if model.name in [other.name for other in models]:
            raise ConfigError(f"model {model.name!r} is given twice; name them apart: --model NAME=SPEC")
        models.append(model)
    return models


def _table(records: "list[BenchmarkRecord]") -> str:
    rows = [("policy", "task", "metric", "value", "± standard error", "items")]
    for record in records:
        error = "" if record.standard_error is None else f"{record.standard_error:.4f}"
        items = "" if record.samples is None else str(record.samples)
        rows.append((record.policy, record.task, record.metric, f"{record.value:.4f}", error, items))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar benchmark",
        description="Measure models on general benchmarks, by EleutherAI's LM Evaluation Harness.",
        epilog="Answers are kept in OUTPUT_DIR: a command that was stopped goes on when it is given again.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option(
        "model",
        "a Hub id, a model or adapter folder, or 'demo'; NAME=SPEC names it; may be given again",
        action="append",
        metavar="SPEC",
    )
    option("tasks", "tasks, groups, tags, patterns or YAML files, separated by commas", metavar="NAMES")
    option("include_path", "folder with tasks of your own (YAML files of the harness)", metavar="DIR")
    option("list", "list the tasks whose names fit, such as '*arc*', and stop", metavar="PATTERN")
    option("output_dir", "extend suite.json in this folder, and keep answers there", type=Path, metavar="DIR")
    option("shots", "solved examples before each item (default: as each task says)", type=at_least(0), metavar="N")
    option("limit", "items of each task: a number, or their share below 1", type=float, metavar="N")
    option("chat_template", "put items as chat turns through the model's template", action="store_true")
    option("system", "instruction in the system's turn; needs --chat_template", metavar="TEXT")
    option("batch_size", "items at a time (default 8)", type=at_least(1), default=8)
    option("dtype", "precision of the weights (default float32)", default="float32")
    option("seed", "of the choice of examples and of sampling (default 0)", type=at_least(0), default=0)
    option("unsafe_code", "allow tasks that run what the model writes, on this machine", action="store_true")
    return parse_known(parser, argv)
