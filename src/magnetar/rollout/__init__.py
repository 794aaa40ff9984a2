"""Sampling responses: one protocol, several engines."""

from magnetar.rollout.base import RolloutEngine, Rollouts, SamplingParams
from magnetar.rollout.transformers_engine import TransformersEngine

__all__ = ["RolloutEngine", "Rollouts", "SamplingParams", "TransformersEngine"]
