"""Sampling responses: one protocol, several engines."""

from magnetar.rollout.base import (
    HoldingEngine,
    MixtureEngine,
    MixtureMember,
    RolloutEngine,
    Rollouts,
    SamplingParams,
    holding,
)
from magnetar.rollout.transformers_engine import TransformersEngine

__all__ = [
    "HoldingEngine",
    "MixtureEngine",
    "MixtureMember",
    "RolloutEngine",
    "Rollouts",
    "SamplingParams",
    "TransformersEngine",
    "holding",
]
