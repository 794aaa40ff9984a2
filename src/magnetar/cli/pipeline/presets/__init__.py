"""Configurations that come with Magnetar."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from magnetar.errors import ConfigError, unknown_name

__all__ = ["PRESETS", "preset_file"]

PRESETS: Mapping[str, str] = MappingProxyType(
    {
        "paper_safety": "safety alignment of arXiv:2410.16714, section 5: Alpaca, PKU-SafeRLHF, HH-harmless, by names",
        "paper_general": "general ability of arXiv:2410.16714, section 5: OpenHermes, a mixture of 700 k preferences",
        "small_safety": "the same stages at the size of one core: the embedded model, on files that you name",
    }
)
"""Name → what it is."""


def preset_file(name: str) -> Path:
    """The file of a preset.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(unknown_name("preset", name, PRESETS))
    return Path(__file__).parent / f"{name}.yaml"
