"""Small files that say what is finished: a reader sees all of one or none, also after the machine went down."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["newest_write", "write_json"]


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values at once, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a crash of the machine could leave the new name with nothing in it
    unfinished.replace(path)


def newest_write(folder: Path) -> float:
    """When a file below a folder was written last, in seconds since 1970; 0 if there is none."""
    return max((path.lstat().st_mtime for path in folder.rglob("*") if path.is_file()), default=0.0)
