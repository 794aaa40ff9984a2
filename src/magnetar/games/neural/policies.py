"""Policies with weights: a small network, or one logit for each action."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from magnetar.errors import checked_integer
from magnetar.games.checks import LARGEST_SEED

__all__ = ["GamePolicy", "MLPPolicy", "PolicySettings", "TabularPolicy"]


class GamePolicy(nn.Module, ABC):
    """A distribution over the actions of one game, given by weights."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities, shape (A,), differentiable."""

    @abstractmethod
    def shift(self, offset_A: Tensor) -> None:
        """Add ``offset_A`` to the logits, by the weights that are added last."""

    def forward(self) -> Tensor:
        """The policy: log π, shape (A,), nats, normalised, differentiable."""
        return self.logits().log_softmax(-1)

    def log_policy(self) -> Tensor:
        """The policy as it stands, shape (A,), a copy without gradient."""
        with torch.no_grad():
            return self().clone()


class PolicySettings(ABC):
    """What a policy is made of; the same settings make the same weights."""

    @abstractmethod
    def build(self, num_actions: int) -> GamePolicy:
        """A new policy over ``num_actions`` actions, in float64."""


@dataclass(frozen=True)
class TabularPolicy(PolicySettings):
    """One logit for each action, all zero at the start: the uniform policy."""

    def build(self, num_actions: int) -> GamePolicy:
        """See `PolicySettings.build`."""
        return _Table(num_actions)


@dataclass(frozen=True)
class MLPPolicy(PolicySettings):
    """A multilayer perceptron that maps one trained input vector to the logits of all actions.

    A game has a single prompt, so there is nothing to feed the network but a vector of its own. Linear layers with
    ReLU between them, Xavier-normal weights, biases of zero, a standard normal input. The defaults are the network of
    the simulations in arXiv:2503.08942, except that each game has a network to itself.

    Attributes:
        hidden: Width of the input and of the hidden layers, at least 1.
        layers: Linear layers, the last one included, at least 1.
        seed: Of the first weights, at least 0.

    Raises:
        ConfigError: A number outside its range.
    """

    hidden: int = 10
    layers: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        checked_integer("hidden", self.hidden, 1)
        checked_integer("layers", self.layers, 1)
        checked_integer("seed", self.seed, 0, at_most=LARGEST_SEED)

    def build(self, num_actions: int) -> GamePolicy:
        """See `PolicySettings.build`."""
        return _Network(self, num_actions)


class _Table(GamePolicy):
    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_actions, dtype=torch.float64))

    def logits(self) -> Tensor:
        return self.table

    def shift(self, offset_A: Tensor) -> None:
        with torch.no_grad():
            self.table += offset_A


class _Network(GamePolicy):
    def __init__(self, settings: MLPPolicy, num_actions: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self.input = nn.Parameter(torch.randn(settings.hidden, generator=generator, dtype=torch.float64))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer in range(settings.layers):
            width = num_actions if layer == settings.layers - 1 else settings.hidden
            weight = torch.empty(width, settings.hidden, dtype=torch.float64)
            self.weights.append(nn.Parameter(nn.init.xavier_normal_(weight, generator=generator)))
            self.biases.append(nn.Parameter(torch.zeros(width, dtype=torch.float64)))

    def logits(self) -> Tensor:
        hidden: Tensor = self.input
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = weight @ (hidden.relu() if number else hidden) + bias
        return hidden

    def shift(self, offset_A: Tensor) -> None:
        with torch.no_grad():
            self.biases[-1] += offset_A
