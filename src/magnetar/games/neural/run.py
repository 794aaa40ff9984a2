"""Play a method with a policy that has weights: the loss of the language-model side, on a game."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from magnetar.errors import ConfigError, GameError, NonFiniteLossError
from magnetar.games.game import PreferenceGame
from magnetar.games.gaps import duality_gap
from magnetar.games.neural.groups import EnumeratedFeedback, GroupFeedback, OpponentShare
from magnetar.games.neural.losses import OptimizerSettings, descend, group_loss
from magnetar.games.neural.policies import GamePolicy, MLPPolicy, PolicySettings
from magnetar.games.runner import Trace
from magnetar.methods import MagnetClock, Method, PairwiseRegression, SampledObjective

__all__ = ["NeuralTrace", "run_neural"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NeuralTrace(Trace):
    """What a run with a policy of weights did; see `Trace`, whose fields mean the same here.

    ``evaluations`` counts estimates of q: as there with exact feedback. Where responses are sampled, every update needs
    one, extragradient two, and an optimistic prediction two as well, because new responses must meet the previous
    policy too. ``duels`` counts judged pairs of sampled responses.

    Attributes:
        loss: Loss at the beginning of each update, shape (updates + 1,); NaN at entry 0.
        weights: The last policy's weights by name, to be loaded into ``policy_settings.build(...)``.
    """

    loss: FloatArray | None = None
    weights: dict[str, Tensor] | None = None


def run_neural(
    method: Method,
    game: PreferenceGame,
    updates: int = 1000,
    *,
    policy: PolicySettings | None = None,
    feedback: GroupFeedback | None = None,
    optimizer: OptimizerSettings | None = None,
    initial: ArrayLike | None = None,
    rounds: int = 1,
    stop_at_gap: float | None = None,
    record: bool = False,
    progress: bool = False,
) -> NeuralTrace:
    """Train a policy on a game with the method's own loss on responses.

    An update draws a group of responses, judges it, takes the optimiser's inner steps on the loss and moves the magnet
    if its schedule says so. Magnet and reference are frozen copies of the first policy. A partial move of the magnet
    mixes weights, as with a language model. Extragradient discards weights and optimiser state of its first half.

    Args:
        method: Its objective must be a loss on sampled responses.
        game: The game.
        updates: Number of updates, at least 0.
        policy: What the policy is made of; `MLPPolicy` by default.
        feedback: How responses are drawn and judged; all of them, exactly, by default.
        optimizer: How the weights follow the loss.
        initial: Starting policy, positive probabilities, shape (A,), reached by shifting the logits; the policy's own
            first weights decide by default.
        rounds: Self-play rounds, for schedules that move the magnet at the end of each.
        stop_at_gap: Stop as soon as the current policy's duality gap is at most this; the trace is then shorter.
        record: Keep every policy and magnet in the trace.
        progress: Show a progress bar on stderr.

    Returns:
        The trace; its gaps are exact whatever the feedback.

    Raises:
        ConfigError: A method without a loss on responses, or one whose prediction or magnet cannot be had from groups;
            a negative number of updates, or rounds that do not fit.
        GameError: A start that is not a distribution of full support.
        NonFiniteLossError: The loss or the policy became infinite or NaN; the message names the update.
    """
    objective = method.sampled_objective
    _check(method, objective, updates, rounds)
    learner = _Learner(
        method=method,
        win_prob_AA=torch.tensor(game.P),
        policy=_start(policy or MLPPolicy(), game, initial),
        feedback=feedback or EnumeratedFeedback(),
        settings=optimizer or OptimizerSettings(),
    )
    recorder = _Recorder(game, learner, record)
    round_ends = {(r * updates) // rounds for r in range(1, rounds + 1)}
    for update in _counted(updates, progress):
        if stop_at_gap is not None and recorder.gap[-1] <= stop_at_gap:
            break
        loss = learner.update(update)
        rate = method.magnet.rate(MagnetClock(update=update, round_ended=update in round_ends))
        if rate > 0:
            learner.move_magnet(rate)
            recorder.record_move(update, learner)
        recorder.record(learner, loss)
    return recorder.trace(method.name, game.name, learner)


def _check(method: Method, objective: SampledObjective, updates: int, rounds: int) -> None:
    if updates < 0:
        raise ConfigError(f"updates is {updates}, expected at least 0")
    if not 1 <= rounds <= max(updates, 1):
        raise ConfigError(f"rounds is {rounds}, expected between 1 and the number of updates ({updates})")
    if method.magnet.needs_progress:
        raise ConfigError(
            f"method {method.name!r} has a magnet that watches exact payoffs ({method.magnet.describe()}), expected a "
            "schedule that counts updates or rounds; run it with games.run"
        )
    own_pairs = isinstance(objective, PairwiseRegression) and objective.target == "pair"
    if own_pairs and (method.prediction != "none" or not method.opponent.is_self_play):
        raise ConfigError(
            f"method {method.name!r} regresses pairs on their own preference, so it never sees the opponent "
            f"{method.opponent.role!r} with prediction {method.prediction!r}; use target='payoff'"
        )


def _start(settings: PolicySettings, game: PreferenceGame, initial: ArrayLike | None) -> GamePolicy:
    policy = settings.build(game.num_actions)
    if initial is not None:
        start = game.distribution(initial, "initial")
        if start.min() <= 0:
            worst = int(start.argmin())
            raise GameError(
                f"initial[{worst}] = {start[worst]:g}, expected a positive probability: finite logits exclude no action"
            )
        policy.shift(torch.log(torch.tensor(start)) - policy.logits().detach())
    return policy


class _Learner:
    """The trained policy, its frozen copies, and one update."""

    def __init__(
        self,
        method: Method,
        win_prob_AA: Tensor,
        policy: GamePolicy,
        feedback: GroupFeedback,
        settings: OptimizerSettings,
    ) -> None:
        self.method = method
        self.objective = method.sampled_objective
        self.win_prob_AA = win_prob_AA
        self.policy = policy
        self.magnet = copy.deepcopy(policy)
        self.log_reference_A = policy.log_policy()
        self.log_policy_A = policy.log_policy()
        self.log_magnet_A = policy.log_policy()
        self.evaluations = 0
        self.duels = 0
        self._feedback = feedback
        self._generator = feedback.generator()
        self._settings = settings
        self._optimizer = settings.build(policy)
        self._log_previous_A: Tensor | None = None
        self._met_A: Tensor | None = None

    def update(self, number: int) -> float:
        """One update of the method, its prediction included; returns the loss at its beginning."""
        opponents = self._opponents()
        behavior_A = self.log_policy_A
        if self.method.prediction == "extragradient":
            weights = copy.deepcopy(self.policy.state_dict())
            state = copy.deepcopy(self._optimizer.state_dict())
            self._step(number, opponents)
            opponents = [(1.0, self.policy.log_policy())]
            self.policy.load_state_dict(weights)
            self._optimizer.load_state_dict(state)
        loss = self._step(number, opponents)
        self._log_previous_A = behavior_A
        self.log_policy_A = self.policy.log_policy()
        if not self.log_policy_A.isfinite().all():
            raise NonFiniteLossError(
                f"the policy after update {number} is not finite: {self.log_policy_A.tolist()}; choose a smaller "
                "learning rate"
            )
        return loss

    def _opponents(self) -> list[OpponentShare]:
        """Whom the responses meet, and with which weights: they sum to one, also when one of them is negative."""
        role = self.method.opponent.role
        if role == "mixture":
            share = self.method.opponent.reference_weight
            mixed = (1.0 - share) * self.log_policy_A + share * self.log_reference_A
            return [(1.0, mixed.log_softmax(-1))]
        if role != "current":
            return [(1.0, {"magnet": self.log_magnet_A, "reference": self.log_reference_A}[role])]
        if self.method.prediction == "optimistic" and self._log_previous_A is not None:
            return [(2.0, None), (-1.0, self._log_previous_A)]
        return [(1.0, None)]

    def _step(self, number: int, opponents: Sequence[OpponentShare]) -> float:
        """Judge a new group and take the inner steps on its loss, from the policy that it was drawn from."""
        behavior_A, magnet_A = self.log_policy_A, self.log_magnet_A
        group = self._feedback.judge(self._generator, self.win_prob_AA, behavior_A, opponents)
        opponent_A = opponents[-1][1]
        if group.duels or opponent_A is None or opponent_A is not self._met_A:  # exact payoffs stay true until it moves
            self.evaluations += group.evaluations
        self._met_A = opponent_A
        self.duels += group.duels
        if self._settings.name == "lbfgs":  # what it remembers is the curvature of the last group's loss
            self._optimizer = self._settings.build(self.policy)
        return descend(
            self._settings,
            self._optimizer,
            lambda: group_loss(self.objective, group, self.policy(), behavior_A, magnet_A),
            number,
        )

    def move_magnet(self, rate: float) -> None:
        """Mix the policy's weights into the magnet's; a rate of 1 copies them."""
        with torch.no_grad():
            for magnet, weight in zip(self.magnet.parameters(), self.policy.parameters(), strict=True):
                magnet.lerp_(weight, rate)
        self.log_magnet_A = self.magnet.log_policy()


class _Recorder:
    """Curves of a run, with exact gaps."""

    def __init__(self, game: PreferenceGame, learner: _Learner, keep_policies: bool) -> None:
        self.gap: list[float] = []
        self._average_gap: list[float] = []
        self._evaluations: list[int] = []
        self._duels: list[int] = []
        self._loss: list[float] = []
        self._moves: list[int] = []
        self._policies: list[FloatArray] | None = [] if keep_policies else None
        self._magnets = [learner.log_magnet_A.exp().numpy()] if keep_policies else None
        self._win_prob_AA = game.P
        self._average = np.zeros(game.num_actions)
        self.record(learner, float("nan"))

    def record(self, learner: _Learner, loss: float) -> None:
        """Enter the state after an update."""
        policy = learner.log_policy_A.exp().numpy()
        self._average = self._average + (policy - self._average) / (len(self.gap) + 1)
        self.gap.append(duality_gap(self._win_prob_AA @ policy))
        self._average_gap.append(duality_gap(self._win_prob_AA @ self._average))
        self._evaluations.append(learner.evaluations)
        self._duels.append(learner.duels)
        self._loss.append(loss)
        if self._policies is not None:
            self._policies.append(policy)

    def record_move(self, update: int, learner: _Learner) -> None:
        """Enter a move of the magnet after ``update``."""
        self._moves.append(update)
        if self._magnets is not None:
            self._magnets.append(learner.log_magnet_A.exp().numpy())

    def trace(self, method: str, game: str, learner: _Learner) -> NeuralTrace:
        """All that was recorded."""
        return NeuralTrace(
            method=method,
            game=game,
            duality_gap=np.array(self.gap),
            average_gap=np.array(self._average_gap),
            evaluations=np.array(self._evaluations, dtype=np.int64),
            duels=np.array(self._duels, dtype=np.int64),
            log_policy=learner.log_policy_A.numpy(),
            average_policy=self._average / self._average.sum(),
            log_magnet=learner.log_magnet_A.numpy(),
            magnet_moves=np.array(self._moves, dtype=np.int64),
            policies=None if self._policies is None else np.array(self._policies),
            magnets=None if self._magnets is None else np.array(self._magnets),
            loss=np.array(self._loss),
            weights={name: value.clone() for name, value in learner.policy.state_dict().items()},
        )


def _counted(updates: int, progress: bool) -> Iterable[int]:
    if not progress:
        return range(1, updates + 1)
    from tqdm import tqdm

    return tqdm(range(1, updates + 1), desc="games", unit="update")
