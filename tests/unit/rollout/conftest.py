"""Tiny random models and a tokenizer that writes token numbers."""

from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import PreTrainedModel

import tiny_models

VOCABULARY = 41


def build(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny model with few tokens, so that samples meet each of them."""
    return tiny_models.build(kind, "eager" if kind == "gemma2" else "sdpa", dtype, VOCABULARY)


class NumberTokenizer:
    """Decodes token 7 as "7"; token 2 ends a response and is special."""

    eos_token_id = 2

    def batch_decode(self, sequences: Sequence[Sequence[int]], *, skip_special_tokens: bool = False) -> list[str]:
        """Turn tokens into texts."""
        return [" ".join(str(t) for t in row if not (skip_special_tokens and t == 2)) for row in sequences]


@pytest.fixture
def tiny() -> Callable[..., PreTrainedModel]:
    """`tiny(kind, dtype)` builds a tiny model."""
    return build


@pytest.fixture
def tokenizer() -> NumberTokenizer:
    """A tokenizer without files."""
    return NumberTokenizer()
