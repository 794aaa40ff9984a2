"""Judges in TRL's trainers, and TRL's reward functions as judges."""

from magnetar.interop.grpo import GroupReward, grpo_reward
from magnetar.interop.reward_judge import RewardFunctionJudge

__all__ = ["GroupReward", "RewardFunctionJudge", "grpo_reward"]
