"""Games in extensive form (poker) from OpenSpiel: the methods of this library at every information state.

Examples:
    >>> from magnetar import methods
    >>> from magnetar.games import extensive
    >>> kuhn = extensive.load_game("kuhn_poker")
    >>> method = methods.mpo(step_size=1.0, magnet_strength=0.1, magnet_every=30)
    >>> trace = extensive.run_exact(method, kuhn, updates=1000)
    >>> bool(trace.exploitability[-1] < 1e-6)
    True
"""

from magnetar.games.extensive.cfr import run_cfr
from magnetar.games.extensive.exact import ExtensiveTrace, behavioural_form, run_exact
from magnetar.games.extensive.openspiel import Exploitability, load_game
from magnetar.games.extensive.sampled import SelfPlaySettings, run_sampled, sampled_form
from magnetar.games.extensive.tree import ExtensiveGame
from magnetar.games.extensive.values import SequenceForm

__all__ = [
    "Exploitability",
    "ExtensiveGame",
    "ExtensiveTrace",
    "SelfPlaySettings",
    "SequenceForm",
    "behavioural_form",
    "load_game",
    "run_cfr",
    "run_exact",
    "run_sampled",
    "sampled_form",
]
