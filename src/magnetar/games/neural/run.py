"""Play a method with a policy that has weights: the loss of the language-model side, on a game."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from magnetar.errors import ConfigError, GameError, NonFiniteLossError
from magnetar.games.checks import check_kind, number_or_nan
from magnetar.games.game import PreferenceGame
from magnetar.games.gaps import duality_gap
from magnetar.games.length import check_length, counted, round_ends
from magnetar.games.neural.groups import EnumeratedFeedback, GroupFeedback, OpponentShare
from magnetar.games.neural.losses import OptimizerSettings, descend, group_loss
from magnetar.games.neural.policies import GamePolicy, MLPPolicy, PolicySettings
from magnetar.games.play.trace import Recorder, Trace
from magnetar.methods import MagnetClock, Method, SampledLoss
from magnetar.numerics import log_mixture

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
        ConfigError: A method without a loss on responses, or one whose loss cannot see its opponent or prediction; a
            number of updates that is none, rounds that do not fit, or settings of another kind.
        GameError: Not a game, or a start that is not a distribution of full support.
        NonFiniteLossError: The loss or the policy became infinite or NaN; the message names the update.
    """
    policy = MLPPolicy() if policy is None else policy
    feedback = EnumeratedFeedback() if feedback is None else feedback
    optimizer = OptimizerSettings() if optimizer is None else optimizer
    _check_kinds(method, game, policy, feedback, optimizer)
    _check(method, method.sampled_objective, updates, rounds)
    if stop_at_gap is not None and not number_or_nan(stop_at_gap) >= 0:
        raise ConfigError(f"stop_at_gap is {stop_at_gap!r}, expected a duality gap of at least 0")
    learner = _Learner(
        method=method,
        win_prob_AA=torch.tensor(game.P),
        module=_start(policy, game, initial),
        feedback=feedback,
        settings=optimizer,
    )
    recorder = Recorder(updates, learner, record)
    losses = [float("nan")]
    ends = round_ends(updates, rounds)
    first_move: float | None = None
    for update in counted(updates, progress):
        if stop_at_gap is not None and duality_gap(learner.payoff) <= stop_at_gap:
            break
        before = learner.policy
        losses.append(learner.update(update))
        move = 0.5 * float(np.abs(learner.policy - before).sum())
        first_move = move if first_move is None else first_move
        rate = method.magnet.rate(MagnetClock(update, update in ends, move, first_move))
        if rate > 0:
            learner.move_magnet(rate)
            recorder.record_move(update, learner)
            first_move = None
        recorder.record(update, learner)
    trace = recorder.trace(method.name, game.name, learner)
    return NeuralTrace(**vars(trace), loss=np.array(losses), weights=learner.weights())


def _check_kinds(
    method: Method, game: PreferenceGame, policy: PolicySettings, feedback: GroupFeedback, optimizer: OptimizerSettings
) -> None:
    check_kind("method", method, Method, "build it, for instance methods.mpo()")
    check_kind("game", game, PreferenceGame, "for instance games.rps(), or PreferenceGame(matrix)", GameError)
    check_kind("policy", policy, PolicySettings, "for instance MLPPolicy() or TabularPolicy()")
    check_kind("feedback", feedback, GroupFeedback, "for instance GroupSampling(), or None for exact payoffs")
    check_kind("optimizer", optimizer, OptimizerSettings, "for instance OptimizerSettings('adam')")


def _check(method: Method, objective: SampledLoss, updates: int, rounds: int) -> None:
    check_length(updates, rounds)
    if objective.compares_group and (method.prediction != "none" or not method.opponent.is_self_play):
        raise ConfigError(
            f"the loss of method {method.name!r} compares the responses of a group with each other, so it never sees "
            f"the opponent {method.opponent.role!r} with prediction {method.prediction!r}; use target='payoff'"
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
        module: GamePolicy,
        feedback: GroupFeedback,
        settings: OptimizerSettings,
    ) -> None:
        self.evaluations = 0
        self.duels = 0
        self._method = method
        self._objective = method.sampled_objective
        self._win_prob_AA = win_prob_AA
        self._module = module
        self._magnet = copy.deepcopy(module)
        self._feedback = feedback
        self._generator = feedback.generator()
        self._settings = settings
        self._optimizer = settings.build(module)
        self._log_reference_A = self._log_magnet_A = module.log_policy()
        self._log_previous_A: Tensor | None = None
        self._met_A: Tensor | None = None
        self.log_magnet = self._log_magnet_A.numpy()
        self._place(module.log_policy())

    def _place(self, log_policy_A: Tensor) -> None:
        self._log_policy_A = log_policy_A
        self.log_policy = log_policy_A.numpy()
        self.policy = np.exp(self.log_policy)
        self.payoff = self._win_prob_AA.numpy() @ self.policy

    def update(self, number: int) -> float:
        """One update of the method, its prediction included; returns the loss at its beginning."""
        opponents = self._opponents()
        behavior_A = self._log_policy_A
        if self._method.prediction == "extragradient":
            weights = copy.deepcopy(self._module.state_dict())
            state = copy.deepcopy(self._optimizer.state_dict())
            self._step(number, opponents)
            opponents = [(1.0, self._module.log_policy())]
            self._module.load_state_dict(weights)
            self._optimizer.load_state_dict(state)
        loss = self._step(number, opponents)
        self._log_previous_A = behavior_A
        reached_A = self._module.log_policy()
        if not reached_A.isfinite().all():
            raise NonFiniteLossError(
                f"the policy after update {number} is not finite: {reached_A.tolist()}; choose a smaller learning rate"
            )
        self._place(reached_A)
        return loss

    def _opponents(self) -> list[OpponentShare]:
        """Whom the responses meet, and with which weights: they sum to one, also when one of them is negative."""
        role = self._method.opponent.role
        if role == "mixture":
            share = self._method.opponent.reference_weight
            return [(1.0, torch.tensor(log_mixture(self.log_policy, self._log_reference_A.numpy(), share)))]
        if role != "current":
            return [(1.0, {"magnet": self._log_magnet_A, "reference": self._log_reference_A}[role])]
        if self._method.prediction == "optimistic" and self._log_previous_A is not None:
            return [(2.0, None), (-1.0, self._log_previous_A)]
        return [(1.0, None)]

    def _step(self, number: int, opponents: Sequence[OpponentShare]) -> float:
        """Judge a new group and take the inner steps on its loss, from the policy that it was drawn from."""
        behavior_A, magnet_A = self._log_policy_A, self._log_magnet_A
        group = self._feedback.judge(self._generator, self._win_prob_AA, behavior_A, opponents)
        opponent_A = opponents[-1][1]
        if group.duels or opponent_A is None or opponent_A is not self._met_A:  # exact payoffs stay true until it moves
            self.evaluations += group.evaluations
        self._met_A = opponent_A
        self.duels += group.duels
        if self._settings.name == "lbfgs":  # what it remembers is the curvature of the last group's loss
            self._optimizer = self._settings.build(self._module)
        return descend(
            self._settings,
            self._optimizer,
            lambda: group_loss(self._objective, group, self._module(), behavior_A, magnet_A),
            number,
        )

    def move_magnet(self, rate: float) -> None:
        """Mix the policy's weights into the magnet's; a rate of 1 copies them."""
        with torch.no_grad():
            for magnet, weight in zip(self._magnet.parameters(), self._module.parameters(), strict=True):
                magnet.lerp_(weight, rate)
        self._log_magnet_A = self._magnet.log_policy()
        self.log_magnet = self._log_magnet_A.numpy()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the trained weights by name."""
        return {name: value.clone() for name, value in self._module.state_dict().items()}
