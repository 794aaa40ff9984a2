"""Files that wrappers write."""

import os
from pathlib import Path

from magnetar.errors import JudgeError

__all__ = ["checked_file"]


def checked_file(what: str, path: str | Path) -> Path:
    """Check what can be known of a file that is to be read and written, without opening or making anything.

    Args:
        what: What the file is, for the message: "cache".
        path: The file; it and its folders need not exist.

    Returns:
        The file's absolute path.

    Raises:
        JudgeError: If it is not a path, is a folder or lies in a file, or cannot be written.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise JudgeError(f"{what} = {path!r}, expected the path of a file")
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        raise JudgeError(f"the {what} {str(file)!r} is a folder; give a file in it")
    place = file if file.exists() else file.parent
    while not place.exists():
        place = place.parent
    if place != file and not place.is_dir():
        raise JudgeError(f"the {what} {str(file)!r} cannot lie in {str(place)!r}, which is a file; name another path")
    for at in {place, file.parent if file.exists() else place}:
        if not os.access(at, os.W_OK):
            raise JudgeError(f"the {what} {str(file)!r} cannot be written: {str(at)!r} is read-only; name another file")
    return file
