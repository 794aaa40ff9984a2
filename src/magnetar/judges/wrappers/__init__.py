"""Judges around judges."""

from magnetar.judges.wrappers.symmetrized import Symmetrized

__all__ = ["Symmetrized"]
