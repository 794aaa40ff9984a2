"""Neural policies on matrix games: the losses of the language-model side, where the truth is known exactly.

Examples:
    >>> from magnetar import games, methods
    >>> from magnetar.games import neural
    >>> trace = neural.run_neural(methods.mpo(), games.biased_rps(), updates=5, policy=neural.MLPPolicy(seed=1))
    >>> len(trace.duality_gap)
    6
"""

from magnetar.games.neural.groups import (
    EnumeratedFeedback,
    GroupFeedback,
    GroupSampling,
    JudgedGroup,
    Judgement,
    OpponentShare,
)
from magnetar.games.neural.losses import OptimizerSettings, group_loss
from magnetar.games.neural.policies import MLPPolicy, TabularPolicy
from magnetar.games.neural.run import NeuralTrace, run_neural

__all__ = [
    "EnumeratedFeedback",
    "GroupFeedback",
    "GroupSampling",
    "JudgedGroup",
    "Judgement",
    "MLPPolicy",
    "NeuralTrace",
    "OpponentShare",
    "OptimizerSettings",
    "TabularPolicy",
    "group_loss",
    "run_neural",
]
