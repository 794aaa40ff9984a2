"""Training of preference models: the judges that a folder of weights holds."""

from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.preference.trainer import PreferenceTrainer

__all__ = ["PreferenceConfig", "PreferenceTrainer"]
