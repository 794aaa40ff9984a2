"""Tiny classifiers with random weights, of many families, and a tokenizer of whole words."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    ModernBertConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<bos>{{ m['role'] }} : {{ m['content'] }} <eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant :{% endif %}"
)
WORDS = ["user", "assistant", "system", ":", "ask", "what", "is", "the", "best", "answer", *"abcdefgh", ".", "!", "?"]
WORDS += ["one", "two", "three", "four", "five", "six"]

SIZES: dict[str, Any] = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
)
GQA: dict[str, Any] = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
EAGER: dict[str, Any] = {"attn_implementation": "eager"}
SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 3}

DECODERS: dict[str, Any] = {
    "llama": lambda **more: LlamaConfig(**GQA, **more),
    "llama_eager": lambda **more: LlamaConfig(**GQA, **EAGER, **more),
    "qwen2": lambda **more: Qwen2Config(**SIZES, num_key_value_heads=2, **more),
    "qwen3": lambda **more: Qwen3Config(**GQA, **more),
    "gemma": lambda **more: GemmaConfig(**GQA, **more),
    "gemma2": lambda **more: Gemma2Config(**GQA, **SLIDING, **EAGER, **more),
    "gemma3": lambda **more: Gemma3TextConfig(**GQA, **SLIDING, **more),
    "gpt2": lambda **more: GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **more),
    "mistral": lambda **more: MistralConfig(**GQA, sliding_window=3, **more),
}
ENCODERS: dict[str, Any] = {
    "bert": lambda **more: BertConfig(**SIZES, **more),
    "roberta": lambda **more: RobertaConfig(**SIZES, **more),
    "modernbert": lambda **more: ModernBertConfig(**SIZES, local_attention=4, **more),
}


def make_tokenizer(*, chat: bool, pad: bool = True, cls: bool = False) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<bos>", "<eos>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if cls:
        core.post_processor = processors.TemplateProcessing(
            single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
        )
    special = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>"} | (
        {"pad_token": "<pad>"} if pad else {}
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **special)
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(kind: str, tokenizer: PreTrainedTokenizerFast, labels: int = 1, **settings: Any) -> Any:
    torch.manual_seed(7)
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": 2, "eos_token_id": 3}
    config = (DECODERS | ENCODERS)[kind](vocab_size=len(tokenizer), num_labels=labels, **ids, **settings)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                # Larger than the usual start, so that scores differ visibly; norms stay as they are.
                parameter.normal_(std=0.5)
    return model.eval()


def logit_of(model: Any, ids: list[int]) -> np.ndarray:
    """The model's own answer for one sequence, without padding."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double().numpy()
