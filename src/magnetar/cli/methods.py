"""`magnetar methods`: every method, what its last iterate reaches, and where it runs."""

import argparse

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods import METHODS, PUBLISHED_NAMES, Method

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Print the list, or the settings of one method."""
    parser = argparse.ArgumentParser(
        prog="magnetar methods",
        description="List every method: what its last iterate reaches, and whether language models can be trained "
        "with it. With a name: its settings, and where it comes from.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", help="a method", metavar="METHOD")
    name: str | None = parser.parse_args(argv).name
    if name is None:
        print(_table())
        return 0
    known = PUBLISHED_NAMES.get(name, name)
    if known not in METHODS:
        raise ConfigError(unknown_name("method", name, (*METHODS, *PUBLISHED_NAMES)))
    print(_one(METHODS[known]()))
    return 0


def _table() -> str:
    rows = [("method", "last iterate reaches", "language models", "source")]
    for make in METHODS.values():
        method = make()
        trains = "no" if method.games_only_because else "yes"
        rows.append((method.name, method.converges_to, trains, method.source))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * max(map(len, lines))
    names = ", ".join(f"{published} is {known}" for published, known in PUBLISHED_NAMES.items())
    return "\n".join([lines[0], rule, *lines[1:], "", f"Names of papers: {names}."])


def _one(method: Method) -> str:
    reason = method.games_only_because
    facts = {
        "last iterate reaches": method.converges_to,
        "opponent": method.opponent.role,
        "prediction": method.prediction,
        **{name: str(value) for name, value in method.settings.items()},
        "language models": f"no: {reason}" if reason else f"magnetar train --method {method.name}",
        "games": f"magnetar games run --method {method.name}",
        "source": method.source,
    }
    description = (METHODS[method.name].__doc__ or "").splitlines()[0]
    width = max(map(len, facts))
    return "\n".join([f"{method.name}: {description}", *(f"  {key:<{width}}  {value}" for key, value in facts.items())])
