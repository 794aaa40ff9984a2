"""How long a run is: its updates, the rounds that they are split into, and the bar that counts them."""

from collections.abc import Iterable

from magnetar.errors import ConfigError, checked_integer

__all__ = ["check_length", "counted", "round_ends"]


def check_length(updates: int, rounds: int) -> None:
    """Refuse a run of fewer than no updates, or of more rounds than updates.

    Raises:
        ConfigError: Names the value and what was expected.
    """
    checked_integer("updates", updates, 0)
    if checked_integer("rounds", rounds, 1) > max(updates, 1):
        raise ConfigError(f"rounds is {rounds}, expected between 1 and the number of updates ({updates})")


def round_ends(updates: int, rounds: int) -> set[int]:
    """Numbers of the updates that end a round; the rounds are as even as they can be."""
    return {(r * updates) // rounds for r in range(1, rounds + 1)}


def counted(updates: int, progress: bool, label: str = "games", leave: bool = True) -> Iterable[int]:
    """1 … ``updates``, with a progress bar on stderr if wanted, which stays there at the end if ``leave``."""
    if not progress:
        return range(1, updates + 1)
    from tqdm import tqdm

    return tqdm(range(1, updates + 1), desc=label, unit="update", leave=leave)
