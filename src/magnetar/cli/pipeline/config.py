"""The configuration of `magnetar pipeline`: a mapping for each stage, checked for what it can name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnetar.cli.run_options import as_number, read_yaml
from magnetar.errors import ConfigError, unknown_name
from magnetar.pipeline.references import STAGES

__all__ = ["KEYS", "PipelineConfig", "pipeline_config", "read_configuration"]

KEYS = ("output_dir", "model", "settings", "keep_checkpoints", *STAGES)
NAMED = ("data", "preference")
"""Stages of several products, each with a name and settings of its own."""
OWN = {
    "output_dir": "the pipeline, which gives every stage a folder",
    "resume_from_checkpoint": "repeating the command, which goes on with a stage that was interrupted",
    "overwrite_output_dir": "the pipeline, which moves aside what is made again",
    "model_name_or_path": "the key 'model'",
}


@dataclass(frozen=True)
class PipelineConfig:
    """What a configuration says.

    Attributes:
        output_dir: Where everything is written.
        model: Where training starts: Hub id, folder or "demo".
        settings: Settings of all stages that train; those of a stage win.
        stages: Stage → its mapping; stages that are not there do not exist.
        keep_checkpoints: Whether finished stages keep what only resuming needs.
    """

    output_dir: Path
    model: str
    settings: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_checkpoints: bool = False


def read_configuration(path: Path, changes: list[str]) -> dict[str, Any]:
    """Read a file, and apply what ``--set`` says.

    Args:
        path: YAML.
        changes: ``KEY.KEY=VALUE`` each; the value is YAML.

    Raises:
        ConfigError: The file or a change cannot be read.
    """
    found = read_yaml(path, set(KEYS), "pipeline")
    for change in changes:
        _apply(found, change)
    return found


def pipeline_config(found: Mapping[str, Any]) -> PipelineConfig:
    """Check a configuration's form.

    Args:
        found: What the file says.

    Raises:
        ConfigError: An unknown stage, something that is missing, or an entry of another form than expected.
    """
    for key in found:
        if key not in KEYS:
            raise ConfigError(unknown_name("stage or key", str(key), KEYS))
    for name in ("output_dir", "model"):
        if not isinstance(found.get(name), str):
            raise ConfigError(
                f"{name} is {found.get(name)!r}, expected text; add it to the file, or give --set {name}=…"
            )
    if not isinstance(found.get("keep_checkpoints", False), bool):
        raise ConfigError(f"keep_checkpoints is {found['keep_checkpoints']!r}, expected true or false")
    stages: dict[str, Mapping[str, Any]] = {}
    for stage in STAGES:
        # A stage that is named without settings, `report:`, has its defaults; false leaves it out.
        if stage in found and found[stage] is not False:
            stages[stage] = _numbers(_mapping(stage, found[stage]))
    for stage in NAMED:
        for name, entry in stages.get(stage, {}).items():
            _check_name(f"{stage}: {name}", name)
            _refuse_own(f"{stage}: {name}", _mapping(f"{stage}: {name}", entry))
    if "sft" in stages:
        _refuse_own("sft", stages["sft"])
    settings = _numbers(_mapping("settings", found.get("settings")))
    _refuse_own("settings", settings)
    if not stages:
        raise ConfigError(f"no stage is configured; expected at least one of {', '.join(STAGES)}")
    return PipelineConfig(
        Path(found["output_dir"]), found["model"], settings, stages, found.get("keep_checkpoints", False)
    )


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None or value is True:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}, expected a mapping of field: value")
    return {str(key): entry for key, entry in value.items()}


def _numbers(value: Any) -> Any:
    """YAML reads 1e-5 as text."""
    if isinstance(value, Mapping):
        return {str(key): _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return as_number(value) if isinstance(value, str) else value


def _check_name(where: str, name: str) -> None:
    if not name or any(sign in name for sign in "/:\\") or name.startswith(".") or name != name.strip():
        raise ConfigError(f"{where}: a name is part of a folder's name, expected letters, digits, hyphens and spaces")


def _refuse_own(where: str, settings: Mapping[str, Any]) -> None:
    for key in settings:
        if key in OWN:
            raise ConfigError(f"{where}: {key} is set by {OWN[key]}; remove it there")


def _apply(found: dict[str, Any], change: str) -> None:
    import yaml

    if "=" not in change:
        raise ConfigError(f"--set {change!r} has no value, expected KEY=VALUE, for instance --set train.seeds=[0]")
    keys, text = change.split("=", 1)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {change!r}: the value is not YAML: {error}") from error
    place: Any = found
    *above, last = keys.split(".")
    for key in above:
        if place.get(key) is None:
            place[key] = {}
        place = place[key]
        if not isinstance(place, dict):
            raise ConfigError(f"--set {change!r}: {key!r} is {place!r}, which has no entries")
    if above == [] and last not in KEYS:
        raise ConfigError(f"--set {change!r}: {unknown_name('stage or key', last, KEYS)}")
    entry = place.get(last)
    if above == ["data"] and isinstance(entry, dict) and not isinstance(value, dict):
        entry["source"] = value  # data.pairs=FILE: where it comes from, and not how it is split
        return
    place[last] = value
