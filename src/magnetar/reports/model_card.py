"""The README of a trained model or adapter, as the Hugging Face Hub reads it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from magnetar.errors import DataError
from magnetar.evaluation.record import package_versions
from magnetar.evaluation.summary import MatchupSummary
from magnetar.evaluation.suspicions import suspicions
from magnetar.reports.run_data import flat_settings

__all__ = ["write_model_card"]

_DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".txt", ".gz", ".bz2", ".xz", ".zst")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(
    folder: str | Path,
    *,
    base_model: str,
    method: str,
    judge: str,
    dataset: str,
    summary: MatchupSummary | None,
    settings: Mapping[str, Any],
) -> Path:
    """Write ``README.md`` beside a model; it says only what is passed in.

    A folder with ``adapter_config.json`` is described as a PEFT adapter, any other as a transformers model. The front
    matter names the base model and the dataset only where they are Hub ids: a path would be a dead link there.

    Args:
        folder: Where the model was saved.
        base_model: Hub id, path or "demo".
        method: Name of the method.
        judge: Specification of the judge.
        dataset: Hub id, path or "demo".
        summary: Figures against the starting model; None when there are none, which the card then says.
        settings: The run's settings; plain values, nested ones are flattened, those that are None left out.

    Returns:
        Path of the card.

    Raises:
        DataError: If the card cannot be written.
    """
    path = Path(folder) / "README.md"
    adapter = (Path(folder) / "adapter_config.json").is_file()
    front: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if _is_hub_id(base_model):
        front |= {"base_model": base_model, "base_model_relation": "adapter" if adapter else "finetune"}
    if _is_hub_id(dataset):
        front["datasets"] = [dataset]
    front["tags"] = ["magnetar", "nash-learning", "preference-optimization", "rlhf", method]
    text = (
        _environment()
        .get_template("model_card.md.j2")
        .render(
            front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
            title=Path(folder).resolve().name,
            adapter=adapter,
            base_model=base_model,
            method=method,
            judge=judge,
            dataset=dataset,
            summary=summary,
            warnings=suspicions(summary, judge) if summary else [],
            settings={key: value for key, value in flat_settings(settings).items() if value != "null"},
            versions=package_versions(),
        )
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write the model card {str(path)!r} ({error}); is the folder there?") from error
    return path


def _is_hub_id(name: str) -> bool:
    path = Path(name)
    local = name.startswith(".") or path.exists() or path.parent.is_dir() or path.suffix in _DATA_SUFFIXES
    return bool(_HUB_ID.fullmatch(name)) and not local


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("magnetar.reports"),
        autoescape=False,  # Markdown, not HTML; table cells and code spans are escaped by the filters below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100.0 * value:.1f}%"
    return environment


def _cell(value: Any) -> str:
    """Text that neither ends a table's cell or line nor starts an element."""
    text = re.sub(r"\s+", " ", str(value)).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")
    return text.replace("&", "&amp;").replace("<", "&lt;")
