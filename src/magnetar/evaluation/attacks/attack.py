"""What an attack is: a pure, seeded change of a prompt, with settings, a name and where it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from random import Random
from typing import ClassVar

from magnetar.data.splits import prompt_key
from magnetar.errors import ConfigError
from magnetar.evaluation.attacks.conversation import Attacked, Conversation, take_apart
from magnetar.games.settings import setting_text
from magnetar.types import Prompt

__all__ = ["Attack", "Chained", "NoAttack", "check_share", "fill"]

REQUEST = "{request}"


@dataclass(frozen=True)
class Attack(ABC):
    """A change of a prompt that a policy should not fall for.

    A subclass is a frozen dataclass whose fields are its settings, and implements `_change`.

    Attributes:
        name: What specs and tables call it.
        source: Where its family was published: arXiv id.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    def apply(self, prompt: Prompt, seed: int = 0) -> Attacked:
        """Attack with one prompt.

        Args:
            prompt: Text, or chat turns of which the last is the user's.
            seed: Of whatever the attack draws at random; together with the attack and the prompt it decides the result.

        Returns:
            The prompt as the attacker puts it; earlier turns are kept.

        Raises:
            DataError: The prompt has no request, or an empty one.
        """
        digest = blake2b(f"{seed}|{self.label}|{prompt_key(prompt)}".encode(), digest_size=8).digest()
        return self._change(take_apart(prompt), Random(int.from_bytes(digest, "big"))).put_together()

    @property
    def label(self) -> str:
        """The spec that names this attack: its name, and the settings that are not the default ones."""
        set_ = [
            f"{field.name}={setting_text(getattr(self, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ":".join([self.name, ",".join(set_)]) if set_ else self.name

    @property
    def begins_answers(self) -> bool:
        """Whether it puts words into the assistant's mouth, which only a policy that is run here lets it do."""
        return False

    @abstractmethod
    def _change(self, conversation: Conversation, random: Random) -> Conversation:
        """Change a conversation whose request is not empty."""


@dataclass(frozen=True)
class NoAttack(Attack):
    """The prompt as it is: what attacks are compared with."""

    name: ClassVar[str] = "none"
    source: ClassVar[str] = "–"

    def _change(self, conversation: Conversation, random: Random) -> Conversation:
        return conversation


@dataclass(frozen=True)
class Chained(Attack):
    """Several attacks, each on what the one before it made.

    Attributes:
        attacks: In the order in which they are applied, at least two.
    """

    attacks: Sequence[Attack]
    name: ClassVar[str] = "chained"
    source: ClassVar[str] = "arXiv:2307.02483 (combination attacks)"

    @property
    def label(self) -> str:
        """The parts' specs, joined."""
        return "+".join(attack.label for attack in self.attacks)

    @property
    def begins_answers(self) -> bool:
        """Whether one of them does."""
        return any(attack.begins_answers for attack in self.attacks)

    def _change(self, conversation: Conversation, random: Random) -> Conversation:
        for attack in self.attacks:
            conversation = attack._change(conversation, random)
        return conversation


def fill(template: str, request: str) -> str:
    """Put a request into a text at ``{request}``; braces in the request stay as they are."""
    return template.replace(REQUEST, request)


def check_share(attack: Attack, value: float) -> None:
    """Check the setting ``share`` of an attack that changes only a part.

    Raises:
        ConfigError: Not in (0, 1].
    """
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"attack {attack.name!r}: share is {value}, expected a number above 0 and at most 1")
