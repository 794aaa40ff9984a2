"""The files of an evaluation: figures with settings and versions, and samples to read."""

import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from magnetar.evaluation.summary import MatchupSummary

__all__ = ["EVALUATION_FILE", "SAMPLES_FILE", "evaluation_record", "package_versions", "write_evaluation"]

EVALUATION_FILE = "evaluation.json"
SAMPLES_FILE = "evaluation_samples.jsonl"

# Half of a surrogate pair, which a response may hold, becomes JSON's own escape for it.
SURROGATES = "backslashreplace"
_PACKAGES = (
    *("magnetar", "torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "numpy", "scipy"),
    *("vllm", "lm_eval", "bitsandbytes", "deepspeed"),
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages on which figures depend; packages that are absent are left out."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def evaluation_record(summary: MatchupSummary, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The summary's keys, with ``settings`` and ``versions`` beside them: what ``evaluation.json`` holds.

    Args:
        summary: The figures.
        settings: How they were obtained; plain values.

    Returns:
        A dictionary for JSON; `MatchupSummary.from_dict` reads the summary back.
    """
    return {**summary.to_dict(), "settings": dict(settings), "versions": package_versions()}


def write_evaluation(
    folder: Path,
    summary: MatchupSummary,
    samples: Iterable[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Write ``evaluation.json`` and ``evaluation_samples.jsonl`` into a run's folder, where its report finds them.

    Args:
        folder: The run's folder.
        summary: The figures.
        samples: What `magnetar.evaluation.sample_records` draws.
        settings: How the figures were obtained; plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps(evaluation_record(summary, settings), indent=2, ensure_ascii=False)
    (folder / EVALUATION_FILE).write_text(record + "\n", encoding="utf-8", errors=SURROGATES)
    lines = "".join(json.dumps(dict(sample), ensure_ascii=False) + "\n" for sample in samples)
    (folder / SAMPLES_FILE).write_text(lines, encoding="utf-8", errors=SURROGATES)
