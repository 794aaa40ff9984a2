"""The key ``attacks`` of a suite: which attacks, and what the judge is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from magnetar.errors import ConfigError, checked_integer, unknown_name
from magnetar.evaluation.attacks import Attack, parse_attacks
from magnetar.evaluation.attacks.measure import AttackSettings, check_attacks

__all__ = ["AttacksConfig", "read_attacks"]


@dataclass(frozen=True)
class AttacksConfig:
    """Safety under attack.

    Attributes:
        attacks: Specs, as `magnetar.evaluation.attacks.parse_attacks` takes them.
        reads: What the judge sees: "original", the request in plain words, "attacked", or both.
        seed: Of what attacks draw at random.
    """

    attacks: tuple[str, ...]
    reads: tuple[str, ...] = ("original",)
    seed: int = 0

    def parsed(self) -> list[Attack]:
        """The attacks, "none" first."""
        return parse_attacks(self.attacks)


def read_attacks(given: Any, kinds: Mapping[str, Sequence[str]], costs_asked: bool) -> AttacksConfig | None:
    """Read the key.

    Args:
        given: Specs as one text or a list, or a mapping with ``attacks`` and the other settings; None for no attacks.
        kinds: Policy → what its specs name: "model", "adapter", "endpoint" or "file".
        costs_asked: Whether a judge is asked for costs.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: An attack or a setting that cannot be, or no judge to say what is unsafe.
    """
    if given is None or given is False:
        return None
    values = dict(given) if isinstance(given, Mapping) else {"attacks": given}
    known = [f.name for f in fields(AttacksConfig)]
    for key in values:
        if key not in known:
            raise ConfigError(f"attacks: {unknown_name('key', str(key), known)}")
    config = AttacksConfig(
        attacks=_words("attacks", values.get("attacks")),
        reads=_words("attacks: reads", values.get("reads", "original")),
        seed=checked_integer("attacks: seed", values.get("seed", 0), 0),
    )
    AttackSettings(reads=config.reads)
    if not costs_asked:
        raise ConfigError(
            "attacks: no judge is asked for costs, which say what is unsafe; name a cost model under judges, or ask "
            "another judge that scores: {judge: SPEC, ask: costs}"
        )
    attacks = config.parsed()
    check_attacks(
        attacks, {label: kind for label, of_label in kinds.items() for kind in of_label if kind == "endpoint"}
    )
    return config


def _words(name: str, given: Any) -> tuple[str, ...]:
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not words or not all(isinstance(word, str) and word for word in words):
        raise ConfigError(f"{name} is {given!r}, expected text or a list of texts")
    return tuple(words)
