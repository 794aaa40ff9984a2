"""The small enumerable model of these tests: its next-token tables by plain passes, and gradients of a trainer."""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from magnetar.evaluation.enumerable import PROMPT, EnumerableGame
from magnetar.training import NashTrainer

GAME = EnumerableGame.build(num_words=3, max_new_tokens=3)


def row(trainer: NashTrainer, position: int = 0) -> dict[str, Any]:
    return {**trainer.train_dataset[0], "position": position}  # type: ignore[index]


def perturb(trainer: NashTrainer, seed: int, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainer.roles.current.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=scale)


def flat_gradient(trainer: NashTrainer) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    return torch.cat([(p.grad if p.grad is not None else zero.expand(p.shape)).flatten() for p in _parameters(trainer)])


def _parameters(trainer: NashTrainer) -> list[Tensor]:
    return [p for p in trainer.roles.current.parameters() if p.requires_grad]


def next_token_tables(model: Any) -> dict[tuple[int, ...], Tensor]:
    """log π(·|prefix) for every prefix that can be continued, one plain forward pass each: no packing, no hooks."""
    prompt = GAME.tokenizer(PROMPT)["input_ids"]
    words = range(1, len(GAME.tokenizer))
    prefixes = [p for n in range(GAME.max_new_tokens) for p in product(words, repeat=n)]
    return {p: model(torch.tensor([[*prompt, *p]])).logits[0, -1].log_softmax(-1) for p in prefixes}


def sum_of_logs(tables: dict[tuple[int, ...], Tensor], tokens: tuple[int, ...]) -> Tensor:
    terms = [tables[tokens[:k]][tokens[k]] for k in range(len(tokens))]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)
