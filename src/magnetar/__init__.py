"""Magnetar: Nash learning from human feedback.

Subpackages are imported on demand, so that ``import magnetar.games`` stays light: it never loads transformers.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from magnetar.training import NashConfig, NashTrainer

__all__ = ["NashConfig", "NashTrainer", "__version__"]

__version__ = version("magnetar")


def __getattr__(name: str) -> Any:
    """Import the trainer, and with it transformers, only when it is asked for."""
    if name in ("NashConfig", "NashTrainer"):
        return getattr(import_module("magnetar.training"), name)
    raise AttributeError(f"module 'magnetar' has no attribute {name!r}")
