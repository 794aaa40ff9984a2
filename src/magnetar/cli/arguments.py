"""Types of options and checks of paths that several commands share."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from magnetar.errors import ConfigError, unknown_name

__all__ = ["at_least", "check_output", "options_of", "parse_known", "share", "write_json"]


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number of at least ``low``."""

    def whole_number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value}, expected at least {low}")
        return value

    return whole_number


def share(text: str) -> float:
    """An argparse type: a number strictly between 0 and 1."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{value}, expected a number between 0 and 1")
    return value


def options_of(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """A function that adds an option under its name with underscores and with hyphens."""

    def option(name: str, help: str, **settings: Any) -> None:
        names = [f"--{name}", f"--{name.replace('_', '-')}"]
        parser.add_argument(*dict.fromkeys(names), help=help, **settings)

    return option


def parse_known(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse, and name the nearest option where one is unknown.

    Raises:
        ConfigError: An option that does not exist.
    """
    args, rest = parser.parse_known_args(argv)
    if rest:
        name = rest[0].lstrip("-").split("=", 1)[0].replace("-", "_")
        raise ConfigError(unknown_name("option", name, vars(args)))
    return args


def check_output(path: Path) -> None:
    """Make the folder and try to write there, before minutes are spent on what should go there.

    Raises:
        ConfigError: A folder of that name, or one that cannot be written to.
    """
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder, expected a file name to write to")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write to {str(path)!r} ({error}); choose another place") from error


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write figures.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        # Half of a surrogate pair, which a response may hold, becomes JSON's own escape for it.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"cannot write the figures to {str(path)!r} ({error}); they are printed above") from error
