"""What a rollout engine takes and gives: sampling parameters, responses and their log-probabilities."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError

__all__ = [
    "HoldingEngine",
    "MixtureEngine",
    "MixtureMember",
    "RolloutEngine",
    "Rollouts",
    "SamplingParams",
    "check_request",
    "holding",
]


@dataclass(frozen=True)
class SamplingParams:
    """How responses are drawn.

    Attributes:
        max_new_tokens: Length limit of a response, the end-of-sequence token included; at least 1.
        temperature: Divides the logits; above 0. Log-probabilities are those at this temperature.
        top_p: Draw from the smallest set of tokens with at least this probability together; in (0, 1], 1 is off.
        top_k: Draw from the k most probable tokens; 0 is off.
        min_p: Drop tokens less probable than this share of the most probable one's; in [0, 1), 0 is off.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that cannot be sampled with."""
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {self.max_new_tokens}, expected at least 1")
        if not 0.0 < self.temperature < float("inf"):
            raise ConfigError(
                f"temperature = {self.temperature}, expected a finite number above 0; "
                "for nearly greedy answers use a small one such as 0.01"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p = {self.top_p}, expected 0 < top_p <= 1 (1 keeps every token)")
        if self.top_k < 0:
            raise ConfigError(f"top_k = {self.top_k}, expected 0 (off) or the number of tokens to keep")
        if not 0.0 <= self.min_p < 1.0:
            raise ConfigError(f"min_p = {self.min_p}, expected 0 <= min_p < 1 (0 is off)")

    @property
    def truncates(self) -> bool:
        """Whether some tokens can never be drawn, so that responses do not follow the policy exactly."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


@dataclass(frozen=True)
class Rollouts:
    """Responses to a batch of prompts, a group of G for each of B prompts.

    Attributes:
        prompt_ids: B prompts as tokens.
        response_ids: B groups of G responses as tokens, the end-of-sequence token included where it was produced.
        texts: B groups of G responses as text, without special tokens.
        sampling_logp: Log-probability of each token of `response_ids` under the policy at the sampling temperature,
            before any truncation of the distribution, nats, as the engine computed it.
        truncated_BG: True where a response was stopped by the length limit.
        weight_BG: Weight of each response in expectations, each row summing to one, from an engine that enumerates;
            None: equal weights.
    """

    prompt_ids: list[list[int]]
    response_ids: list[list[list[int]]]
    texts: list[list[str]]
    sampling_logp: list[list[list[float]]]
    truncated_BG: NDArray[np.bool_]
    weight_BG: NDArray[np.float64] | None = None


class RolloutEngine(Protocol):
    """Draws groups of responses from a policy."""

    def generate(self, model: Any, prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]) -> Rollouts:
        """Draw `group_size` responses to each prompt.

        Args:
            model: The policy, wrapped for distributed training or not; the same afterwards as before.
            prompt_ids: B prompts, at least one token each.
            group_size: Responses to each prompt, at least 1.
            seeds: One for each prompt. Token t of response g depends on the prompt's seed, g and t alone: not on the
                other prompts, the global random state or the number of processes.
        """
        ...


class HoldingEngine(RolloutEngine, Protocol):
    """An engine with a copy of the weights, which it is sent when they have changed.

    It runs no pass of the policy, and nothing has to be gathered for it. It batches by itself and wants all prompts
    in one call. Processes that depend on each other call `generate` equally often, without prompts if need be.
    """

    @property
    def holds_weights(self) -> bool:
        """Always true: what tells such an engine from others."""
        ...

    @property
    def sampling(self) -> SamplingParams:
        """How responses are drawn."""
        ...

    @property
    def running(self) -> bool:
        """Whether it has been started, and not closed since."""
        ...

    def close(self) -> None:
        """Give back what it holds; the next call starts it again."""
        ...


@dataclass(frozen=True)
class MixtureMember:
    """One policy of a geometric mixture.

    Attributes:
        activate: Gives, for the length of a `with` block, the module whose forward pass is this policy.
        weight: Its exponent, in [0, 1]; those of a mixture sum to one.
    """

    activate: Callable[[], AbstractContextManager[Any]]
    weight: float


class MixtureEngine(RolloutEngine, Protocol):
    """A rollout engine that can also draw from a geometric mixture of policies."""

    def generate_mixture(
        self, members: Sequence[MixtureMember], prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """Draw responses token by token from ``Π_m π_m(·|prefix)^(w_m)``, normalised at every token.

        Args:
            members: The policies and their exponents.
            prompt_ids: As for `RolloutEngine.generate`.
            group_size: As for `RolloutEngine.generate`.
            seeds: As for `RolloutEngine.generate`.

        Source: arXiv:2312.00886, section 7: the mixture of each next-token distribution.
        """
        ...


def holding(engine: RolloutEngine) -> HoldingEngine | None:
    """The engine itself if it has a copy of the weights, else None."""
    return cast(HoldingEngine, engine) if getattr(engine, "holds_weights", False) else None


def check_request(prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]) -> None:
    """Refuse what no engine can draw responses to; arguments as for `RolloutEngine.generate`.

    Raises:
        ValueError: An empty prompt, a group size below 1 or another number of seeds than of prompts.
    """
    if group_size < 1:
        raise ValueError(f"group_size = {group_size}, expected at least 1")
    if len(seeds) != len(prompt_ids):
        raise ValueError(f"{len(seeds)} seeds for {len(prompt_ids)} prompts, expected one seed for each prompt")
    for b, prompt in enumerate(prompt_ids):
        if not prompt:
            raise ValueError(f"prompt {b} has no tokens; give it at least a beginning-of-sequence token")
