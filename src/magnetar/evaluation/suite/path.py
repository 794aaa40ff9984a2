"""The way of a training run: which of its policies were kept, after how many updates, and which became the magnet."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnetar.errors import DataError

__all__ = ["KeptPolicy", "read_path"]

STATE_FILE = "magnetar_state.json"
LEDGER_FILE = "ledger.json"
CONFIG_FILE = "magnetar_config.json"
METRICS_FILE = "metrics.jsonl"
NEVER_A_POLICY = ("fixed", "moving average")
PLACES = ("curve/update-*", "checkpoint-*", "rounds/*")
WEIGHTS = ("adapter_config.json", "config.json")


@dataclass(frozen=True)
class KeptPolicy:
    """A policy of a run.

    Attributes:
        folder: Where its weights are.
        update: Updates that had been made; None where the run does not say.
        magnet: Whether the magnet moved to it.
        last: Whether it is the run's result.
    """

    folder: Path
    update: int | None
    magnet: bool
    last: bool


def read_path(run: Path) -> list[KeptPolicy]:
    """Find the policies that a run kept, in the order of training, its result last.

    Looked for are the points of a comparison's curve, checkpoints that were finished, and folders in ``rounds``; a
    policy of the same update is taken once. The magnet's moves are those of the newest checkpoint's record or of the
    log. A magnet that follows as a moving average is never one of the policies.

    Args:
        run: The output folder of a training run.

    Returns:
        At least the result.

    Raises:
        DataError: The folder holds no finished run, or a record is damaged.
    """
    if not any((run / name).is_file() for name in WEIGHTS):
        raise DataError(
            f"{str(run)!r} holds no policy (neither {' nor '.join(WEIGHTS)}); expected the output folder of a finished "
            "`magnetar train`"
        )
    found: dict[int, Path] = {}
    for pattern in PLACES:
        for folder in sorted(run.glob(pattern)):
            update = _update_of(folder)
            if update is not None and any((folder / name).is_file() for name in WEIGHTS):
                found.setdefault(update, folder)
    moves = _magnet_moves(run)
    last = _last_update(run)
    found = {update: folder for update, folder in found.items() if last is None or update < last}
    path = [KeptPolicy(folder, update, update in moves, False) for update, folder in sorted(found.items())]
    return [*path, KeptPolicy(run, last, last in moves, True)]


def _update_of(folder: Path) -> int | None:
    """Updates behind a kept policy; None for a folder that is not one, or was not finished."""
    for name, key in ((LEDGER_FILE, "updates"), (STATE_FILE, "update")):
        path = folder / name
        if path.is_file():
            value = _read(path).get(key)
            return value if isinstance(value, int) else None
    return None


def _last_update(run: Path) -> int | None:
    lines = _metrics(run)
    if lines:
        return max(lines)
    return _update_of(run)


def _magnet_moves(run: Path) -> set[int]:
    """Updates after which the magnet became the current policy."""
    config = run / CONFIG_FILE
    schedule = str(_read(config).get("magnet", "")) if config.is_file() else ""
    if schedule.startswith(NEVER_A_POLICY):
        return set()
    lines = _metrics(run)
    # A line stands for all updates since the one before: only of a single one is it known that the move was its own.
    moves = {update for update, moved in lines.items() if moved and (update - 1 in lines or update == 1)}
    for state in run.glob(f"checkpoint-*/{STATE_FILE}"):
        moves |= {int(update) for update in _read(state).get("magnet_moves", ())}
    return moves


def _metrics(run: Path) -> dict[int, bool]:
    """Update → whether the magnet moved, for each line of the log."""
    path = run / METRICS_FILE
    if not path.is_file():
        return {}
    found: dict[int, bool] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
                if "magnet_moved" in record:
                    found[int(record["update"])] = bool(record["magnet_moved"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}: cannot be read ({error})") from error
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
