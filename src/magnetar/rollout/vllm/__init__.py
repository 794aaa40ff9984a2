"""Rollouts by vLLM, in the trainer's process or on a server; vLLM itself is loaded only when it starts."""

from magnetar.rollout.vllm.engine import VllmEngine, logprobs_mode
from magnetar.rollout.vllm.settings import ColocatedSettings, ServerSettings, server_command
from magnetar.rollout.vllm.start import vllm_engine

__all__ = ["ColocatedSettings", "ServerSettings", "VllmEngine", "logprobs_mode", "server_command", "vllm_engine"]
