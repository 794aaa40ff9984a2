"""Tiny random models of the architectures that the library promises to handle."""

from collections.abc import Callable

import pytest
from transformers import PreTrainedModel

from tiny_models import build


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """`tiny(kind, attention, dtype)` builds a tiny model."""
    return build
