"""Magnet schedules: when the magnet moves to the current policy, and how far.

A schedule is a pure function from the clock to a mixing rate. Whoever owns the policies (the game runner, the trainer)
does the moving: 1 is a hard copy, 0 leaves the magnet where it is, anything between mixes. A game mixes geometrically
(in log-probabilities), a language model mixes weights.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from magnetar.errors import ConfigError, checked_integer

__all__ = ["AdaptiveMagnet", "EachRound", "Ema", "EveryNUpdates", "FixedMagnet", "MagnetClock", "MagnetSchedule"]


@dataclass(frozen=True)
class MagnetClock:
    """What a schedule may look at.

    Attributes:
        update: Updates done so far, the one that just ended included (1 after the first).
        round_ended: Whether the update that just ended was the last of its self-play round.
        move: How far the policy moved in the update that just ended, total variation distance in [0, 1]; None where it
            is not measured.
        first_move: The same of the first update since the magnet moved last.
    """

    update: int
    round_ended: bool = False
    move: float | None = None
    first_move: float | None = None


class MagnetSchedule(ABC):
    """Decides, after every update, how far the magnet moves."""

    @property
    def needs_progress(self) -> bool:
        """Whether the schedule looks at how far the policy moves, which only the game runner measures."""
        return False

    @abstractmethod
    def rate(self, clock: MagnetClock) -> float:
        """Mixing rate in [0, 1] to apply now: 0 stays, 1 copies the current policy."""

    @abstractmethod
    def describe(self) -> str:
        """The schedule in a few words, for logs and tables."""


@dataclass(frozen=True)
class FixedMagnet(MagnetSchedule):
    """Never moves: the game that is solved is the regularised one (arXiv:2206.05825)."""

    def rate(self, clock: MagnetClock) -> float:
        """Zero, always."""
        return 0.0

    def describe(self) -> str:
        """The schedule in a few words."""
        return "fixed"


@dataclass(frozen=True)
class EveryNUpdates(MagnetSchedule):
    """Hard copy after every ``every`` updates (arXiv:2410.16714, Algorithm 1, T = ``every``).

    Attributes:
        every: Updates between moves, at least 1.
    """

    every: int

    def __post_init__(self) -> None:
        checked_integer("magnet_every", self.every, 1)

    def rate(self, clock: MagnetClock) -> float:
        """One after updates ``every``, ``2 · every``, …, zero otherwise."""
        return 1.0 if clock.update % self.every == 0 else 0.0

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"every {self.every} update{'s' if self.every > 1 else ''}"


@dataclass(frozen=True)
class EachRound(MagnetSchedule):
    """Hard copy at the end of each self-play round, as in the paper's experiments (arXiv:2410.16714, section 5)."""

    def rate(self, clock: MagnetClock) -> float:
        """One after a round's last update, zero otherwise."""
        return 1.0 if clock.round_ended else 0.0

    def describe(self) -> str:
        """The schedule in a few words."""
        return "end of each round"


@dataclass(frozen=True)
class Ema(MagnetSchedule):
    """Exponential moving average: after every update the magnet moves a fixed part of the way.

    Attributes:
        ema_rate: Part of the way, in (0, 1).
    """

    ema_rate: float

    def __post_init__(self) -> None:
        if not 0.0 < self.ema_rate < 1.0:
            instead = "'fixed' (it would never move)" if self.ema_rate == 0 else "'every' with magnet_every=1"
            raise ConfigError(
                f"magnet_ema_rate is {self.ema_rate}, expected a number strictly between 0 and 1; for that value use "
                f"magnet_schedule={instead}"
            )

    def rate(self, clock: MagnetClock) -> float:
        """``ema_rate``, always."""
        return self.ema_rate

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"moving average, rate {self.ema_rate:g}"


@dataclass(frozen=True)
class AdaptiveMagnet(MagnetSchedule):
    """Hard copy when the inner game has settled: when the policy hardly moves any more.

    A period of T updates is too long for one game and too short for the next. This one watches the steps instead: at
    the regularised equilibrium they vanish, so the magnet moves when a step is ``shrink`` times as long as the first
    one after the last move, or shorter.

    Attributes:
        shrink: In (0, 1).
    """

    shrink: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.shrink < 1.0:
            raise ConfigError(
                f"shrink is {self.shrink}, expected a number strictly between 0 and 1; at 1 the magnet would follow "
                "every update, which is magnet_every=1"
            )

    @property
    def needs_progress(self) -> bool:
        """True."""
        return True

    def rate(self, clock: MagnetClock) -> float:
        """One when the last step is short enough, zero otherwise.

        Raises:
            ConfigError: The clock does not measure steps.
        """
        if clock.move is None or clock.first_move is None:
            raise ConfigError("the adaptive magnet watches how far the policy moves, which this run does not measure")
        return 1.0 if clock.move <= self.shrink * clock.first_move else 0.0

    def describe(self) -> str:
        """The schedule in a few words."""
        return f"when steps shrink to {self.shrink:g}"
