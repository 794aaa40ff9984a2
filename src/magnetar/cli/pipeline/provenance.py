"""Where a result comes from: the machine, and the commit of the code."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import magnetar

__all__ = ["git_state", "hardware"]


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
