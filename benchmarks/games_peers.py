"""What the speed of the game lab is measured against: a loop in bare NumPy, and EGPO as its paper writes it."""

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["EVERY", "STEP", "STRENGTH", "PairwiseEGPO", "bare_updates"]

STEP, STRENGTH, EVERY = 1.0, 0.1, 10  # η, α or β, updates between moves of the magnet: the same for all

FloatArray = NDArray[np.float64]


def bare_updates(win_prob: FloatArray, updates: int) -> FloatArray:
    """MPO's arithmetic in a plain loop: nothing checked, counted or recorded. Returns the last policy."""
    stay = 1.0 / (1.0 + STEP * STRENGTH)
    log_policy = np.full(len(win_prob), -np.log(len(win_prob)))
    log_magnet, policy = log_policy, np.exp(log_policy)
    for update in range(1, updates + 1):
        payoff = win_prob @ policy
        log_policy = stay * log_policy + (1.0 - stay) * log_magnet + STEP * stay * payoff
        log_policy -= log_policy.max()
        policy = np.exp(log_policy)
        total = policy.sum()
        policy /= total
        log_policy -= np.log(total)
        if update % EVERY == 0:
            log_magnet = log_policy
    return policy


class PairwiseEGPO:
    """EGPO as its paper formulates it for gradient descent: two steps on online IPO losses over all pairs.

    With μ the opponent, ``L(θ; μ) = mean_{y,y'} (log(π_θ(y) ref(y') / (π_θ(y') ref(y))) − (q_y(μ) − q_y'(μ))/β)²``.
    The look-ahead descends from θ_k on ``L(·; π_k)``, the update, again from θ_k, on ``L(·; π_ahead)``. At a learning
    rate of ``ηβA/4`` that is the closed form of the method `egpo`, against which it is checked.

    Source: the equations of arXiv:2503.08942.
    """

    def __init__(self, win_prob: FloatArray, dtype: torch.dtype) -> None:
        actions = len(win_prob)
        self.win_prob = torch.tensor(win_prob, dtype=dtype)
        self.logits = torch.zeros(actions, dtype=dtype, requires_grad=True)
        self.log_reference = self.logits.detach().log_softmax(-1)
        self.optimizer = torch.optim.SGD([self.logits], lr=STEP * STRENGTH * actions / 4)

    def policy(self) -> torch.Tensor:
        """Probabilities of all actions."""
        return self.logits.detach().softmax(-1)

    def iterate(self, iterations: int) -> None:
        """Make that many updates, two optimiser steps each."""
        for _ in range(iterations):
            start = self.logits.detach().clone()
            self._descend(self.policy())
            ahead = self.policy()
            with torch.no_grad():
                self.logits.copy_(start)
            self._descend(ahead)

    def _descend(self, opponent: torch.Tensor) -> None:
        log_ratio = self.logits.log_softmax(-1) - self.log_reference
        payoff = self.win_prob @ opponent
        target = (payoff[:, None] - payoff[None, :]) / STRENGTH
        loss = (log_ratio[:, None] - log_ratio[None, :] - target).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
