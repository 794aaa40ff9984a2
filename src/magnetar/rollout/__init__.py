"""Sampling responses: one protocol, several engines."""

from magnetar.rollout.base import MixtureEngine, MixtureMember, RolloutEngine, Rollouts, SamplingParams
from magnetar.rollout.transformers_engine import TransformersEngine

__all__ = ["MixtureEngine", "MixtureMember", "RolloutEngine", "Rollouts", "SamplingParams", "TransformersEngine"]
