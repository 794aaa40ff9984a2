"""One spec names a player anywhere: a model, an adapter, an endpoint, or a file of responses."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from magnetar.errors import DataError, ModelError, unknown_name
from magnetar.evaluation.players.base import StreamingPlayer
from magnetar.evaluation.players.digests import files_digest, model_digest
from magnetar.evaluation.players.endpoint import ENDPOINT_PREFIX, parse_endpoint
from magnetar.evaluation.players.files import FilePlayer
from magnetar.evaluation.players.models import CheckpointPlayer

__all__ = ["PlayerKind", "check_player_spec", "make_player", "player_digest", "player_kind"]

PlayerKind = Literal["model", "adapter", "endpoint", "file"]
FILE_PREFIX = "file:"
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MODEL_KEYS = ("model", "dtype")
FORMS = "'demo', OWNER/NAME, a model or adapter folder, file:RESPONSES.jsonl, or endpoint:URL#model=NAME"

Spec = str | Mapping[str, Any]


def check_player_spec(spec: Spec) -> None:
    """Check what can be checked about a player without loading it.

    Args:
        spec: "demo", a Hub id, a model folder, an adapter folder, ``file:RESPONSES.jsonl``,
            ``endpoint:URL#model=NAME``; or a mapping: ``{"kind": "endpoint", "model": ..., "base_url": ...}`` or
            ``{"model": ..., "dtype": ...}``.

    Raises:
        DataError: If the file of responses does not exist.
        ModelError: If a folder holds no model, the text can be neither a folder nor a Hub id, or an endpoint's
            settings cannot be.
    """
    if not isinstance(spec, str):
        _check_mapping(spec)
        return
    if spec.startswith(ENDPOINT_PREFIX):
        parse_endpoint(spec)
        return
    if spec.startswith(FILE_PREFIX):
        path = Path(spec.removeprefix(FILE_PREFIX))
        if not path.is_file():
            raise DataError(
                f"no file {str(path)!r}; expected file:RESPONSES.jsonl with prompt and response on each line"
            )
        return
    path = Path(spec).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"folder {spec!r} has neither config.json nor adapter_config.json; is it a run's checkpoint?"
            )
        return
    local = spec.startswith((".", "/", "~")) or ("/" in spec and path.parent.is_dir())
    if local or not HUB_ID.fullmatch(spec):
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()] if local and path.parent.is_dir() else []
        nearest = get_close_matches(path.name, beside, n=1, cutoff=0.5)
        hint = f"did you mean {str(path.parent / nearest[0])!r}? " if nearest else ""
        raise ModelError(f"no folder {spec!r}, and it is no Hub id; {hint}expected {FORMS}")


def make_player(spec: Spec, *, dtype: str = "float32") -> StreamingPlayer:
    """The player that a specification names; models are loaded when they answer.

    Args:
        spec: As for `check_player_spec`, which is called first.
        dtype: Precision of a model's weights.

    Returns:
        The player.
    """
    check_player_spec(spec)
    if not isinstance(spec, str):
        if spec.get("kind") == "endpoint":
            return parse_endpoint(spec)
        return CheckpointPlayer(str(spec["model"]), str(spec.get("dtype", dtype)))
    if spec.startswith(ENDPOINT_PREFIX):
        return parse_endpoint(spec)
    if spec.startswith(FILE_PREFIX):
        return FilePlayer(Path(spec.removeprefix(FILE_PREFIX)))
    return CheckpointPlayer(spec, dtype)


def player_kind(spec: Spec) -> PlayerKind:
    """What a checked specification names; a name on the Hub counts as a model, whatever it turns out to be."""
    if not isinstance(spec, str):
        return "endpoint" if spec.get("kind") == "endpoint" else player_kind(str(spec["model"]))
    if spec.startswith(ENDPOINT_PREFIX):
        return "endpoint"
    if spec.startswith(FILE_PREFIX):
        return "file"
    return "adapter" if (Path(spec).expanduser() / "adapter_config.json").is_file() else "model"


def player_digest(spec: Spec) -> str:
    """Digest of what answers, by its content, so that another model or file in the same place is told apart.

    Args:
        spec: A checked specification.

    Returns:
        Hexadecimal digits; a name for a model that is not on this machine; "" for an endpoint, which nothing tells.
    """
    kind = player_kind(spec)
    if kind == "endpoint":
        return ""
    if isinstance(spec, str) and kind == "file":
        return files_digest([Path(spec.removeprefix(FILE_PREFIX))])
    return model_digest(spec if isinstance(spec, str) else str(spec["model"]))


def _check_mapping(spec: Mapping[str, Any]) -> None:
    kind = spec.get("kind", "model")
    if kind == "endpoint":
        parse_endpoint(spec)
        return
    if kind != "model":
        raise ModelError(f"policy {dict(spec)}: {unknown_name('kind', str(kind), ('model', 'endpoint'))}")
    for key in spec:
        if key not in ("kind", *MODEL_KEYS):
            raise ModelError(f"policy {dict(spec)}: {unknown_name('key', str(key), ('kind', *MODEL_KEYS))}")
    if not isinstance(spec.get("model"), str):
        raise ModelError(f"policy {dict(spec)} names no model; expected {{model: ..., dtype: ...}}")
    check_player_spec(str(spec["model"]))
