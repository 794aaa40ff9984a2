"""What a method gets to see of the payoffs: all of them exactly, or estimates from sampled duels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError, checked_integer
from magnetar.games.checks import number_or_nan

__all__ = ["SampledFeedback"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SampledFeedback:
    r"""Payoffs estimated from duels, each a Bernoulli draw of the preference: what annotators, not formulas, give.

    Every evaluation of a method is estimated so, whole matrices too (each pair meets ``opponents`` times). Two designs,
    both unbiased unless ``exploration`` is positive:

    - ``responses=None``: every action meets ``opponents`` actions drawn from the opponent policy; its payoff is the
      share that it wins. Costs A · opponents duels an evaluation.
    - ``responses=G``: only G actions drawn from the policy itself are judged, as with a language model. In self-play
      all pairs of the group meet once and ``q̂_i`` is the U-statistic over the others; against another opponent each
      meets ``opponents`` draws of it. Actions are credited by importance weights,
      ``q̂_y = 1/2 + Σ_i 1[y_i = y] (q̂_i − 1/2) / (G (π_y + γ))``. Costs G(G−1)/2 or G · opponents duels.

    Attributes:
        opponents: Opponents that each judged action meets, at least 1.
        responses: G, actions drawn from the policy, at least 2; None judges every action.
        exploration: γ, at least 0. Rare actions get huge importance weights; γ > 0 bounds them at the price of a bias
            (implicit exploration, arXiv:1506.03271).
        seed: Of NumPy's generator; the same seed gives the same run.

    Raises:
        ConfigError: A number outside its range.
    """

    opponents: int = 32
    responses: int | None = None
    exploration: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        checked_integer("opponents", self.opponents, 1)
        checked_integer("seed", self.seed, 0)
        if self.responses is not None and checked_integer("responses", self.responses, 0) < 2:
            raise ConfigError(
                f"responses is {self.responses}, expected at least 2, whose members meet each other, or None for every "
                "action"
            )
        if not 0 <= number_or_nan(self.exploration) < float("inf"):
            raise ConfigError(f"exploration is {self.exploration!r}, expected a finite number of at least 0")
        if self.exploration and self.responses is None:
            raise ConfigError(
                f"exploration is {self.exploration}, but every action is judged and none needs importance weights; set "
                "responses, or remove exploration"
            )

    def generator(self) -> np.random.Generator:
        """A fresh generator, always in the same state."""
        return np.random.default_rng(self.seed)

    def payoff(
        self,
        generator: np.random.Generator,
        win_prob_AA: FloatArray,
        policy_A: FloatArray,
        opponent_A: FloatArray | None = None,
    ) -> tuple[FloatArray, int]:
        """One noisy evaluation of q.

        Args:
            generator: Source of the draws, advanced.
            win_prob_AA: P, shape (A, A).
            policy_A: π, probabilities, shape (A,): whose responses are judged.
            opponent_A: The opponent's probabilities, shape (A,); None for self-play.

        Returns:
            q̂, shape (A,), and the number of duels fought.
        """
        if self.responses is None:
            return self._judge_all(generator, win_prob_AA, policy_A if opponent_A is None else opponent_A)
        drawn = generator.choice(len(policy_A), size=self.responses, p=policy_A)
        if opponent_A is None:
            share, duels = _round_robin(generator, win_prob_AA, drawn)
        else:
            met = generator.choice(len(opponent_A), size=(self.responses, self.opponents), p=opponent_A)
            share = (generator.random(met.shape) < win_prob_AA[drawn[:, None], met]).mean(axis=1)
            duels = met.size
        credit = np.zeros_like(policy_A)
        np.add.at(credit, drawn, (share - 0.5) / (self.responses * (policy_A[drawn] + self.exploration)))
        return 0.5 + credit, duels

    def win_prob(self, generator: np.random.Generator, win_prob_AA: FloatArray) -> tuple[FloatArray, int]:
        """The whole matrix estimated: every pair of actions meets ``opponents`` times.

        Args:
            generator: Source of the draws, advanced.
            win_prob_AA: P, shape (A, A).

        Returns:
            Shares won, shape (A, A), which add up to one with their transpose; and the number of duels fought.
        """
        first, second = np.triu_indices(len(win_prob_AA), 1)
        share = generator.binomial(self.opponents, win_prob_AA[first, second]) / self.opponents
        estimate = np.full_like(win_prob_AA, 0.5)
        estimate[first, second], estimate[second, first] = share, 1.0 - share
        return estimate, self.opponents * len(first)

    def _judge_all(
        self, generator: np.random.Generator, win_prob_AA: FloatArray, opponent_A: FloatArray
    ) -> tuple[FloatArray, int]:
        times = generator.multinomial(self.opponents, opponent_A)
        met = np.flatnonzero(times)
        wins = generator.binomial(times[met], win_prob_AA[:, met]).sum(axis=1)
        return wins / self.opponents, self.opponents * len(opponent_A)


def _round_robin(
    generator: np.random.Generator, win_prob_AA: FloatArray, drawn: NDArray[np.int64]
) -> tuple[FloatArray, int]:
    """Every pair of a group meets once; share of the others that each member beats, and the number of duels."""
    size = len(drawn)
    first, second = np.triu_indices(size, 1)
    first_wins = generator.random(len(first)) < win_prob_AA[drawn[first], drawn[second]]
    wins = np.bincount(first, weights=first_wins, minlength=size)
    wins += np.bincount(second, weights=~first_wins, minlength=size)
    return wins / (size - 1), len(first)
