"""Exact preference games: all responses enumerated, so that every claim about a method can be checked.

Examples:
    >>> from magnetar import games, methods
    >>> trace = games.run(methods.mpo(step_size=1.2, magnet_strength=0.3), games.biased_rps(), updates=1000)
    >>> bool(trace.duality_gap[-1] < 1e-6)
    True
"""

from magnetar.games.builders.empirical import EmpiricalEstimate, empirical_estimate, empirical_game
from magnetar.games.builders.files import load, load_policy
from magnetar.games.builders.registry import (
    BUILDERS,
    READERS,
    annotator_game,
    biased_rps,
    bradley_terry,
    by_name,
    condorcet_cycle,
    cyclic_block_game,
    cyclic_game,
    describe,
    disc_game,
    egpo_game,
    egpo_reference,
    game_of_points,
    noisy_bradley_terry,
    random_annotators,
    random_game,
    ranking_game,
    rps,
    tournament,
)
from magnetar.games.builders.suite import GameSpec, suite
from magnetar.games.game import PreferenceGame
from magnetar.games.neural import GroupSampling, MLPPolicy, OptimizerSettings, TabularPolicy, run_neural
from magnetar.games.play.feedback import SampledFeedback
from magnetar.games.play.runner import run, run_batch
from magnetar.games.play.trace import Trace

__all__ = [
    "BUILDERS",
    "READERS",
    "EmpiricalEstimate",
    "GameSpec",
    "GroupSampling",
    "MLPPolicy",
    "OptimizerSettings",
    "PreferenceGame",
    "SampledFeedback",
    "TabularPolicy",
    "Trace",
    "annotator_game",
    "biased_rps",
    "bradley_terry",
    "by_name",
    "condorcet_cycle",
    "cyclic_block_game",
    "cyclic_game",
    "describe",
    "disc_game",
    "egpo_game",
    "egpo_reference",
    "empirical_estimate",
    "empirical_game",
    "game_of_points",
    "load",
    "load_policy",
    "noisy_bradley_terry",
    "random_annotators",
    "random_game",
    "ranking_game",
    "rps",
    "run",
    "run_batch",
    "run_neural",
    "suite",
    "tournament",
]
