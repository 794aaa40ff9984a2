"""Attacks by name, and the specs that name them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from magnetar.errors import ConfigError, unknown_name
from magnetar.evaluation.attacks.attack import Attack, Chained, NoAttack
from magnetar.evaluation.attacks.encodings import (
    Base64,
    Caesar,
    CharacterNoise,
    Leetspeak,
    PayloadSplitting,
    WordSplitting,
)
from magnetar.evaluation.attacks.framings import (
    Authority,
    Fiction,
    PastTense,
    Prefill,
    PrefixInjection,
    RefusalSuppression,
    RolePlay,
    SystemOverride,
    Template,
)
from magnetar.evaluation.attacks.many_shot import ManyShot
from magnetar.games.settings import read_settings, split_spec, split_specs

__all__ = ["ALL", "ATTACKS", "parse_attacks"]

ALL = "all"
"""Stands for every attack that needs no file, with its default settings."""

_KINDS: tuple[type[Attack], ...] = (
    NoAttack,
    RolePlay,
    PrefixInjection,
    Prefill,
    RefusalSuppression,
    SystemOverride,
    Fiction,
    PastTense,
    Authority,
    ManyShot,
    Base64,
    Caesar,
    Leetspeak,
    CharacterNoise,
    WordSplitting,
    PayloadSplitting,
    Template,
)

ATTACKS: Mapping[str, type[Attack]] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every attack by its name; "none" is the prompt as it is."""


def parse_attacks(specs: str | Sequence[str]) -> list[Attack]:
    """Attacks from their specs.

    Args:
        specs: ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``, separated by commas or given one by one; ``A+B`` applies B to
            what A made; "all" stands for every attack that needs no file.

    Returns:
        The attacks in that order, each once. "none" comes first if it was not named: attacks are compared with it.

    Raises:
        ConfigError: No attack, an unknown name or setting (with the nearest), or a value that cannot be.
    """
    words = [word for spec in ([specs] if isinstance(specs, str) else specs) for word in split_specs(spec)]
    if not words:
        raise ConfigError(f"no attack is named, expected some of {', '.join(ATTACKS)}, or {ALL!r}")
    found: dict[str, Attack] = {"none": NoAttack()}
    for word in words:
        attacks = _without_file() if word == ALL else [_attack(word)]
        found.update({attack.label: attack for attack in attacks})
    return list(found.values())


def _without_file() -> list[Attack]:
    return [kind() for name, kind in ATTACKS.items() if name not in ("none", "template")]


def _attack(spec: str) -> Attack:
    parts = [_one(part) for part in spec.split("+")]
    return parts[0] if len(parts) == 1 else Chained(tuple(parts))


def _one(spec: str) -> Attack:
    name, pairs = split_spec(spec, ConfigError)
    if name not in ATTACKS:
        raise ConfigError(unknown_name("attack", name, [*ATTACKS, ALL]))
    kind = ATTACKS[name]
    return kind(**read_settings("attack", name, kind, pairs, ConfigError))
