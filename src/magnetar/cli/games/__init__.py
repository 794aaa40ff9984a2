"""``magnetar games``: methods on exact games, one thin subcommand per module, each imported only when it is called."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from magnetar.errors import MagnetarError

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "list": ("magnetar.cli.games.listing", "list the methods and the ready-made games"),
    "run": ("magnetar.cli.games.run", "run a method on a game"),
    "compare": ("magnetar.cli.games.compare", "run many methods on many games: table, plots and one page"),
    # A language model needs transformers, which must not load for a matrix game.
    "llm": ("magnetar.cli.games_llm", "run methods on a language model whose responses can all be listed"),
    "poker": ("magnetar.cli.games_poker", "run methods on poker in extensive form (needs magnetar[poker])"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: Words after ``magnetar games``.

    Returns:
        Exit code: 0; 1 if a part of a comparison failed; 2 for input that cannot be used, whose message goes to stderr.
    """
    if not argv:
        _parser().print_help(sys.stderr)
        raise SystemExit(2)
    if argv[0] not in COMMANDS:
        _parser().parse_args(argv)  # help, or an error that lists the commands
        return 0
    try:
        return import_module(COMMANDS[argv[0]][0]).main(list(argv[1:]))
    except MagnetarError as error:
        print(f"magnetar games: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="magnetar games", description="Run methods on exact preference games.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser
