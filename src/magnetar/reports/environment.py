"""What all pages share: templates, style, scripts, filters, contents, and a policy that forbids the network."""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.svg import compact

__all__ = ["Contents", "page_environment", "prompt_turns"]

FOLD_FROM, FOLD_AT = 1600, 1000  # characters: longer texts are folded, after about so many
_SCRIPTS, _STYLES = ("report.js", "games.js"), ("style.css", "games.css")
_INTERVAL = re.compile(r"^(\S+(?: points)?) (\([^()]*\))$")


class Contents:
    """The headings of a page, in the order in which its templates announce them."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []
        self._regions: dict[str, int] = {}

    def add(self, heading: str) -> Markup:
        """Announce a section.

        Args:
            heading: Its heading.

        Returns:
            The attribute ``id`` for its element, with a leading blank.
        """
        place = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "section"
        taken = {name for name, _ in self.entries}
        unique, number = place, 2
        while unique in taken:
            unique, number = f"{place}-{number}", number + 1
        self.entries.append((unique, heading))
        return Markup(f' id="{unique}"')

    def region(self, name: str) -> str:
        """Name a part that can be scrolled, so that no two have one name.

        Args:
            name: What is in it.

        Returns:
            The name, with a number from the second on.
        """
        self._regions[name] = self._regions.get(name, 0) + 1
        return name if self._regions[name] == 1 else f"{name} ({self._regions[name]})"


def page_environment() -> Environment:
    """Templates with the style sheet, the scripts and the filters that every page uses; for one page each.

    Returns:
        A new environment; undefined names in a template are errors.
    """
    environment = Environment(
        loader=PackageLoader("magnetar.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent,
        compact=compact,
        prompt_turns=prompt_turns,
        last_value=_last,
        position=_position,
        folded=_folded,
        with_small_interval=_with_small_interval,
    )
    hashes = []
    # The style sheets and the scripts are ours, and must not be escaped.
    for name in (*_STYLES, *_SCRIPTS):
        source, _, _ = environment.loader.get_source(environment, name)  # type: ignore[union-attr]
        # A template drops one newline at its end; the hash is of what the page holds.
        environment.globals[name.replace(".", "_")] = Markup(source)
        if name in _SCRIPTS:
            hashes.append(f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'")
    # What a model or a data set says is escaped. Were it not, it could still run no script and load nothing.
    environment.globals["content_policy"] = Markup(
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment.globals["contents"] = Contents()
    return environment


def prompt_turns(prompt: Any) -> list[tuple[str, str]]:
    """A prompt as (role, text) pairs; a plain text has the role ''."""
    if isinstance(prompt, list):
        return [(str(turn.get("role", "")), str(turn.get("content", ""))) for turn in prompt]
    return [("", str(prompt))]


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100.0 * value:.{digits}f}%"


def _position(estimate: Estimate) -> dict[str, float]:
    """Where a bar from one half to the win rate lies, and the interval's ends, in percent of the track."""
    low, high = sorted((0.5, estimate.value))
    return {"left": 100.0 * low, "width": 100.0 * (high - low)}


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _folded(text: str) -> tuple[str, str]:
    """The beginning of a text, and the rest of one that is very long: cut where a word ends, if one does."""
    if len(text) <= FOLD_FROM:
        return text, ""
    blank = max(text.rfind(" ", FOLD_AT - 200, FOLD_AT), text.rfind("\n", FOLD_AT - 200, FOLD_AT))
    at = blank + 1 if blank > 0 else FOLD_AT
    return text[:at], text[at:]


def _with_small_interval(cell: str) -> Markup | str:
    """A figure with its interval in small print on a line of its own."""
    found = _INTERVAL.match(cell)
    return cell if found is None else Markup(f"{escape(found[1])} <small>{escape(found[2])}</small>")
