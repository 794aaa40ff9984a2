"""``suite.json``: written at once, read with checks, and extended by commands that measure something else."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from magnetar.errors import ConfigError, DataError, unknown_name
from magnetar.evaluation.record import package_versions
from magnetar.evaluation.suite.results import SECTION_KEYS, PolicyRecord, SuiteResult, check_names

__all__ = ["SUITE_FILE", "evaluating", "merge_section", "read_suite", "refuse_others", "suite_path", "write_suite"]

SUITE_FILE = "suite.json"
LOCK_FILE = "evaluation.lock"


def suite_path(place: Path) -> Path:
    """The file of a suite: as given, or ``suite.json`` of a folder."""
    return place if place.suffix == ".json" else place / SUITE_FILE


def write_suite(result: SuiteResult, place: Path) -> Path:
    """Write a result, so that a reader never sees half of it.

    Args:
        result: What was found.
        place: A folder, or a file that ends in ``.json``.

    Returns:
        The file.

    Raises:
        DataError: Records name policies or judges that are not there, a figure is not finite, or the file cannot be
            written.
    """
    check_names(result)
    path = suite_path(place)
    values = result.to_dict()
    _check_finite(values, str(path))
    unfinished = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Half of a surrogate pair, which a response may hold, becomes JSON's own escape for it.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r} ({error}); choose another output_dir") from error
    return path


def read_suite(place: Path) -> SuiteResult:
    """Read a result.

    Args:
        place: A folder with ``suite.json``, or the file.

    Returns:
        The result.

    Raises:
        DataError: There is no such file, or it is damaged or of another form; the message says where.
    """
    path = suite_path(place)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"no {path.name} in {str(path.parent)!r}; expected the output_dir of `magnetar eval --config`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); repeat the command that wrote it") from error
    return SuiteResult.from_dict(values, str(path))


def merge_section(
    place: Path,
    section: str,
    records: Sequence[Any],
    *,
    policies: Mapping[str, PolicyRecord] | None = None,
    judges: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SuiteResult:
    """Add records to a section of a file, which is made if it is not there; several commands may do so at once.

    A record that is measured again replaces the earlier one (`SECTION_KEYS` says what makes it the same); the others
    stay. Policies and judges that the file has keep their entries, and a name must not stand for two things.

    Args:
        place: A folder, or a file that ends in ``.json``.
        section: A key of `SECTION_KEYS`, such as "attacks".
        records: Of the section's class.
        policies: Those that the records name, if the file may lack them.
        judges: Likewise.
        settings: How the records were made; goes under the section's name into ``settings``.

    Returns:
        What the file holds now.

    Raises:
        DataError: The section is unknown, a name stands for something else in the file, or the file cannot be read or
            written.
    """
    if section not in SECTION_KEYS:
        raise DataError(unknown_name("section", section, SECTION_KEYS))
    path = suite_path(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        before = read_suite(path) if path.is_file() else SuiteResult()
        _check_names(before, policies or {}, judges or {}, path)
        keys = SECTION_KEYS[section]
        new = {_identity(record, keys): record for record in records}
        kept = [record for record in getattr(before, section) if _identity(record, keys) not in new]
        result = replace(
            before,
            **{section: (*kept, *records)},
            policies={**(policies or {}), **before.policies},
            judges={**(judges or {}), **before.judges},
            settings={**before.settings, **({} if settings is None else {section: dict(settings)})},
            versions={**before.versions, **package_versions()},
        )
        write_suite(result, path)
    return result


def refuse_others(place: Path, policies: Mapping[str, PolicyRecord], judges: Mapping[str, Any]) -> None:
    """Refuse names that stand for something else in a file, before anything is measured that would go into it.

    Args:
        place: A folder, or a file that ends in ``.json``; it need not be there.
        policies: What is to be measured, by name.
        judges: Specifications by name.

    Raises:
        DataError: A name stands for something else in the file, or another model or file lies in the place of a policy.
    """
    path = suite_path(place)
    if path.is_file():
        _check_names(read_suite(path), policies, judges, path)


@contextmanager
def evaluating(folder: Path) -> Iterator[None]:
    """Hold a folder while policies answer and judges are asked.

    Args:
        folder: Of the suite; made if it is not there.

    Raises:
        ConfigError: Another command is at work in it, or it cannot be written to.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another command is evaluating into {str(folder)!r}; wait for it or choose another output_dir"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write to {str(folder)!r} ({error}); choose another output_dir") from error
    try:
        yield
    finally:
        lock.release()


def _check_names(
    before: SuiteResult, policies: Mapping[str, PolicyRecord], judges: Mapping[str, Any], path: Path
) -> None:
    for name, policy in policies.items():
        known = before.policies.get(name, policy)
        _check_same(f"policy {name!r}", known.spec, policy.spec, path)
        if not known.is_same(policy):
            raise DataError(
                f"policy {name!r} is another one now: the files in {', '.join(policy.spec)} have changed since {path} "
                "was written; repeat the command that measured it first, or choose another name, or another output_dir"
            )
    for name, judge in judges.items():
        _check_same(f"judge {name!r}", before.judges.get(name, judge), judge, path)


def _check_same(what: str, before: Any, now: Any, path: Path) -> None:
    if before != now:
        raise DataError(f"{what} is {now!r}, but {before!r} in {path}; choose another name, or another output_dir")


def _identity(record: Any, keys: Sequence[str]) -> str:
    return json.dumps([getattr(record, key) for key in keys], sort_keys=True, default=str)


def _check_finite(value: Any, where: str) -> None:
    """Refuse what JSON has no word for, and say where it stands."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _check_finite(entry, f"{where}: {key}")
    elif isinstance(value, list):
        for at, entry in enumerate(value):
            _check_finite(entry, f"{where}[{at}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where} is {value}, expected a finite number")
