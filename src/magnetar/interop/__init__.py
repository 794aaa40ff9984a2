"""Judges in TRL's trainers, and TRL's reward functions as judges."""

from magnetar.interop.grpo import GroupReward, group_payoffs, grpo_reward
from magnetar.interop.reward_judge import RewardFunctionJudge

__all__ = ["GroupReward", "RewardFunctionJudge", "group_payoffs", "grpo_reward"]
