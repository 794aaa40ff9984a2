"""Stages that are commands of their own, with flags: settings become flags."""

import argparse
import contextlib
import io
from collections.abc import Callable, Mapping
from typing import Any

from magnetar.errors import ConfigError, MagnetarError

__all__ = ["checked_flags", "flags", "spread_labels"]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command line; null and false leave a flag out."""
    words: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
    return words


def checked_flags(parse: Callable[[list[str]], argparse.Namespace], words: list[str], stage: str) -> argparse.Namespace:
    """Let a command parse its flags.

    Raises:
        ConfigError: It cannot; with what it says.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(words)
    except MagnetarError as error:
        raise type(error)(f"{stage}: {error}") from error
    except SystemExit as error:
        told = said.getvalue().strip().splitlines()
        last = told[-1].split("error: ")[-1] if told else "these settings cannot be used"
        raise ConfigError(f"{stage}: {last}") from error


def spread_labels(policies: Mapping[str, list[Any]]) -> dict[str, Any]:
    """One label for each seed; labels name files there, so that spaces become hyphens."""
    found = {}
    for label, specs in policies.items():
        short = label.replace(" ", "-")
        for spec in specs:
            seed = str(spec).rsplit("/", 1)[-1]
            found[short if len(specs) == 1 else f"{short}-{seed}"] = spec
    return found
