"""Magnetar: Nash learning from human feedback.

Subpackages are imported on demand, so that ``import magnetar.games`` stays light: it never loads transformers.
"""

from importlib.metadata import version

__version__ = version("magnetar")
