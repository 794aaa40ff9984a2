"""A method of Nash learning from human feedback: an opponent, an objective, a magnet schedule."""

from dataclasses import dataclass

from magnetar.methods.magnets import MagnetSchedule
from magnetar.methods.objectives import Objective
from magnetar.methods.opponents import Opponent

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
    """Three choices and a name; the game runner and the language-model trainer both read nothing else.

    Attributes:
        name: As in tables and on the command line: "mpo".
        opponent: Who plays against the responses.
        objective: What the policy minimises on a batch; knows its own exact form for matrix games.
        magnet: When and how far the magnet moves.
        converges_to: What the last iterate reaches: "original equilibrium", "regularised equilibrium", or
            "average only" (the last iterate circles).
        source: arXiv id and equation or algorithm number.
    """

    name: str
    opponent: Opponent
    objective: Objective
    magnet: MagnetSchedule
    converges_to: str
    source: str
