"""Training by self-play: `NashTrainer` and its settings."""

from magnetar.training.callbacks import TrainingInterrupted
from magnetar.training.config import NashConfig
from magnetar.training.trainer import NashTrainer

__all__ = ["NashConfig", "NashTrainer", "TrainingInterrupted"]
