"""Read what a training run left in its folder."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.record import EVALUATION_FILE, SAMPLES_FILE
from magnetar.evaluation.summary import MatchupSummary

__all__ = ["RunData", "flat_settings", "read_json", "read_json_lines", "read_run"]


@dataclass(frozen=True)
class RunData:
    """A run's files, read.

    Attributes:
        name: Name of the folder.
        config: Resolved settings; empty when the file is absent.
        metrics: One object per update, in the order of the updates.
        samples: Responses during training; may be empty.
        summary: Figures of the evaluation; None when the run has not been evaluated.
        evaluation: Settings and versions of the evaluation, by these two names.
        evaluation_samples: Responses of both sides of the evaluation; may be empty.
    """

    name: str
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    summary: MatchupSummary | None
    evaluation: dict[str, dict[str, Any]]
    evaluation_samples: list[dict[str, Any]]

    @property
    def updates(self) -> list[float]:
        """Number of the update of each line of metrics."""
        return [float(line["update"]) for line in self.metrics]

    def column(self, key: str) -> list[float | None]:
        """One metric over the updates; None where it is missing or not finite."""
        return [_finite(line.get(key)) for line in self.metrics]

    def magnet_moves(self) -> list[float]:
        """The updates after which the magnet moved."""
        return [u for u, moved in zip(self.updates, self.column("magnet_moved"), strict=True) if moved]


def read_run(folder: Path) -> RunData:
    """Read a run's folder; everything but ``metrics.jsonl`` may be absent.

    Args:
        folder: The run's output folder.

    Returns:
        What was found.

    Raises:
        DataError: If there is no ``metrics.jsonl``, it holds no update, or a file is damaged.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise DataError(f"no metrics.jsonl in {str(folder)!r}; expected the output folder of `magnetar train`")
    metrics = _by_update(read_json_lines(path))
    if not metrics:
        raise DataError(f"{path} holds no update; expected at least one line with the key 'update'")
    evaluation_path = folder / EVALUATION_FILE
    evaluation = read_json(evaluation_path) if evaluation_path.is_file() else None
    config_path = folder / "magnetar_config.json"
    return RunData(
        name=folder.resolve().name,
        config=read_json(config_path) if config_path.is_file() else {},
        metrics=metrics,
        samples=_lines_if_any(folder / "samples.jsonl"),
        summary=None if evaluation is None else MatchupSummary.from_dict(evaluation),
        evaluation={key: (evaluation or {}).get(key) or {} for key in ("settings", "versions")},
        evaluation_samples=_lines_if_any(folder / SAMPLES_FILE) if evaluation is not None else [],
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        DataError: If the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}); write it anew or delete it") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line; a last line that was cut off by an interruption is left out.

    Raises:
        DataError: If any other line is not a JSON object.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline after it: it was being written when the run stopped
                break
            raise DataError(f"{path}, line {number}, is not JSON ({error}); delete the line") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}, holds a {type(record).__name__}, expected a JSON object")
        records.append(record)
    return records


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names with their values in words, None as ``null``."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flat_settings(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            )
    return flat


def _by_update(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One object per update, in order.

    Several lines of one update (inner epochs, or an update played again after an interruption) become one, the later
    values win; a line without an update, such as an evaluation's, belongs to the update before it.
    """
    merged: dict[Any, dict[str, Any]] = {}
    last = None
    for line in lines:
        last = line.get("update", last)
        if last is not None:
            moved = max(line.get("magnet_moved") or 0, merged.get(last, {}).get("magnet_moved") or 0)
            merged[last] = {**merged.get(last, {}), **line, "update": last, "magnet_moved": moved}
    return [_with_waiting(merged[update]) for update in sorted(merged)]


def _with_waiting(line: dict[str, Any]) -> dict[str, Any]:
    """The line of an older run too says how long the trainer waited for the judge: it waited for all of it."""
    if "seconds_judge" not in line or "seconds_waiting" in line:
        return line
    return line | {"seconds_waiting": line["seconds_judge"]}


def _lines_if_any(path: Path) -> list[dict[str, Any]]:
    return read_json_lines(path) if path.is_file() else []


def _finite(value: Any) -> float | None:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None
