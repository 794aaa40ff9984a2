"""Answers kept beside a command's output, so that a run that was stopped goes on where it was."""

import sys
from pathlib import Path

from magnetar.errors import ConfigError, JudgeError
from magnetar.judges import Judge, JudgeSpec, build_judge

__all__ = ["NO_CACHE", "build_kept", "cache_path"]

NO_CACHE = "none"


def cache_path(given: str | None, outputs: tuple[Path | None, ...], source: str | None = None) -> Path | None:
    """Where answers are kept: as given, or beside the first output; None for nowhere.

    Args:
        given: What the user said; "none" for no file.
        outputs: The files that the command is to write, None for those not asked for.
        source: What the command reads; None for nothing.

    Returns:
        The file.

    Raises:
        ConfigError: The cache is one of the outputs, or what is read.
    """
    if given is not None:
        if given == NO_CACHE:
            return None
        path = Path(given)
        if any(output is not None and output.absolute() == path.absolute() for output in outputs):
            raise ConfigError(f"cache {given!r} is also an output of this command; name another file")
        if source is not None and Path(source).absolute() == path.absolute():
            # It would be set aside as a damaged cache.
            raise ConfigError(f"cache {given!r} is also the data of this command; name another file")
        return path
    beside = next((output for output in outputs if output is not None), None)
    return None if beside is None else beside.with_name(f"{beside.name}.cache.sqlite")


def build_kept(spec: JudgeSpec, path: Path | None) -> tuple[Judge, Path | None]:
    """Build a judge whose answers are kept, unless it cannot tell what decides them or has a cache of its own.

    Args:
        spec: The judge.
        path: Where to keep answers; None for nowhere.

    Returns:
        The judge, and where its answers are kept.
    """
    judge = build_judge(spec)
    if spec.around.get("cache") is not None:
        return judge, Path(spec.around["cache"])
    if path is None:
        return judge, None
    try:
        judge.identity()
    except JudgeError as error:
        print(f"answers are not kept: {error}", file=sys.stderr)
        return judge, None
    return build_judge(judge, cache=str(path)), path
