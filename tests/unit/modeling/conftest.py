"""Tiny random models of the architectures that the library promises to handle."""

from collections.abc import Callable

import pytest
from tiny_models import build
from transformers import PreTrainedModel


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """`tiny(kind, attention, dtype)` builds a tiny model."""
    return build
