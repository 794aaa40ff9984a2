"""Safety under attack: adversarial changes of prompts, and what they do to a policy's answers."""

from magnetar.evaluation.attacks.attack import Attack, Chained, NoAttack
from magnetar.evaluation.attacks.conversation import Attacked
from magnetar.evaluation.attacks.registry import ATTACKS, parse_attacks

__all__ = ["ATTACKS", "Attack", "Attacked", "Chained", "NoAttack", "parse_attacks"]
