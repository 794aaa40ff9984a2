"""A folder in which the documentation's code runs as it stands: small stand-ins under the names that it uses."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import torch
from documented_pages import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

__all__ = ["MODEL", "build_workshop"]

MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
POLICIES = (MODEL, "runs/start")
REWARD_MODELS = ("my-org/my-reward-model", "my-org/another")
GENERAL_MODELS = ("runs/general", "runs/judge", "my-judge")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = ["Why does it rain?", "Name a colour.", "How do I fall asleep?", "What is a magnet?"]
ANSWERS = ["Because of the clouds.", "Red, please.", "Count sheep and be patient, it helps.", "I do not know."]

MY_JUDGES = '''
def politer(prompts, first, second):
    """Win probability of the first: who says please more often."""

    def count(text):
        return text.lower().count("please")

    return [0.5 + 0.4 * (count(a) > count(b)) - 0.4 * (count(a) < count(b)) for a, b in zip(first, second)]


def shorter(prompts, responses):
    """Score: shorter responses are better."""
    return [-len(response.split()) for response in responses]


score = shorter
win_prob = politer
'''


def build_workshop(folder: Path) -> Path:
    """Make the folder.

    Args:
        folder: An empty one.

    Returns:
        The working directory of the code, a folder in it: paths such as `../shared/data` lead to stand-ins too.
    """
    work = folder / "work"
    work.mkdir()
    for name in ("examples", "benchmarks"):
        (work / name).symlink_to(ROOT / name)
    tokenizer = _tokenizer()
    for index, name in enumerate(POLICIES):
        _save(LlamaForCausalLM(_config(tokenizer)), tokenizer, work / name, seed=index)
    for index, name in enumerate(REWARD_MODELS):
        _save(LlamaForSequenceClassification(_config(tokenizer, num_labels=1)), tokenizer, work / name, seed=index)
    for index, name in enumerate(GENERAL_MODELS):
        model = LlamaForSequenceClassification(_config(tokenizer, num_labels=4))
        _save(model, tokenizer, work / name, seed=index)
    _write_data(work)
    (work / "my_judges.py").write_text(MY_JUDGES, encoding="utf-8")
    return work


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, so that it reads everything."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {letter: index for index, letter in enumerate([*special, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _config(tokenizer: PreTrainedTokenizerFast, **more: Any) -> LlamaConfig:
    special: Any = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=None,
        **special,
        **more,
    )


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_data(work: Path) -> None:
    asked = [*ASKED, *(f"{text} Explain it to a child." for text in ASKED)]
    _write_lines(work / "prompts.jsonl", [{"prompt": [{"role": "user", "content": text}]} for text in asked])
    _write_lines(work / "held_out_prompts.jsonl", [{"prompt": f"{text} Say it briefly."} for text in ASKED])
    pairs = [
        {"prompt": text, "chosen": ANSWERS[index], "rejected": ANSWERS[(index + shift) % 4]}
        for index, text in enumerate(ASKED)
        for shift in (1, 2, 3)
    ]
    _write_lines(work / "pairs.jsonl", pairs)
    _write_lines(work / "held_out.jsonl", pairs[:6])
    shared = work.parent / "shared" / "data"
    shared.mkdir(parents=True)
    _write_lines(shared / "hh_harmless_pairs.jsonl.gz", pairs * 17)
    judged = [
        {"prompt": text, "generator_1": a, "generator_2": b, "win_prob_1": chance}
        for text in ASKED
        for a, b, chance in (("x", "y", 0.7), ("y", "z", 0.6), ("z", "x", 0.8))
    ]
    _write_lines(work / "pairs.jsonl.gz", judged * 10)
    with (work / "my_game.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[0.5, 0.7, 0.4], [0.3, 0.5, 0.9], [0.6, 0.1, 0.5]])


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
