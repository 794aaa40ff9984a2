"""A method of Nash learning from human feedback: an opponent, an objective, a magnet schedule."""

from dataclasses import dataclass
from typing import Any, Literal

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import MagnetSchedule
from magnetar.methods.objectives import Objective, PayoffObjective, SampledLoss
from magnetar.methods.opponents import Opponent

__all__ = ["CONVERGES_TO", "SAMPLE_FROM", "ConvergesTo", "Method", "Prediction", "SampleFrom"]

Prediction = Literal["none", "optimistic", "extragradient"]
PREDICTIONS: tuple[Prediction, ...] = ("none", "optimistic", "extragradient")

SampleFrom = Literal["current", "round_start"]
SAMPLE_FROM: tuple[SampleFrom, ...] = ("current", "round_start")
"""Policies that responses may be drawn from."""

ConvergesTo = Literal[
    "original equilibrium",
    "regularised equilibrium",
    "average only",
    "Bradley–Terry policy",
    "best response to the reference",
    "nothing known",
]
CONVERGES_TO: tuple[ConvergesTo, ...] = (
    "original equilibrium",
    "regularised equilibrium",
    "average only",
    "Bradley–Terry policy",
    "best response to the reference",
    "nothing known",
)
"""What a last iterate may reach."""
EXAMPLES = {
    "opponent": "Opponent('reference')",
    "objective": "MagneticPolicyGradient(1.0, 0.1)",
    "magnet": "FixedMagnet()",
}


@dataclass(frozen=True)
class Method:
    """Three choices and a name; the game runner and the language-model trainer both read nothing else.

    Attributes:
        name: As in tables and on the command line: "mpo".
        opponent: Who plays against the responses.
        objective: What one update does to the policy; knows its own exact form for matrix games.
        magnet: When and how far the magnet moves.
        converges_to: What the last iterate reaches: "original equilibrium", "regularised equilibrium", "average only"
            (the last iterate circles), "Bradley–Terry policy" (the best policy for fitted scores), "best response to
            the reference" (regularised if the magnet stays; where the opponent is frozen there), or "nothing known".
        source: arXiv id and equation or algorithm number.
        prediction: Which payoffs an update uses, the objective being the same: "none" those against the current
            opponent; "optimistic" ``2 q_k − q_{k−1}``, which extrapolates to the next one; "extragradient" those
            against the policy that a first, discarded update leads to (two evaluations an update).
        sample_from: On language models, the policy that responses are drawn from: "current", or "round_start", the one
            at the start of the self-play round, as iterative methods with one data set a round do. An exact update is a
            whole round.
    """

    name: str
    opponent: Opponent
    objective: Objective
    magnet: MagnetSchedule
    converges_to: ConvergesTo
    source: str
    prediction: Prediction = "none"
    sample_from: SampleFrom = "current"

    def __post_init__(self) -> None:
        for part, kind in (("opponent", Opponent), ("objective", Objective), ("magnet", MagnetSchedule)):
            value = getattr(self, part)
            if not isinstance(value, kind):
                raise ConfigError(
                    f"{part} is {value!r}, expected a {kind.__name__} of magnetar.methods, for instance "
                    f"{EXAMPLES[part]}"
                )
        if self.prediction not in PREDICTIONS:
            raise ConfigError(unknown_name("prediction", self.prediction, PREDICTIONS))
        if self.sample_from not in SAMPLE_FROM:
            raise ConfigError(unknown_name("sample_from", self.sample_from, SAMPLE_FROM))
        if self.sample_from != "current" and self.prediction != "none":
            raise ConfigError(
                f"sample_from is {self.sample_from!r} with prediction {self.prediction!r}, expected 'current': only an "
                "opponent that moves with every update is worth predicting"
            )
        if self.prediction != "none":
            if not isinstance(self.objective, PayoffObjective):
                raise ConfigError(
                    f"prediction is {self.prediction!r}, but {type(self.objective).__name__} chooses its own payoffs; "
                    "expected prediction='none'"
                )
            if not self.opponent.is_self_play:
                raise ConfigError(
                    f"prediction is {self.prediction!r} with opponent {self.opponent.role!r}, expected self-play: only "
                    "an opponent that moves with every update is worth predicting"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers and options by name, the magnet schedule in words included."""
        return {**self.objective.settings, "magnet": self.magnet.describe()}

    @property
    def sampled_objective(self) -> SampledLoss:
        """The objective as a loss on sampled responses.

        Raises:
            ConfigError: The method has none.
        """
        if isinstance(self.objective, SampledLoss):
            return self.objective
        raise ConfigError(
            f"method {self.name!r} has no loss on sampled responses: {type(self.objective).__name__} is a rule for "
            "exact games; choose a method that learns from samples"
        )

    @property
    def games_only_because(self) -> str | None:
        """Why language models cannot be trained with this method; None if they can."""
        if not isinstance(self.objective, SampledLoss):
            return "its objective has no loss on sampled responses"
        if self.objective.compares_group and (self.prediction == "extragradient" or not self.opponent.is_self_play):
            return (
                "its loss compares the responses of a group with each other, so it never sees the opponent "
                f"{self.opponent.role!r} with prediction {self.prediction!r}"
            )
        return None
