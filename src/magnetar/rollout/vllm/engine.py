"""Rollouts by vLLM: the trainer's policy is loaded into it whenever it has changed."""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel, gather_object
from torch import Tensor, nn

from magnetar.errors import ConfigError, MagnetarError, ModelError, RolloutError
from magnetar.modeling.spread import is_spread
from magnetar.rollout.base import Rollouts, SamplingParams, check_request
from magnetar.rollout.ending import end_token_ids
from magnetar.rollout.vllm.backend import Backend, Sampling
from magnetar.rollout.vllm.ledger import WeightLedger
from magnetar.rollout.vllm.weights import EngineWeight

__all__ = ["VllmEngine", "logprobs_mode"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

SEEDS = 2**62
"""vLLM takes seeds of 63 bits, and adds the index of a response."""


def logprobs_mode(sampling: SamplingParams) -> str:
    """Which of vLLM's log-probabilities are those at the sampling temperature, before truncation.

    Args:
        sampling: How responses are drawn.

    Returns:
        "processed_logprobs": after temperature and truncation; "raw_logprobs": before both.

    Raises:
        ConfigError: There is a temperature and a truncation, and vLLM has nothing between them.
    """
    if not sampling.truncates:
        return "processed_logprobs"
    if sampling.temperature != 1.0:
        raise ConfigError(
            f"temperature is {sampling.temperature} and top_p is {sampling.top_p}, top_k {sampling.top_k}, min_p "
            f"{sampling.min_p}: with vLLM, log-probabilities are had before both or after both, and those after the "
            "temperature alone are needed; set temperature=1, or top_p=1 and top_k=0"
        )
    return "raw_logprobs"


class VllmEngine:
    """Draws responses with vLLM; the policy is whatever the model's forward pass is when it is asked.

    Response g of a prompt is drawn with the prompt's seed + g, whatever else is drawn with it. The same responses come
    again as far as vLLM's arithmetic does not depend on what it computes together: on rounding, a token may turn.
    """

    def __init__(
        self,
        tokenizer: Any,
        sampling: SamplingParams,
        starter: Callable[[Any], Backend],
        *,
        sharers: int = 1,
        rank: int = 0,
        eos_token_ids: Sequence[int] | None = None,
    ) -> None:
        """Remember how to start; vLLM starts with the first rollout, or with `start`.

        Args:
            tokenizer: Decodes responses, and names the end-of-sequence token when the model's generation config names
                none.
            sampling: Length, temperature and truncation.
            starter: Starts the backend for a model of transformers.
            sharers: Processes of the trainer that share one vLLM; all of them must ask for rollouts equally often.
            rank: Which of them this one is; the first sends the weights.
            eos_token_ids: Tokens that end a response; None: those of the model's generation config.

        Raises:
            ConfigError: vLLM cannot give the log-probabilities of such a sampling.
        """
        self._mode = logprobs_mode(sampling)
        self._tokenizer = tokenizer
        self._sampling = sampling
        self.starter = starter
        self._sharers = sharers
        self._rank = rank
        self._backend: Backend | None = None
        self._eos_token_ids = eos_token_ids
        self._ledger = WeightLedger()
        self._in_step = sharers > 1
        self._run = ""
        self._loads = 0
        self._max_model_len = 0

    @property
    def sampling(self) -> SamplingParams:
        """How responses are drawn."""
        return self._sampling

    @property
    def sharers(self) -> int:
        """Processes of the trainer that share one vLLM, and ask for rollouts equally often."""
        return self._sharers

    @property
    def holds_weights(self) -> bool:
        """Whether the engine has a copy of the weights, so that a policy's own are read and never passed through."""
        return True

    @property
    def running(self) -> bool:
        """Whether vLLM has been started or reached, and not closed since."""
        return self._backend is not None

    @property
    def loads(self) -> int:
        """How often weights were sent."""
        return self._loads

    def start(self, model: nn.Module, longest_prompt: int = 1) -> None:
        """Start vLLM, or reach the server, and check that it fits the model.

        Args:
            model: The policy.
            longest_prompt: Tokens of the longest prompt that will be asked about.

        Raises:
            RolloutError: It cannot start or be reached.
            ConfigError: It serves another model, or returns other log-probabilities than are needed.
        """
        if self._backend is not None:
            return
        inner = extract_model_from_parallel(model)
        base = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
        self._keep_step(inner)
        with _plain_arithmetic():
            self._backend = self._together(lambda: self._started(base))
            self._run = self._from_first(lambda: uuid.uuid4().hex)
        self._ledger.forget()
        if longest_prompt + self._sampling.max_new_tokens > self._max_model_len:
            raise ConfigError(
                f"vLLM takes {self._max_model_len} tokens, but the longest prompt has {longest_prompt} and a response "
                f"up to {self._sampling.max_new_tokens}; raise vllm_max_model_length, or --max-model-len of the "
                "server, or lower max_prompt_length"
            )

    def _started(self, base: Any) -> Backend:
        backend = self.starter(base)
        backend.wake()
        self._check(backend, base)
        backend.rest()
        return backend

    def close(self) -> None:
        """Stop vLLM if it runs here; the next rollout starts it again."""
        if self._backend is not None:
            self._backend.close()
        self._backend = None

    def generate(
        self, model: nn.Module, prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int]
    ) -> Rollouts:
        """Draw `group_size` responses to each prompt; see `RolloutEngine.generate`.

        Processes that share one vLLM, or the weights of the policy, call it equally often, one that has nothing to ask
        without prompts.

        Raises:
            RolloutError: vLLM failed or cannot be reached.
            ConfigError: As `start`, or a prompt that leaves no room for a response.
            ModelError: Weights that cannot be given to vLLM.
        """
        self.start(model)
        assert self._backend is not None
        room = self._max_model_len - self._sampling.max_new_tokens
        inner = extract_model_from_parallel(model)
        self._keep_step(inner)
        self._together(lambda: _check(prompt_ids, group_size, seeds, room))
        ends = self._eos_token_ids if self._eos_token_ids is not None else end_token_ids(inner, self._tokenizer)
        sampling = Sampling(self._sampling, group_size, tuple(sorted(ends)))
        with _plain_arithmetic():
            backend = self._backend
            self._sync(inner)
            seeds_63 = [seed % SEEDS for seed in seeds]
            samples = self._together(lambda: backend.sample(prompt_ids, seeds_63, sampling) if prompt_ids else [])
            backend.rest()
        response_ids = [[sample.tokens for sample in group] for group in samples]
        return Rollouts(
            prompt_ids=[list(prompt) for prompt in prompt_ids],
            response_ids=response_ids,
            texts=[list(self._tokenizer.batch_decode(group, skip_special_tokens=True)) for group in response_ids],
            sampling_logp=[[sample.logp for sample in group] for group in samples],
            truncated_BG=np.array(
                [[tokens[-1] not in ends for tokens in group] for group in response_ids], dtype=np.bool_
            ).reshape(len(prompt_ids), group_size),
        )

    def sync(self, model: nn.Module) -> None:
        """Make vLLM hold the policy's weights, as `generate` does by itself when they have changed.

        Raises:
            RolloutError: vLLM failed or cannot be reached.
            ConfigError: As `start`.
            ModelError: Weights that cannot be given to vLLM.
        """
        self.start(model)
        inner = extract_model_from_parallel(model)
        self._keep_step(inner)
        with _plain_arithmetic():
            self._sync(inner)

    def _sync(self, model: nn.Module) -> None:
        """Make vLLM hold the policy's weights."""
        backend = self._backend
        assert backend is not None
        # A server that was restarted, or that another run uses, holds other weights than it was given.
        if not self._from_first(lambda: backend.wake() and backend.facts().weights == self._stamp):
            self._ledger.forget()
        weights, marks = self._ledger.outdated(model)
        if not weights:
            return
        self._ledger.forget()
        self._loads += 1
        try:
            self._together(lambda: self._send(backend, weights, whole=len(weights) == len(marks)))
        except MagnetarError:
            # Who knows what it holds now: if it is asked again, it starts again.
            self.close()
            raise
        self._ledger.remember(marks)

    def _send(self, backend: Backend, weights: list[EngineWeight], *, whole: bool) -> None:
        """Hand weights over one by one; of those that are spread, every process gives its part, come what may."""
        made = _tensors(weights)
        sends = self._rank == 0 or self._sharers == 1
        try:
            if sends:
                backend.load(made, self._stamp, whole=whole)
        finally:
            if sends:
                for _ in made:  # what the backend did not take, because it failed
                    pass
            else:
                for weight in weights:
                    if weight.is_spread:
                        weight.make()

    def _keep_step(self, model: nn.Module) -> None:
        """Find out whether processes depend on each other: they share one vLLM, or the weights of the policy."""
        first = next(model.parameters(), None)
        self._in_step = self._sharers > 1 or (first is not None and is_spread(first))

    def _together(self, work: Callable[[], T]) -> T:
        """Do one's part; processes that depend on each other wait for each other, and fail together."""
        result, failure = _attempt(work)
        failures = gather_object([failure]) if self._in_step else [failure]
        for error in failures:
            if error is not None:
                raise error
        return cast(T, result)

    def _from_first(self, work: Callable[[], T]) -> T:
        """What the first of the processes finds that share one vLLM; without others, what this one finds."""
        if self._sharers == 1:
            return self._together(work)
        outcome = _attempt(work) if self._rank == 0 else (None, None)
        result, failure = gather_object([outcome])[0]
        if failure is not None:
            raise failure
        return cast(T, result)

    @property
    def _stamp(self) -> str:
        """Name of the weights that were sent last; processes that share one vLLM have the same."""
        return f"{self._run}:{self._loads}"

    def _check(self, backend: Backend, base: Any) -> None:
        facts = backend.facts()
        config = base.config.get_text_config()
        served = {"model_type": facts.model_type, **facts.sizes}
        for name, there in served.items():
            here = getattr(config, name, None)
            if here != there:
                raise ConfigError(
                    f"vLLM serves a model with {name} {there!r}, but the trained model has {here!r}; start it with the "
                    "model that is trained"
                )
        either = not self._sampling.truncates and self._sampling.temperature == 1.0
        if facts.logprobs_mode != self._mode and not (either and facts.logprobs_mode == "raw_logprobs"):
            raise ConfigError(
                f"vLLM returns {facts.logprobs_mode}, but this sampling needs {self._mode}; start it with "
                f"--logprobs-mode {self._mode}"
            )
        if facts.max_model_len <= self._sampling.max_new_tokens:
            raise ConfigError(
                f"vLLM takes {facts.max_model_len} tokens, which leaves no room for a prompt before "
                f"{self._sampling.max_new_tokens} response tokens; raise vllm_max_model_length, or --max-model-len of "
                "the server"
            )
        self._max_model_len = facts.max_model_len


