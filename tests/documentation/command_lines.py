"""Command lines of the documentation, read by the real parsers and stopped before anything is done."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from documented_pages import ROOT

from magnetar.cli.main import main

__all__ = ["commands_in", "here_documents", "problem_with", "problem_with_mention"]

HERE = re.compile(r"cat > (?P<file>\S+) <<'?(?P<end>\w+)'?\n(?P<text>.*?\n)(?P=end)\n", re.DOTALL)
MAKE = re.compile(r"^([\w-]+):", re.MULTILINE)
# Commands of which more than the words is checked before they run: what is called when the checks are done.
# What a parser says of a command that only lacks something.
INCOMPLETE = re.compile(r"arguments are required|expected one argument|is missing; give|--config needs a file")
CHECKED = ("magnetar.cli.train.run", "magnetar.cli.preference.run", "magnetar.cli.demo.run")


class Parsed(BaseException):
    """The command line was understood."""


def here_documents(text: str) -> dict[str, str]:
    """Files that a shell block writes."""
    return {match["file"]: match["text"] for match in HERE.finditer(text)}


def commands_in(text: str) -> Iterator[list[str]]:
    """Words of each command of a shell block, without comments, assignments before it, and where its output goes."""
    for line in HERE.sub("", text).replace("\\\n", " ").splitlines():
        words = shlex.split(line.rstrip("& "), comments=True)
        while words and re.fullmatch(r"\w+=\S*.*", words[0]):
            words = words[1:]
        words = words[: next((place for place, word in enumerate(words) if word in ("|", ">", ">>")), None)]
        if words:
            yield words


def problem_with_mention(words: list[str]) -> str | None:
    """What is wrong with a command as a sentence mentions it; it may lack something, as `magnetar eval --swap` does."""
    problem = problem_with(words)
    if problem is None or not INCOMPLETE.search(problem):
        return problem
    mode = ["--config"] if "--config" in words else []  # for some commands another parser with other options
    known = _help([words[1]]) + _help([words[1], *mode]) + " --config "  # which is read before the parser
    unknown = [word for word in words[2:] if word.startswith("--") and f"{word.split('=')[0]} " not in known]
    return f"no option {', '.join(unknown)}" if unknown else None


def _help(words: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return re.sub(r"[,\]\s]", " ", said.getvalue())


def problem_with(words: list[str]) -> str | None:
    """What is wrong with a command; None if nothing is, or if it is no command of this repository."""
    if words[0] == "magnetar":
        return _magnetar(words[1:])
    if "magnetar.cli.main" in words:  # behind a launcher
        return _magnetar(words[words.index("magnetar.cli.main") + 1 :])
    if words[0] == "make":
        targets = MAKE.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
        return None if words[1] in targets else f"the Makefile has no target {words[1]!r}"
    if Path(words[0]).name in ("python", "python3") and len(words) > 1 and words[1].endswith(".py"):
        return _script(ROOT / words[1], words[2:])
    return None


def _magnetar(words: list[str]) -> str | None:
    if (
        words[0] == "train" and words[-1] != "--config"
    ):  # a machine without a GPU refuses bfloat16 that one with a GPU takes
        words = [*words, "--use_cpu", "true", "--bf16", "false"]
    said = io.StringIO()
    try:
        with _nothing_done(), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = main(words)
    except Parsed:
        return None
    except SystemExit as leaving:
        status = leaving.code
    return None if status == 0 and "--help" in words else f"exit status {status}: {said.getvalue().strip()}"


def _script(script: Path, words: list[str]) -> str | None:
    if not script.is_file():
        return f"{script.relative_to(ROOT)} does not exist"
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    text = script.read_text(encoding="utf-8")
    unknown = [flag for flag in flags if f'"{flag}"' not in text]
    return f"{script.name} has no option {', '.join(unknown)}" if unknown else None


@contextlib.contextmanager
def _nothing_done() -> Iterator[None]:
    """Let every parser read its words, and stop where the command would begin its work."""
    original, depth = argparse.ArgumentParser.parse_known_args, 0

    def parse(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            found = original(parser, *args, **kwargs)
        finally:
            depth -= 1
        # Parsers of dataclasses go on with checks of their values; what is left over is an error that the caller finds.
        if depth == 0 and not found[1] and type(parser).__name__ != "TrlParser":
            raise Parsed
        return found

    def stop(*args: Any, **kwargs: Any) -> None:
        raise Parsed

    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse))
        for name in CHECKED:
            module, _, function = name.rpartition(".")
            patches.enter_context(mock.patch.object(importlib.import_module(module), function, stop))
        yield
