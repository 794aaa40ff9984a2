"""``magnetar games list``: which methods and games there are, with their settings."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from magnetar import methods
from magnetar.games.builders.registry import describe
from magnetar.games.builders.suite import SUITES, suite
from magnetar.games.comparison.choices import game_settings
from magnetar.games.settings import setting_text

__all__ = ["main"]

INDENT = " " * 23


def main(argv: Sequence[str]) -> int:
    """Print the lists.

    Args:
        argv: Words after ``magnetar games list``.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="magnetar games list", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    listed = _listed()
    print(json.dumps(listed, ensure_ascii=False) if parser.parse_args(argv).json else _text(listed))
    return 0


def _listed() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {"methods": [], "games": [], "suites": []}
    for name, make in methods.METHODS.items():
        method = make()
        found["methods"].append(
            {
                "name": name,
                "summary": (make.__doc__ or "").strip().splitlines()[0].rstrip("."),
                "converges_to": method.converges_to,
                "settings": game_settings(name),
                "source": method.source,
            }
        )
    for row in describe():
        found["games"].append({"name": row.name, "summary": row.summary, "settings": dict(row.settings)})
    for name in SUITES:
        sizes = [game.num_actions for game in suite(name)]
        found["suites"].append({"name": name, "games": len(sizes), "actions": [min(sizes), max(sizes)]})
    return found


def _text(listed: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["methods (settings: --set NAME=VALUE, or NAME:SETTING=VALUE,… in comparisons)"]
    for row in listed["methods"]:
        settings = " ".join(f"{key}={setting_text(value)}" for key, value in row["settings"].items())
        lines += _entry(row["name"], row["summary"], f"→ {row['converges_to']}; {settings}", row["source"])
    lines.append("\ngames (settings: NAME:SETTING=VALUE,…)")
    for row in listed["games"]:
        lines += _entry(row["name"], row["summary"], " ".join(f"{k}={v}" for k, v in row["settings"].items()))
    lines.append("\nsuites of games, for comparisons")
    for row in listed["suites"]:
        low, high = row["actions"]
        lines += _entry(row["name"], f"{row['games']} games of {low:,} to {high:,} actions")
    return "\n".join(lines)


def _entry(name: str, *parts: str) -> list[str]:
    texts = [line for part in parts if part for line in textwrap.wrap(part, 96)]
    return [f"  {name:<20} {texts[0]}", *(INDENT + text for text in texts[1:])]