def _attempt(work: Callable[[], T]) -> tuple[T | None, MagnetarError | None]:
    try:
        return work(), None
    except (RolloutError, ConfigError, ModelError) as error:
        return None, error
    except (ValueError, TypeError):  # a mistake of the caller, who should see it as it is
        raise
    except Exception as error:  # out of memory, say: the others, who wait, must hear of it
        told = RolloutError(f"vLLM could not be used: {type(error).__name__}: {error}")
        told.__cause__ = error
        return None, told


def _tensors(weights: list[EngineWeight]) -> Iterator[tuple[str, Tensor]]:
    for weight in weights:
        yield weight.name, weight.make().detach()


@contextmanager
def _plain_arithmetic() -> Iterator[None]:
    """No mixed precision of the trainer around vLLM or the merging of adapters."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        if torch.cuda.is_available():
            with torch.autocast("cuda", enabled=False):
                yield
        else:
            yield


def _check(prompt_ids: list[list[int]], group_size: int, seeds: Sequence[int], longest: int) -> None:
    check_request(prompt_ids, group_size, seeds)
    for b, prompt in enumerate(prompt_ids):
        if len(prompt) > longest:
            raise RolloutError(
                f"prompt {b} has {len(prompt)} tokens, and vLLM has room for {longest} before the response; raise "
                "vllm_max_model_length (--max-model-len of a server) or lower max_prompt_length"
            )
