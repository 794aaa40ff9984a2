"""What a folder is, and the page that goes with it."""

from collections.abc import Callable
from pathlib import Path

from magnetar.errors import DataError
from magnetar.evaluation.record import EVALUATION_FILE, SAMPLES_FILE
from magnetar.evaluation.suite import SUITE_FILE, read_suite
from magnetar.evaluation.summary import MatchupSummary
from magnetar.reports.comparison_files import read_comparison
from magnetar.reports.comparison_page import comparison_page
from magnetar.reports.pipeline_data import COMPARISON_FILE, MANIFEST_FILE, METRICS_FILE, PIPELINE_FILE, STARTED_FILE
from magnetar.reports.pipeline_page import write_pipeline_report
from magnetar.reports.run_data import read_json, read_json_lines
from magnetar.reports.run_page import write_matchup_report, write_run_report
from magnetar.reports.suite_page import write_suite_report
from magnetar.reports.text_files import write_text

__all__ = ["kind_of", "write_report"]

SEARCHED = 3  # folders deep


def kind_of(place: Path) -> str:
    """What a folder or a file holds.

    Args:
        place: A folder, or one of the files that are asked for by name below.

    Returns:
        "run", "suite", "comparison", "pipeline" or "matchup".

    Raises:
        DataError: It is none of these; the message says what was looked for, and which folders below are.
    """
    if place.is_file():
        return _kind_of_file(place)
    if not place.is_dir():
        raise DataError(f"no file or folder {str(place)!r}; expected the output_dir of a magnetar command")
    if (place / PIPELINE_FILE).is_file():
        return "pipeline"
    for name, kind in _FILES.items():
        if (place / name).is_file():
            return kind
    if _stages(place):
        return "pipeline"
    below = sorted(
        {
            str(path.parent)
            for depth in range(1, SEARCHED)
            for name in _FILES
            for path in place.glob("*/" * depth + name)
        }
    )
    hint = f"; there is something to show in {', '.join(below[:3])}" if below else ""
    raise DataError(f"nothing to show in {str(place)!r}: none of {', '.join(_FILES)}, and no stage of a pipeline{hint}")


def write_report(place: Path, out: Path | None = None) -> Path:
    """Write the page of whatever a folder holds: a run, a comparison, a suite, a pipeline, or a match-up's file.

    Args:
        place: A folder, or one of its files.
        out: Where to write; beside what it is made from by default.

    Returns:
        The page's path.

    Raises:
        DataError: The folder holds nothing to show, a file is damaged, or the page cannot be written.
    """
    place = Path(place)
    return _WRITERS[kind_of(place)](place, out)


def _stages(folder: Path) -> list[Path]:
    return [
        path
        for depth in range(1, SEARCHED + 1)
        for name in (MANIFEST_FILE, STARTED_FILE)
        for path in folder.glob("*/" * depth + name)
    ]


def _kind_of_file(path: Path) -> str:
    if path.name in _FILES:
        return _FILES[path.name]
    if path.suffix != ".json":
        raise DataError(
            f"{str(path)!r} is no JSON file; expected a folder, or the file of a suite, comparison or match-up"
        )
    keys = set(read_json(path))
    if {"win_rate", "policy", "opponent"} <= keys:
        return "matchup"
    if {"rows", "matrix", "curves"} <= keys:
        return "comparison"
    read_suite(path)
    return "suite"


def _run(place: Path, out: Path | None) -> Path:
    return write_run_report(place.parent if place.is_file() else place, out)


def _comparison(place: Path, out: Path | None) -> Path:
    path = place if place.is_file() else place / COMPARISON_FILE
    return write_text(out or path.with_suffix(".html"), comparison_page(read_comparison(path), path.parent))


def _matchup(place: Path, out: Path | None) -> Path:
    path = place if place.is_file() else place / EVALUATION_FILE
    record = read_json(path)
    samples = path.with_name(SAMPLES_FILE)
    return write_matchup_report(
        MatchupSummary.from_dict(record),
        record.get("samples") or (read_json_lines(samples) if samples.is_file() else []),
        out or path.with_suffix(".html"),
        settings=record.get("settings") or {},
    )


_FILES = {METRICS_FILE: "run", SUITE_FILE: "suite", COMPARISON_FILE: "comparison", EVALUATION_FILE: "matchup"}
_WRITERS: dict[str, Callable[[Path, Path | None], Path]] = {
    "run": _run,
    "suite": write_suite_report,
    "comparison": _comparison,
    "pipeline": write_pipeline_report,
    "matchup": _matchup,
}
