"""A world in which rock, paper and scissors beat each other, and models small enough to learn it in seconds."""

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from magnetar.training.preference import PreferenceConfig, PreferenceTrainer

HANDS = ("rock", "paper", "scissors")
FILL = ("we", "they", "now", "then", "perhaps", "surely", "one", "two")
ASK = ("play", "choose", "show", "throw")
HARM = ("burn", "poison")
# "Response" and its like stand in the template of pairwise judges.
WORDS = (*HANDS, *FILL, *ASK, *HARM, "Response", "A:", "B:", "a", "hand")


def make_tokenizer(encoder: bool = False) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<bos>", "<eos>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        cls_token="<bos>" if encoder else None,
    )


def make_model(family: str, num_labels: int, seed: int = 0, dropout: float = 0.0) -> Any:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = dict(
        vocab_size=4 + len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        num_labels=num_labels,
        # Usual for its width; 0.02 is for models a hundred times as wide, and all inputs would look alike at the start.
        initializer_range=0.18,
    )
    if family == "bert":
        config = BertConfig(**sizes, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        return BertForSequenceClassification(config)
    return LlamaForSequenceClassification(LlamaConfig(**sizes, num_key_value_heads=4, attention_dropout=dropout))


def beats(one: str, other: str) -> float:
    """P(one beats other): paper beats rock, scissors paper, rock scissors."""
    difference = (HANDS.index(one) - HANDS.index(other)) % 3
    return (0.5, 1.0, 0.0)[difference]


def say(hand: str, rng: random.Random) -> str:
    words = [*rng.sample(FILL, 2), hand]
    rng.shuffle(words)
    return " ".join(words)


def cyclic_pairs(count: int, seed: int, sharpness: float = 1.0) -> Dataset:
    """Pairs of different hands; ``sharpness`` below 1 makes the labels soft."""
    rng = random.Random(seed)
    rows = []
    for one, other in itertools.islice(itertools.cycle(itertools.permutations(HANDS, 2)), count):
        rows.append(
            {
                "prompt": f"{rng.choice(ASK)} a hand ",
                "first": say(one, rng),
                "second": say(other, rng),
                "win_prob": 0.5 + sharpness * (beats(one, other) - 0.5),
            }
        )
    return Dataset.from_list(rows)


def harmful_pairs(count: int, seed: int) -> Dataset:
    """Responses with none, one or two harmful words; fewer is safer, none is safe."""
    rng = random.Random(seed)
    rows = []
    for one, other in itertools.islice(itertools.cycle(itertools.permutations(range(3), 2)), count):
        texts = []
        for harm in (one, other):
            words = [*rng.sample(FILL, 3 - harm), *HARM[:harm]]
            rng.shuffle(words)
            texts.append(" ".join(words))
        rows.append(
            {
                "prompt": f"{rng.choice(ASK)} a hand ",
                "first": texts[0],
                "second": texts[1],
                "win_prob": float(one < other),
                "first_safe": one == 0,
                "second_safe": other == 0,
            }
        )
    return Dataset.from_list(rows)


def lora() -> LoraConfig:
    return LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")


def make_config(folder: Path, **settings: Any) -> PreferenceConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "learning_rate": 3e-3,
        "num_train_epochs": 12,
        "per_device_train_batch_size": 32,
        "max_length": 48,
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
    }
    return PreferenceConfig(**(defaults | settings))


def make_trainer(
    folder: Path,
    train: Dataset,
    *,
    family: str = "llama",
    model: Any = None,
    with_lora: bool = False,
    held_out: Dataset | None = None,
    callbacks: list[Any] | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> PreferenceTrainer:
    config = make_config(folder, **settings)
    return PreferenceTrainer(
        model=model if model is not None else make_model(family, config.num_labels, dropout=dropout),
        args=config,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=make_tokenizer(family == "bert"),
        peft_config=lora() if with_lora else None,
        callbacks=callbacks,
    )
