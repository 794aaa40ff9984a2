"""What the engine needs of vLLM, wherever it runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from magnetar.rollout.base import SamplingParams

__all__ = ["SIZES", "Backend", "EngineFacts", "Sample", "Sampling"]

SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)
"""What a configuration says of its weights' shapes; vLLM itself cuts a weight that is too large, and says nothing."""


@dataclass(frozen=True)
class EngineFacts:
    """What vLLM says of itself.

    Attributes:
        vllm: Its version.
        dtype: Precision of its weights.
        logprobs_mode: Which log-probabilities it returns.
        max_model_len: Most tokens of a prompt and its response together.
        model_type: Architecture, as transformers names it.
        sizes: Those of `SIZES` that its configuration names.
        weights: Stamp of the weights that it holds; None when they were never loaded from here.
    """

    vllm: str
    dtype: str
    logprobs_mode: str
    max_model_len: int
    model_type: str
    sizes: dict[str, int]
    weights: str | None

    @classmethod
    def of_workers(cls, described: Sequence[Any]) -> "EngineFacts":
        """From what each of an engine's workers says; one that holds other weights than the rest counts as none."""
        stamps = {facts["weights"] for facts in described}
        return cls(**{**described[0], "weights": stamps.pop() if len(stamps) == 1 else None})


@dataclass(frozen=True)
class Sampling:
    """How a batch is drawn.

    Attributes:
        params: Length, temperature and truncation.
        group_size: Responses to each prompt.
        end_token_ids: Tokens that end a response.
    """

    params: SamplingParams
    group_size: int
    end_token_ids: tuple[int, ...]

    def options(self, seed: int) -> dict[str, Any]:
        """Arguments of vLLM's sampling parameters, all that decide the distribution named."""
        params = self.params
        return {
            "n": self.group_size,
            "seed": seed,
            "max_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": True,
            "stop_token_ids": list(self.end_token_ids),
            "logprobs": 0,
        }


@dataclass(frozen=True)
class Sample:
    """One response: its tokens and their log-probabilities, in nats."""

    tokens: list[int]
    logp: list[float]


class Backend(Protocol):
    """A vLLM engine that can be given weights and asked for samples."""

    def facts(self) -> EngineFacts:
        """What the engine is and holds.

        Raises:
            RolloutError: It cannot be reached.
        """
        ...

    def wake(self) -> bool:
        """Get ready; returns whether the weights survived."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]], stamp: str, *, whole: bool) -> None:
        """Replace weights in place and forget what was computed with the old ones.

        Args:
            weights: By their name in a checkpoint.
            stamp: Name of what is held afterwards.
            whole: These are all weights of the model.

        Raises:
            RolloutError: They do not fit, or the engine failed.
        """
        ...

    def sample(self, prompt_ids: list[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[Sample]]:
        """A group of responses to each prompt; response g of a prompt is drawn with its seed + g.

        Raises:
            RolloutError: The engine failed.
        """
        ...

    def rest(self) -> None:
        """Give memory back until the next `wake`."""
        ...

    def close(self) -> None:
        """Stop what was started; the backend is of no use afterwards."""
        ...
