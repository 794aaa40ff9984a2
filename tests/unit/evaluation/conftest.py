"""A tiny random model with a tokenizer of words, and a judge that counts letters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from magnetar.judges import Judge

WORDS = ["[unk]", "</s>", *"abcdefghijklmn"]


class MoreLettersWins(Judge):
    """A judge whose answers can be computed by hand: the response with more characters wins, equals tie."""

    name = "letters"

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        return np.array([0.5 + 0.5 * np.sign(len(a) - len(b)) for a, b in zip(first, second, strict=True)])


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="</s>")


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(WORDS),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                initializer_range=0.3,
                bos_token_id=None,
                eos_token_id=1,
                pad_token_id=1,
            )
        ).eval()


@pytest.fixture
def judge() -> Judge:
    return MoreLettersWins()


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
