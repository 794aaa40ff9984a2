"""A tiny language model that always answers with A or B and then stops; which of them depends on all that it reads."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTROL = ("<|pad|>", "<|end|>", "<|start|>", "<|unk|>")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter."""
    letters = [chr(at) for at in range(32, 127)] + ["\n", "‹", "›", "⁅", "…", "é"]
    vocabulary = {token: at for at, token in enumerate((*CONTROL, *letters))}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<|unk|>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    inner.decoder = decoders.Fuse()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        unk_token="<|unk|>",
        additional_special_tokens=["<|start|>"],
        chat_template=TEMPLATE,
        model_max_length=8192,
    )


def verdict_model(tokenizer: Any, *, chatter: float = 0.0) -> LlamaForCausalLM:
    """A random Llama whose head knows A, B and the end only.

    ``chatter`` adds a logit for the letter z, so that the choices get less of the mass.
    """
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=8192,
            initializer_range=0.2,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
        model = LlamaForCausalLM(config).eval()
        ids: Any = tokenizer.convert_tokens_to_ids(["A", "B", "z"])
        a, b, z = ids
        with torch.no_grad():
            # The last dimension says "an answer was given"; the first of them is always on.
            embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
            embedding[:, 31] = 0.0
            embedding[:, 0] = 2.0
            embedding[[a, b], 31] = 40.0
            layers: Any = model.model.layers
            for layer in layers:
                for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
                    last.weight[31] = 0.0
                    last.weight[0] = 0.0
                # Attention that picks out single letters rather than their mean, so that every text reads differently.
                layer.self_attn.q_proj.weight *= 4.0
                layer.self_attn.k_proj.weight *= 4.0
            direction = _splitting_direction(model, tokenizer)
            head.zero_()
            # Far above all other tokens, wherever the text stops.
            head[a], head[b] = direction, -direction
            head[a, 0] = head[b, 0] = 6.0
            head[a, 31] = head[b, 31] = -10.0
            head[z, 0] = chatter
            head[tokenizer.eos_token_id, 31] = 10.0
    return model


def _splitting_direction(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Direction in which the last state varies most from text to text, without what all texts have in common."""
    states = []
    for at in range(24):
        ids: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Response A:\n{at * at} apples\nResponse B:\n{at} pears. A or B?"}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        states.append(model.model(**ids).last_hidden_state[0, -1])
    table = torch.stack(states)
    table[:, [0, 31]] = 0.0
    mean = table.mean(0)
    _, spread, directions = torch.linalg.svd(table - mean)
    direction = directions[0] - mean * (directions[0] @ mean) / (mean @ mean)
    return direction * (2.0 * len(table) ** 0.5 / spread[0])


def save_verdict_model(folder: Path, *, chatter: float = 0.0) -> str:
    tokenizer = letter_tokenizer()
    model = verdict_model(tokenizer, chatter=chatter)
    assert model.generation_config is not None
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
