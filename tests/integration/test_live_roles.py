"""In a live run the roles differ from each other exactly when they should."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import GAME, make_trainer
from torch import Tensor
from transformers import TrainerCallback

from magnetar.modeling.logprobs import response_logprobs
from magnetar.training import NashTrainer

RESPONSES = [GAME.responses[1:6], GAME.responses[20:25]]
PROMPT_IDS = [[1, 2], [3, 4]]


def role_logp(trainer: NashTrainer, role: Any) -> Tensor:
    with torch.no_grad(), trainer.roles.use(role) as model:
        out = response_logprobs(model, PROMPT_IDS, RESPONSES, temperature=1.0, layout="padded", pad_token_id=0)
    return out.logp_BGT.clone()


class Watcher(TrainerCallback):
    """Log-probabilities of every role: as a step begins, as it sees them before the magnet moves, and after."""

    def __init__(self) -> None:
        self.trainer: NashTrainer
        self.begin: list[dict[str, Tensor]] = []
        self.stepped: list[dict[str, Tensor]] = []

    def look(self) -> dict[str, Tensor]:
        return {role: role_logp(self.trainer, role) for role in ("current", "magnet", "reference")}

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begin.append(self.look())

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.stepped.append(self.look())

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.begin.append(self.look())


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize(
    "settings",
    [{}, {"with_lora": True}, {"frozen_roles_on_cpu": True}, {"with_lora": True, "activation_checkpointing": True}],
    ids=["full", "lora", "frozen roles on the cpu", "lora with gradient checkpointing"],
)
def test_roles_differ_exactly_when_they_should(tmp_path: Path, settings: dict[str, Any]) -> None:
    watcher = Watcher()
    trainer = make_trainer(tmp_path, callbacks=[watcher], max_steps=5, magnet_every=2, **settings)
    watcher.trainer = trainer
    bare = GAME.model(0)
    trainer.train()
    assert trainer.magnet_moves == [2, 4]
    with torch.no_grad():
        start = response_logprobs(
            bare, PROMPT_IDS, RESPONSES, temperature=1.0, layout="padded", pad_token_id=0
        ).logp_BGT
    for role in ("current", "magnet", "reference"):
        assert gap(watcher.begin[0][role], start) < 1e-5, role
    for step in range(5):
        seen, after = watcher.stepped[step], watcher.begin[step + 1]
        assert gap(seen["reference"], start) < 1e-5
        assert gap(after["reference"], start) < 1e-5
        # Every step changes the policy, and the policy alone.
        assert gap(seen["current"], watcher.begin[step]["current"]) > 1e-4
        assert gap(seen["magnet"], watcher.begin[step]["magnet"]) == 0.0
        assert gap(seen["current"], seen["magnet"]) > 1e-4
        assert gap(after["current"], seen["current"]) == 0.0
        moved = step + 1 in trainer.magnet_moves
        assert (gap(after["magnet"], after["current"]) == 0.0) == moved
        assert (gap(after["magnet"], start) < 1e-5) == (step + 1 < 2)


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
def test_an_ema_magnet_trails_behind_the_policy(tmp_path: Path, with_lora: bool) -> None:
    watcher = Watcher()
    trainer = make_trainer(
        tmp_path, callbacks=[watcher], magnet_schedule="ema", magnet_ema_rate=0.5, max_steps=3, with_lora=with_lora
    )
    watcher.trainer = trainer
    trainer.train()
    for step in range(1, 4):
        seen = watcher.begin[step]
        assert gap(seen["magnet"], seen["current"]) > 1e-5
        assert gap(seen["magnet"], watcher.begin[step - 1]["magnet"]) > 1e-5
    assert trainer.magnet_moves == []


def test_only_the_policy_trains(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, with_lora=True, inner_epochs=2, kl_estimator="exact")
    trainer.train()
    adapters = {n: p for n, p in trainer.model.named_parameters() if "lora_" in n}  # type: ignore[union-attr]
    assert {n.split(".")[-2] for n in adapters} == {"default", "magnet", "behavior"}
    assert {n for n, p in adapters.items() if p.requires_grad} == {n for n in adapters if ".default." in n}
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}  # type: ignore[union-attr]
    assert optimised == {id(p) for p in adapters.values() if p.requires_grad}
