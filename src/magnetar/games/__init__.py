"""Exact preference games: all responses enumerated, so that every claim about a method can be checked.

>>> from magnetar import games, methods
>>> trace = games.run(methods.mpo(step_size=1.2, magnet_strength=0.3), games.biased_rps(), updates=1000)
>>> bool(trace.duality_gap[-1] < 1e-6)
True
"""

from magnetar.games.builders import BUILDERS, biased_rps, by_name, cyclic_game, noisy_bradley_terry, random_game, rps
from magnetar.games.feedback import SampledFeedback
from magnetar.games.files import load, load_policy
from magnetar.games.game import PreferenceGame
from magnetar.games.runner import run, run_batch
from magnetar.games.trace import Trace

__all__ = [
    "BUILDERS",
    "PreferenceGame",
    "SampledFeedback",
    "Trace",
    "biased_rps",
    "by_name",
    "cyclic_game",
    "load",
    "load_policy",
    "noisy_bradley_terry",
    "random_game",
    "rps",
    "run",
    "run_batch",
]
