"""Every mode of the trainer runs, and its random start belongs to the seed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import GAME, PROMPTS, assert_close, assert_identical, make_config, make_trainer, read_lines, snapshot

MODES: dict[str, dict[str, Any]] = {
    "activation checkpointing, full": {"activation_checkpointing": True},
    "activation checkpointing, lora": {"activation_checkpointing": True, "with_lora": True},
    "bfloat16 autocast": {"bf16": True},
    "bfloat16 autocast, lora, exact": {"bf16": True, "with_lora": True, "kl_estimator": "exact", "inner_epochs": 2},
    "against the reference": {"opponent": "reference"},
    "against the magnet": {"opponent": "magnet", "num_opponents": 2},
    "against the magnet, lora": {"opponent": "magnet", "with_lora": True},
    "one response against the reference": {"opponent": "reference", "num_generations": 1, "num_opponents": 4},
    "reward transformation, clip": {"method": "mpo_rt", "proximal": "clip", "inner_epochs": 2},
    "frozen roles on the cpu": {"frozen_roles_on_cpu": True, "kl_estimator": "exact", "inner_epochs": 2},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_trains(tmp_path: Path, mode: str) -> None:
    trainer = make_trainer(tmp_path, max_steps=4, magnet_every=1, **MODES[mode])
    before = snapshot_policy(trainer)
    trainer.train()
    after = snapshot_policy(trainer)
    assert any(not torch.equal(after[name], before[name]) for name in after)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in after.values())
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 4


def snapshot_policy(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.roles.current.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
def test_activation_checkpointing_changes_nothing_but_memory(tmp_path: Path, with_lora: bool) -> None:
    settings: dict[str, Any] = {"with_lora": with_lora, "kl_estimator": "exact", "inner_epochs": 2, "magnet_every": 1}
    settings |= {"optim": "sgd", "learning_rate": 0.5, "max_steps": 4}
    plain = make_trainer(tmp_path / "plain", **settings)
    plain.train()
    saving = make_trainer(tmp_path / "saving", activation_checkpointing=True, **settings)
    saving.train()
    assert_close(snapshot(plain), snapshot(saving), 1e-6)


@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
def test_a_run_is_a_function_of_its_seed(tmp_path: Path, with_lora: bool) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # what happened before must not matter, not even to an adapter's start
        trainer = make_trainer(tmp_path / str(number), seed=seed, max_steps=2, with_lora=with_lora)
        trainer.train()
        runs.append(snapshot(trainer))
    assert_identical(runs[0], runs[1])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_one_process_never_splits_prompts_over_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import Dataset

    from magnetar.training import NashTrainer

    args = make_config(tmp_path)
    args._n_gpu = 2  # as transformers sets it on a machine with two
    trainer = NashTrainer(
        model=GAME.model(),
        judge=GAME.judge(),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=GAME.tokenizer,
    )
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == trainer.plan.prompts_per_update
    assert "accelerate launch" in capsys.readouterr().out


def test_every_place_of_the_stream_and_every_role_draws_afresh(tmp_path: Path) -> None:
    asked: list[tuple[Any, Any]] = []

    class Recorder(type(GAME.judge())):
        def cross_win_prob(self, prompts: Any, responses: Any, opponents: Any) -> Any:
            asked.append((responses, opponents))
            return super().cross_win_prob(prompts, responses, opponents)

    settings: dict[str, Any] = {"opponent": "reference", "num_generations": 16, "max_steps": 2, "learning_rate": 0.0}
    make_trainer(tmp_path, judge=Recorder(GAME.texts, GAME.game.P), prompts=["rock well"], **settings).train()
    # One prompt, one policy: groups may differ only because each draws numbers of its own.
    groups = [tuple(group) for call in asked for side in call for group in side]
    assert len(groups) == 2 * 2 * 2  # updates × sides × prompts of an update
    assert len(set(groups)) == len(groups)
