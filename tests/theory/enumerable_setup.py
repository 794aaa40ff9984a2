"""A live trainer on the enumerable model with four different policies in its four roles."""

from itertools import product
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from magnetar.evaluation.enumerable import PROMPT, EnumerableGame
from magnetar.training import NashConfig, NashTrainer
from magnetar.training.experience import Experience

GAME = EnumerableGame.build(num_words=3, max_new_tokens=3)


def trainer_with_distinct_roles(
    folder: Path, *, sampled: bool = False, group: int = 8, **settings: Any
) -> tuple[NashTrainer, Experience]:
    """Reference = magnet, behaviour π_k and current π_θ all different; experience collected with π_k."""
    args = NashConfig(
        output_dir=str(folder),
        inner_epochs=2,
        max_steps=2,
        num_generations=group if sampled else len(GAME.responses),
        max_completion_length=GAME.max_new_tokens,
        per_device_train_batch_size=1,
        max_tokens_per_pass=100_000,
        disable_tqdm=True,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        **settings,
    )
    trainer = NashTrainer(
        model=GAME.model(seed=1, skew=1.0, dtype=torch.float64),
        judge=GAME.judge(),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [PROMPT]}),
        processing_class=GAME.tokenizer,
        rollout_engine=None if sampled else GAME.engine(),
    )
    perturb(trainer, seed=2)  # magnet and reference stay behind
    experience = trainer._experience_for([row(trainer)])
    perturb(trainer, seed=3)  # θ ≠ θ_k: importance ratios matter
    trainer.state.global_step = 1  # the second inner epoch of the first update
    return trainer, experience


def row(trainer: NashTrainer, position: int = 0) -> dict[str, Any]:
    return {**trainer.train_dataset[0], "position": position}  # type: ignore[index]


def perturb(trainer: NashTrainer, seed: int, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainer.roles.current.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=scale)


def loss_gradient(trainer: NashTrainer, experience: Experience) -> Tensor:
    model = trainer.roles.current
    model.zero_grad()
    trainer.compute_loss(model, {"experience": experience, "part": [0]}).backward()
    return flat_gradient(trainer)


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


def exact_loss(trainer: NashTrainer, *, step_size: float, strength: float, transformed: bool) -> Tensor:
    """The formula of the paper over whole distributions, by recursion over the tree of prefixes.

    ``Σ_s d_k(s) [ −Σ_a π_θ(a|s) Q_k(s, a) + α KL(π_θ‖ρ) + KL(π_θ‖π_k)/η ]`` where d_k is the probability of reaching
    s and Q_k the expected return of a at s, under π_k. With the reward transformation α log(π_k/ρ) is charged to the
    return, and the loss has no magnet term.
    """
    with torch.no_grad():
        with trainer.roles.use("magnet") as model:
            magnet = next_token_tables(model)
        with trainer.roles.use("behavior") as model:
            behavior = next_token_tables(model)
    current = next_token_tables(trainer.roles.current)
    index = {tuple(tokens): k for k, tokens in enumerate(GAME.responses)}
    policy_A = torch.stack([sum_of_logs(behavior, tuple(tokens)) for tokens in GAME.responses]).exp()
    advantage_A = torch.tensor(GAME.game.P) @ policy_A - 0.5

    def returns(prefix: tuple[int, ...]) -> Tensor:
        """Q_k(prefix, ·), shape (V,)."""
        values = []
        for token in range(len(GAME.tokenizer)):
            after = (*prefix, token)
            ended = after in index
            value = advantage_A[index[after]] if ended else (behavior[after].exp() * returns(after)).sum()
            if transformed:
                value = value - strength * (behavior[prefix][token] - magnet[prefix][token])
            values.append(value)
        return torch.stack(values)

    total = torch.zeros((), dtype=torch.float64)
    for prefix, logp in current.items():
        reach = sum_of_logs(behavior, prefix).exp()
        loss = -(logp.exp() * returns(prefix)).sum()
        loss = loss + (logp.exp() * (logp - behavior[prefix])).sum() / step_size
        if not transformed:
            loss = loss + strength * (logp.exp() * (logp - magnet[prefix])).sum()
        total = total + reach * loss
    return total


def sum_of_logs(tables: dict[tuple[int, ...], Tensor], tokens: tuple[int, ...]) -> Tensor:
    terms = [tables[tokens[:k]][tokens[k]] for k in range(len(tokens))]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)
