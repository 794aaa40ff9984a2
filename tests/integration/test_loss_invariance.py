"""How a batch is cut up must not change what is learnt from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import GAME, assert_close, make_trainer, metrics_without_times, snapshot
from torch import nn

from magnetar.rollout import Rollouts, SamplingParams, TransformersEngine

# Two updates of two optimiser steps: every term of the loss is at work, the magnet is not the policy.
BASE: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "max_steps": 4,
    "inner_epochs": 2,
    "magnet_every": 5,
    "num_generations": 5,
    "optim": "sgd",
    "learning_rate": 0.5,
    "max_grad_norm": 0.0,
}
METHODS: dict[str, dict[str, Any]] = {
    "mpo-sampled": {"method": "mpo", "kl_estimator": "sampled"},
    "mpo-exact": {"method": "mpo", "kl_estimator": "exact"},
    "mpo_rt-clip": {"method": "mpo_rt", "proximal": "clip", "clip_range": 0.05},
    "mpo-reference": {"method": "mpo", "opponent": "reference", "num_opponents": 3},
}
CUTS: dict[str, dict[str, Any]] = {
    "tiny passes": {"max_tokens_per_pass": 8},
    "eight steps of accumulation": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "padded rows": {"logprob_layout": "padded"},
    "padded rows in tiny passes": {"logprob_layout": "padded", "max_tokens_per_pass": 8},
    "a few responses generated at a time": {"max_responses_per_pass": 3},
}


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


def train(folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    trainer = make_trainer(folder, model=float64_model(), **(BASE | settings))
    assert trainer.passes.layout == settings.get("logprob_layout", "packed")
    start = trainer.roles.current.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone()
    trainer.train()
    end = trainer.roles.current.state_dict()["model.layers.0.self_attn.q_proj.weight"]
    assert float((end - start).abs().max()) > 1e-4  # something was learnt, so that equality means something
    return snapshot(trainer)


@pytest.mark.parametrize("method", METHODS)
def test_weights_do_not_depend_on_how_the_batch_is_cut(tmp_path: Path, method: str) -> None:
    whole = train(tmp_path / "whole", **METHODS[method])
    expected = metrics_without_times(tmp_path / "whole")
    for number, (cut, settings) in enumerate(CUTS.items()):
        folder = tmp_path / str(number)
        assert_close(train(folder, **(METHODS[method] | settings)), whole, 1e-9)
        for row, other in zip(metrics_without_times(folder), expected, strict=True):
            assert row.keys() == other.keys()
            for name in row:
                if not name.startswith("judge/"):  # counted for each question to the judge
                    assert row[name] == pytest.approx(other[name], rel=1e-6, abs=1e-8), (cut, name)


class Reversing:
    """The usual engine, its groups in reverse order."""

    def __init__(self) -> None:
        self.engine = TransformersEngine(cast(Any, GAME.tokenizer), SamplingParams(3))

    def generate(self, *args: Any) -> Rollouts:
        rollouts = self.engine.generate(*args)
        return replace(
            rollouts,
            response_ids=[group[::-1] for group in rollouts.response_ids],
            texts=[group[::-1] for group in rollouts.texts],
            sampling_logp=[group[::-1] for group in rollouts.sampling_logp],
            truncated_BG=rollouts.truncated_BG[:, ::-1].copy(),
        )


def test_weights_do_not_depend_on_the_order_of_responses(tmp_path: Path) -> None:
    forwards = train(tmp_path / "forwards")
    backwards = train(tmp_path / "backwards", rollout_engine=Reversing())
    assert_close(forwards, backwards, 1e-9)
