"""Judges around judges."""

from magnetar.judges.wrappers.cache import Cached
from magnetar.judges.wrappers.flipped import Flipped
from magnetar.judges.wrappers.pace import Batched, RateLimited
from magnetar.judges.wrappers.record import Recorded
from magnetar.judges.wrappers.symmetrized import Symmetrized

__all__ = ["Batched", "Cached", "Flipped", "RateLimited", "Recorded", "Symmetrized"]
