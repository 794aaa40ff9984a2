"""How a batch is cut up and ordered must not change what is learnt from it, whatever the method."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import GAME, TRAINABLE, assert_close, make_trainer, metrics_without_times, snapshot, updates_of
from torch import nn

from magnetar.rollout import Rollouts, SamplingParams, TransformersEngine

# Two updates of two optimiser steps or more: every term of the loss is at work, the magnet is not the policy.
BASE: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_generations": 5,
    "optim": "sgd",
    "learning_rate": 0.5,
    "max_grad_norm": 0.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "mpo-exact": {"method": "mpo", "kl_estimator": "exact"},
    "mpo_rt-clip": {"method": "mpo_rt", "proximal": "clip", "clip_range": 0.05},
    "mpo-reference": {"method": "mpo", "opponent": "reference", "num_opponents": 3},
    "mpo-regression": {"method": "mpo", "loss": "regression"},
    "egpo-regression": {"method": "egpo", "loss": "regression"},
    "iterative_dpo-all": {"method": "iterative_dpo", "pairs": "all", "hard_labels": False},
}
EACH: dict[str, dict[str, Any]] = {name: {"method": name} for name in TRAINABLE} | VARIANTS
CUTS: dict[str, dict[str, Any]] = {
    "tiny passes": {"max_tokens_per_pass": 8},
    "eight steps of accumulation": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "padded rows": {"logprob_layout": "padded"},
    "padded rows in tiny passes": {"logprob_layout": "padded", "max_tokens_per_pass": 8},
    "a few responses generated at a time": {"max_responses_per_pass": 3},
}
ALL_CUTS = {"mpo-exact", "mpo-reference"}  # by default; the others are as long again


class Reversing:
    """The usual engine, its groups in reverse order."""

    def __init__(self) -> None:
        self.engine = TransformersEngine(cast(Any, GAME.tokenizer), SamplingParams(3))

    def generate(self, *args: Any) -> Rollouts:
        return reverse(self.engine.generate(*args))

    def generate_mixture(self, *args: Any) -> Rollouts:
        return reverse(self.engine.generate_mixture(*args))


def reverse(rollouts: Rollouts) -> Rollouts:
    return replace(
        rollouts,
        response_ids=[group[::-1] for group in rollouts.response_ids],
        texts=[group[::-1] for group in rollouts.texts],
        sampling_logp=[group[::-1] for group in rollouts.sampling_logp],
        truncated_BG=rollouts.truncated_BG[:, ::-1].copy(),
    )


def float64_model() -> nn.Module:
    """The tiny model in float64 throughout: transformers' norms compute in float32 whatever the weights are."""
    model = GAME.model(0, dtype=torch.float64)
    norms = [name for name, module in model.named_modules() if type(module).__name__ == "LlamaRMSNorm"]
    for name in norms:
        old = model.get_submodule(name)
        new = nn.RMSNorm(GAME.model().config.hidden_size, eps=1e-6, dtype=torch.float64)
        new.load_state_dict(old.state_dict())
        model.set_submodule(name, new)
    assert norms
    return model


def train(folder: Path, method: str, *, reverse_prompts: bool = False, **settings: Any) -> dict[str, torch.Tensor]:
    counted = updates_of(method, updates=2, inner_epochs=2)
    trainer = make_trainer(folder, model=float64_model(), method=method, **(BASE | counted | settings))
    assert trainer.passes.layout == settings.get("logprob_layout", "packed")
    if reverse_prompts:
        trainer.data_collator = cast(Any, lambda rows: list(rows)[::-1])
    start = trainer.roles.current.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    trainer.train()
    end = trainer.roles.current.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    assert float((end - start).abs().max()) > 1e-4  # something was learnt, so that equality means something
    return snapshot(trainer)


def assert_same_metrics(folder: Path, whole: Path, cut: str) -> None:
    for row, other in zip(metrics_without_times(folder), metrics_without_times(whole), strict=True):
        assert row.keys() == other.keys()
        for name in row:
            if not name.startswith("judge/"):  # counted for each question to the judge
                assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-8), (cut, name)


@pytest.mark.parametrize("name", EACH)
def test_weights_do_not_depend_on_cuts_and_order_taken_together(tmp_path: Path, name: str) -> None:
    """Every cut and every order at once: the cheapest run that would show that any one of them matters."""
    whole = train(tmp_path / "whole", **EACH[name])
    # 4 × 2 prompts in reverse order, in padded passes of a few responses each, the groups in reverse order.
    cut = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_tokens_per_pass": 8}
    other = train(
        tmp_path / "cut",
        reverse_prompts=True,
        rollout_engine=Reversing(),
        logprob_layout="padded",
        **(EACH[name] | cut),
    )
    assert_close(other, whole, 1e-9)
    assert_same_metrics(tmp_path / "cut", tmp_path / "whole", "all together")


@pytest.mark.parametrize(
    "name", [name if name in ALL_CUTS else pytest.param(name, marks=pytest.mark.slow) for name in EACH]
)
def test_weights_do_not_depend_on_how_the_batch_is_cut(tmp_path: Path, name: str) -> None:
    whole = train(tmp_path / "whole", **EACH[name])
    for number, (cut, settings) in enumerate(CUTS.items()):
        folder = tmp_path / str(number)
        assert_close(train(folder, **(EACH[name] | settings)), whole, 1e-9)
        assert_same_metrics(folder, tmp_path / "whole", cut)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in EACH])
def test_weights_do_not_depend_on_the_order_of_responses_or_prompts(tmp_path: Path, name: str) -> None:
    whole = train(tmp_path / "whole", **EACH[name])
    assert_close(train(tmp_path / "responses", rollout_engine=Reversing(), **EACH[name]), whole, 1e-9)
    assert_close(train(tmp_path / "prompts", reverse_prompts=True, **EACH[name]), whole, 1e-9)
