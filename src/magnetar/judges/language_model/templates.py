"""What a language model is asked: a system text, a question with three fields, and the choices it may answer with."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from magnetar.errors import JudgeError, unknown_name

__all__ = ["TEMPLATE_NAMES", "Choices", "JudgeTemplate", "load_template"]

TEMPLATE_NAMES = ("helpfulness", "harmlessness", "both")
"""The templates that come with the library."""
FIELDS = ("first", "prompt", "second")


@dataclass(frozen=True)
class Choices:
    """The words that a verdict consists of.

    Attributes:
        first: Says that the first response is better.
        second: Says that the second response is better.
        tie: Says that neither is; None where the model has to decide.
    """

    first: str
    second: str
    tie: str | None = None

    def __post_init__(self) -> None:
        """Check that a verdict can be told from any other."""
        words = self.words
        for word in words:
            if not isinstance(word, str) or not word or word != word.strip():
                raise JudgeError(f"choice {word!r}, expected text without blanks around it; put it in quotes in YAML")
        for at, word in enumerate(words):
            # A token that begins two choices would decide for neither.
            clash = [other for place, other in enumerate(words) if place != at and other.startswith(word)]
            if clash:
                raise JudgeError(
                    f"choice {word!r} is how {clash[0]!r} begins, so that a first token cannot tell them apart; "
                    "use words that begin differently, such as A and B"
                )

    @property
    def words(self) -> tuple[str, ...]:
        """The words in the order first, second and, where there is one, tie."""
        return (self.first, self.second) if self.tie is None else (self.first, self.second, self.tie)


@dataclass(frozen=True)
class JudgeTemplate:
    """How a language model is asked which of two responses is better.

    Attributes:
        name: What it is called in messages.
        system: System text, taken as it is; empty for none.
        user: The question, a format string with the fields `{prompt}`, `{first}` and `{second}`, each exactly once;
            other braces are doubled.
        choices: The words of a verdict.
        verdict_marker: For models that reason before they decide: the verdict is what follows this marker on the one
            line that begins with it, and is read from the text only. None: the reply is the verdict.
        max_new_tokens: Longest reply; the reply of a model that reasons needs hundreds.
    """

    name: str
    system: str
    user: str
    choices: Choices
    verdict_marker: str | None = None
    max_new_tokens: int = 8

    def __post_init__(self) -> None:
        """Check the fields, so that a template is known to work before anything is asked."""
        for field in ("system", "user"):
            if not isinstance(getattr(self, field), str):
                raise JudgeError(f"template {self.name!r}: {field} = {getattr(self, field)!r}, expected text")
        try:
            parsed = [part for part in Formatter().parse(self.user) if part[1] is not None]
        except ValueError as error:
            raise JudgeError(
                f"template {self.name!r}: user is not a format string: {error}; write {{{{ and }}}} for braces"
            ) from error
        found = sorted(part[1] or "" for part in parsed)
        if found != sorted(FIELDS) or any(part[2] or part[3] for part in parsed):
            raise JudgeError(
                f"template {self.name!r}: user has the fields {found}, expected {sorted(FIELDS)}, each exactly once "
                "and bare; write {{ and }} for other braces"
            )
        marker = self.verdict_marker
        if marker is not None and (not isinstance(marker, str) or not marker.strip() or "\n" in marker):
            raise JudgeError(f"template {self.name!r}: verdict_marker = {marker!r}, expected a word such as 'Verdict:'")
        longest = self.max_new_tokens
        if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
            raise JudgeError(f"template {self.name!r}: max_new_tokens = {longest!r}, expected an integer of at least 1")

    def identity(self) -> dict[str, Any]:
        """All that decides an answer, the name left out: the same text under another name asks the same."""
        return {
            "system": self.system,
            "user": self.user,
            "choices": list(self.choices.words),
            "verdict_marker": self.verdict_marker,
            "max_new_tokens": self.max_new_tokens,
        }


def load_template(source: str | Path | JudgeTemplate) -> JudgeTemplate:
    """Load a template by its name or from a user's file.

    The file is YAML: a mapping with `user` and `choices` (a mapping with `first`, `second` and, if wanted, `tie`), and,
    if wanted, `system`, `verdict_marker` and `max_new_tokens`.

    Args:
        source: One of `TEMPLATE_NAMES`, or a file ending in .yaml or .yml; a template is returned as it is.

    Returns:
        The checked template.

    Raises:
        JudgeError: If there is no such template or file, or what stands in it cannot be asked.
    """
    if isinstance(source, JudgeTemplate):
        return source
    if not isinstance(source, str | Path):
        raise JudgeError(f"template = {source!r}, expected the name of one or a .yaml file")
    if source in TEMPLATE_NAMES:
        text = files("magnetar.judges.language_model").joinpath("templates", f"{source}.yaml").read_text("utf-8")
        return _from_text(text, str(source))
    file = Path(source).expanduser()
    if file.suffix not in (".yaml", ".yml"):
        raise JudgeError(f"{unknown_name('template', str(source), TEMPLATE_NAMES)}; or give a .yaml file of your own")
    try:
        return _from_text(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError as error:
        known = ", ".join(TEMPLATE_NAMES)
        raise JudgeError(f"there is no template file {str(file)!r}; give a file, or one of: {known}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"template file {str(file)!r} cannot be read: {error}") from error


def _from_text(text: str, name: str) -> JudgeTemplate:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JudgeError(f"template {name!r} is not YAML: {error}".replace("\n", " ")) from error
    known = ("system", "user", "choices", "verdict_marker", "max_new_tokens")
    given = _mapping(content, name, "the file", known, ("user", "choices"))
    words = _mapping(given["choices"], name, "choices", ("first", "second", "tie"), ("first", "second"))
    return JudgeTemplate(
        name=name,
        system=given.get("system") or "",
        user=given["user"],
        choices=Choices(**words),
        verdict_marker=given.get("verdict_marker"),
        max_new_tokens=given.get("max_new_tokens", JudgeTemplate.max_new_tokens),
    )


def _mapping(value: object, name: str, what: str, known: tuple[str, ...], needed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise JudgeError(f"template {name!r}: {what} holds {value!r}, expected a mapping with {', '.join(known)}")
    for key in value:
        if key not in known:
            raise JudgeError(f"template {name!r}: {unknown_name('key', str(key), known)}")
    for key in needed:
        if key not in value:
            raise JudgeError(f"template {name!r}: {what} lacks {key!r}, expected {', '.join(needed)}")
    return value
