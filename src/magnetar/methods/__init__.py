"""Methods: what each one is, written once for matrix games and language models alike."""

from magnetar.methods.magnets import EachRound, Ema, EveryNUpdates, FixedMagnet, MagnetClock, MagnetSchedule
from magnetar.methods.method import Method
from magnetar.methods.objectives import MagneticPolicyGradient, Objective, RewardTransformedPolicyGradient
from magnetar.methods.opponents import Opponent, group_opponent_weights
from magnetar.methods.zoo import METHODS, build_method, mirror_descent, mmd, mpo, mpo_rt

__all__ = [
    "METHODS",
    "EachRound",
    "Ema",
    "EveryNUpdates",
    "FixedMagnet",
    "MagnetClock",
    "MagnetSchedule",
    "MagneticPolicyGradient",
    "Method",
    "Objective",
    "Opponent",
    "RewardTransformedPolicyGradient",
    "build_method",
    "group_opponent_weights",
    "mirror_descent",
    "mmd",
    "mpo",
    "mpo_rt",
]
