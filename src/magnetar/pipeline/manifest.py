"""The manifest of a stage: what it was made from, what it made, where and how long; written last and at once."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from magnetar.errors import CheckpointError
from magnetar.pipeline.digests import FileDigests, combined, digest_of, weighty
from magnetar.pipeline.files import newest_write, write_json

__all__ = [
    "FAILURE_FILE",
    "MANIFEST_FILE",
    "STARTED_FILE",
    "Manifest",
    "OutputFile",
    "damage",
    "outputs_of",
    "product_digest",
    "read_manifest",
    "read_started",
    "write_manifest",
    "write_started",
]

MANIFEST_FILE = "manifest.json"
STARTED_FILE = "started.json"
FAILURE_FILE = "failure.txt"
NO_OUTPUT = (MANIFEST_FILE, STARTED_FILE, FAILURE_FILE)


@dataclass(frozen=True)
class OutputFile:
    """A file that a stage made.

    Attributes:
        bytes: Its size.
        modified_ns: When it was written last, nanoseconds since 1970; a copy may have another time.
        sha256: Of its bytes.
    """

    bytes: int
    modified_ns: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a finished step says of itself.

    Attributes:
        step: Its name, such as "preference/cost".
        inputs: What it was made from: ``settings``, ``data`` (name → digest or revision), ``uses`` (reference → digest
            of that product) and ``code``.
        outputs: Path below the step's folder → what was written there.
        inputs_digest: Digest of ``inputs``.
        outputs_digest: Digest of the outputs that others use.
        seeds: Seeds by name.
        results: Figures worth a line in an overview, such as a judge's accuracy.
        versions: Of Python and packages.
        git: ``commit`` and ``changed`` (whether the working tree had changes) where Magnetar runs from a repository.
        hardware: Processor, cores, memory, accelerators.
        started: When, ISO 8601 with zone.
        finished: When.
        hours: Of work, over all attempts.
        command: Arguments of the command that finished it.
    """

    step: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, OutputFile]
    inputs_digest: str
    outputs_digest: str
    seeds: Mapping[str, int] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None
    hardware: Mapping[str, Any] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    hours: float = 0.0
    command: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as the file has them."""
        return {"format": 1, **asdict(self), "command": list(self.command)}


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write a manifest, so that a reader sees all of it or none."""
    path = folder / MANIFEST_FILE
    write_json(path, manifest.to_dict())
    (folder / STARTED_FILE).unlink(missing_ok=True)
    return path


def read_manifest(folder: Path) -> Manifest | None:
    """Read a step's manifest.

    Args:
        folder: Of the step.

    Returns:
        The manifest; None where the step is not finished.

    Raises:
        CheckpointError: It is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found.pop("format")
        outputs = {name: OutputFile(**entry) for name, entry in found.pop("outputs").items()}
        return Manifest(outputs=outputs, command=tuple(found.pop("command")), **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}), so nobody knows what the stage was made from; it is made again, and "
            "what is there is put aside"
        ) from error


def write_started(folder: Path, inputs: Mapping[str, Any], hours: float, since: float | None = None) -> None:
    """Say in a step's folder from what it is being made.

    Args:
        folder: Of the step; made if it is not there.
        inputs: What it is made from.
        hours: That earlier attempts took.
        since: When the attempt under way began, in seconds since 1970; None between attempts.
    """
    write_json(folder / STARTED_FILE, {"inputs": dict(inputs), "hours": hours, "since": since})


def read_started(folder: Path) -> tuple[dict[str, Any], float] | None:
    """What an unfinished step was being made from, and the hours of its attempts; None where nothing was begun.

    An attempt that was killed could not say when: it counts until the last file that it wrote.
    """
    try:
        found = json.loads((folder / STARTED_FILE).read_text(encoding="utf-8"))
        hours, since = float(found["hours"]), found.get("since")
        if since is not None:
            hours += max(0.0, newest_write(folder) - float(since)) / 3600
        return dict(found["inputs"]), hours
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def outputs_of(folder: Path, digests: FileDigests) -> dict[str, OutputFile]:
    """Everything that is in a step's folder, but for what only resuming or answering again needs."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or relative.name in NO_OUTPUT or _passing(relative):
            continue
        stat = path.stat()
        found[relative.as_posix()] = OutputFile(stat.st_size, stat.st_mtime_ns, digests.of(path))
    return found


def product_digest(outputs: Mapping[str, OutputFile], product: str = "") -> str:
    """Digest of the files of a product that decide what those that use it compute.

    Args:
        outputs: Of a manifest.
        product: Folder or file below the step's; everything by default.
    """
    chosen = [
        (name, entry.sha256)
        for name, entry in outputs.items()
        if weighty(name) and (not product or name == product or name.startswith(f"{product}/"))
    ]
    return combined(chosen)


def damage(folder: Path, manifest: Manifest, digests: FileDigests, *, thorough: bool = False) -> str | None:
    """What has happened to a finished step's products since.

    Args:
        folder: Of the step.
        manifest: Its manifest.
        digests: Of files.
        thorough: Read every file; otherwise those whose size or time of modification is another.

    Returns:
        In words, the first file that was changed or removed; None if all are as they were.
    """
    for name, entry in manifest.outputs.items():
        if not weighty(name):
            continue
        path = folder / name
        if not path.is_file():
            return f"{name} was removed"
        stat = path.stat()
        same = (stat.st_size, stat.st_mtime_ns) == (entry.bytes, entry.modified_ns)
        if (thorough or not same) and (FileDigests() if thorough else digests).of(path) != entry.sha256:
            return f"{name} was changed after it was made"
    return None


def inputs_digest(inputs: Mapping[str, Any]) -> str:
    """Digest of what a step is made from."""
    return digest_of(inputs)


def _passing(relative: Path) -> bool:
    """Checkpoints, locks, unfinished files, kept answers."""
    return any(
        part.startswith("checkpoint-") or part in ("answers", "judge_answers", "runs") for part in relative.parts
    ) or relative.suffix in (".lock", ".part", ".sqlite", ".sqlite-wal", ".sqlite-shm")
