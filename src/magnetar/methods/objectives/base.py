"""What an objective is: on exact games a closed-form update, on sampled responses a loss."""

from abc import ABC, abstractmethod
from dataclasses import fields
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError
from magnetar.types import ObjectiveOutput, RolloutBatch

__all__ = [
    "GAME_VALUE",
    "ROUNDING_GAP",
    "FloatArray",
    "Objective",
    "OracleObjective",
    "PayoffObjective",
    "PayoffOracle",
    "SampledLoss",
    "SampledObjective",
    "check_flags",
    "check_positive",
]

FloatArray = NDArray[np.float64]

ROUNDING_GAP = 1e-14  # duality gaps below it are rounding: adaptive rules would adapt to noise
GAME_VALUE = 0.5  # of every symmetric constant-sum preference game, hence a baseline that needs no critic


class Objective(ABC):  # noqa: B024 - its children differ in what they look at, which is their one method
    """What one update does to a policy. Pure and frozen: no optimiser, no random numbers, no memory of its own."""

    @property
    def needs_magnet(self) -> bool:
        """Whether a magnet pulls on the policy."""
        return False

    @property
    def settings(self) -> dict[str, Any]:
        """The objective's numbers and options by name, for tables and logs."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type] - dataclasses


class PayoffObjective(Objective):
    """An update that looks at nothing but the payoffs against one opponent."""

    @abstractmethod
    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """One update of a tabular policy from exact payoffs; the subclass states the equation.

        Args:
            log_policy_A: log π_k, shape (..., A), nats, normalised; -inf for probability zero.
            log_magnet_A: log ρ, same shape and form.
            payoff_A: q of the opponent, shape (..., A), in [0, 1]; with an optimistic prediction in [-1, 2].

        Returns:
            log π_{k+1}, same shape, normalised.
        """


class SampledLoss(Objective):
    """An update that exists as a loss on sampled responses, for neural policies and language models."""

    @property
    def needs_magnet_distribution(self) -> bool:
        """Whether the loss needs the magnet's whole next-token distributions, not only the sampled tokens'."""
        return False

    @property
    def compares_group(self) -> bool:
        """Whether the loss looks at pairs of a group instead of payoffs, so that the opponents must be the group."""
        return False

    @property
    def needs_reward(self) -> bool:
        """Whether the loss looks at a score of each response, so that the judge must be one that scores."""
        return False

    @property
    def needs_value(self) -> bool:
        """Whether the loss looks at the values of a critic, which learns beside the policy."""
        return False

    @property
    def needs_behavior_distribution(self) -> bool:
        """Whether the loss needs the behaviour policy's whole next-token distributions."""
        return False

    @abstractmethod
    def __call__(self, batch: RolloutBatch) -> ObjectiveOutput:
        """Loss and metrics per response; the subclass states the equation."""


class SampledObjective(PayoffObjective, SampledLoss):
    """An update that is both: a function of payoffs on exact games, and a loss on sampled responses."""


class PayoffOracle(Protocol):
    """What an exact game answers to methods that ask for more than the payoffs against one opponent."""

    def payoff(self) -> FloatArray:
        """Payoffs q of the current policy, shape (A,), in [0, 1]; costs one evaluation, the first time."""
        ...

    def product(self, vector_A: FloatArray) -> FloatArray:
        """``P v`` for any vector, shape (A,); costs one evaluation."""
        ...

    def win_prob(self) -> FloatArray:
        """The whole matrix P, shape (A, A); costs A evaluations the first time, as P does not change."""
        ...


class OracleObjective(Objective):
    """An update that asks the game itself: second-order information, other opponents, the whole matrix, or nothing."""

    @abstractmethod
    def initial_state(self, log_policy_A: FloatArray) -> Any:
        """What the method remembers from update to update, before the first; None if nothing."""

    @abstractmethod
    def exact_step(
        self, oracle: PayoffOracle, log_policy_A: FloatArray, log_reference_A: FloatArray, state: Any
    ) -> tuple[FloatArray, Any]:
        """One update of a tabular policy.

        Args:
            oracle: Answers questions about the game, each counted.
            log_policy_A: log π_k, shape (A,), nats, normalised; -inf for probability zero.
            log_reference_A: log of the reference policy, same form.
            state: What the previous update returned.

        Returns:
            log π_{k+1}, shape (A,), normalised, and the next state.
        """

    def log_magnet(self, state: Any) -> FloatArray | None:
        """Where the method's own magnet is, shape (A,), nats; None if it has none."""
        del state
        return None


def check_positive(**values: float) -> None:
    """Refuse settings that are not positive, finite numbers.

    Raises:
        ConfigError: Names the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ConfigError(f"{name} is {value!r}, expected a positive, finite number")


def check_flags(**values: object) -> None:
    """Refuse what is neither True nor False.

    Raises:
        ConfigError: Names the first of them.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}, expected True or False")
