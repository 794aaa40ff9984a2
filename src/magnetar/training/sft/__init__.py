"""Supervised fine-tuning: TRL's trainer, with checkpoints that are complete or not there."""

from magnetar.training.sft.config import SupervisedConfig
from magnetar.training.sft.trainer import SupervisedTrainer

__all__ = ["SupervisedConfig", "SupervisedTrainer"]
