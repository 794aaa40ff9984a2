"""Where a result comes from: the machine, and the commit of the code."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

import magnetar
from magnetar.pipeline.manifest import Manifest

__all__ = ["git_state", "hardware", "made_otherwise"]

COMMIT_SHOWN = 10  # letters


def git_state() -> dict[str, Any] | None:
    """Commit of the repository that Magnetar runs from, and whether its files were changed; None outside of one."""
    folder = Path(magnetar.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", str(folder))
    return {"commit": commit, "changed": bool(changed)}


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and accelerators."""
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
    }
    if torch.cuda.is_available():
        found["accelerators"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def made_otherwise(
    manifests: Iterable[Manifest], git: Mapping[str, Any] | None, versions: Mapping[str, str]
) -> list[str]:
    """What finished steps were made with that is another now, though it is no reason to make them again.

    Args:
        manifests: Of steps that are kept.
        git: State of the repository now.
        versions: Of Python and packages now.

    Returns:
        For each difference a clause, with the number of steps.
    """
    found: dict[str, int] = {}
    for manifest in manifests:
        before, now = (manifest.git or {}).get("commit"), (git or {}).get("commit")
        clauses = []
        if before and now and before != now:
            clauses.append(f"commit {before[:COMMIT_SHOWN]} (now {now[:COMMIT_SHOWN]})")
        clauses += [
            f"{name} {version} (now {versions.get(name, 'absent')})"
            for name, version in manifest.versions.items()
            if name != "magnetar" and versions.get(name) != version
        ]
        for clause in clauses:
            found[clause] = found.get(clause, 0) + 1
    return [f"{count} with {clause}" for clause, count in found.items()]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
