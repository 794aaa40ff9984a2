"""What a resumed run of a preference model must share with its checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tiny_preferences import cyclic_pairs, lora, make_config, make_model, make_tokenizer, make_trainer

from magnetar.errors import CheckpointError
from magnetar.training.preference import PreferenceTrainer

SETTINGS: dict[str, Any] = {
    "kind": "reward",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "save_strategy": "steps",
}


def trainer(folder: Path, *, model_seed: int = 0, head_seed: int = 0, adapter: LoraConfig, **settings: Any) -> Any:
    model = make_model("llama", 1, seed=model_seed)
    model.score.weight.data = make_model("llama", 1, seed=head_seed).score.weight.data
    config = make_config(folder, **(SETTINGS | {"save_steps": 1} | settings))
    return PreferenceTrainer(model, config, cyclic_pairs(16, 0), processing_class=make_tokenizer(), peft_config=adapter)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer(folder, adapter=lora()).train()
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_seed": 1}, "on another model"),
        ({"adapter": LoraConfig(r=8, lora_alpha=64, target_modules="all-linear")}, "another adapter"),
        ({"lr_scheduler_type": "constant"}, "lr_scheduler_type='linear', this run has lr_scheduler_type="),
        ({"weight_decay": 0.5}, "weight_decay=0.0, this run has weight_decay=0.5"),
        ({"warmup_steps": 0.5}, "warmup_steps"),
        ({"optim": "sgd"}, "optim"),
        ({"max_grad_norm": 0.1}, "max_grad_norm"),
        ({"disable_dropout": False}, "disable_dropout"),
        ({"data_seed": 7}, "data_seed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_that_would_go_on_differently_is_refused(run: Path, changed: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"adapter": lora()} | changed
    resumed = trainer(run, **options)
    with pytest.raises(CheckpointError, match=message):
        resumed.train(resume_from_checkpoint=str(run / "checkpoint-1"))


def test_the_random_head_that_the_checkpoint_replaces_does_not_matter(run: Path) -> None:
    resumed = trainer(run, adapter=lora(), head_seed=5)
    resumed.train(resume_from_checkpoint=str(run / "checkpoint-1"))
    assert resumed.state.global_step == 2


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_finished_run_that_is_resumed_is_loaded_and_trains_nothing(with_lora: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = SETTINGS | {"max_steps": 4, "save_steps": 2, "with_lora": with_lora}  # 10 steps an epoch
    pairs = cyclic_pairs(40, 0)
    first = make_trainer(tmp_path, pairs, **settings)
    first.train()
    trained: dict[str, torch.Tensor] = first.model.state_dict()  # type: ignore[union-attr]
    lines = (tmp_path / "metrics.jsonl").read_text()
    for _ in range(2):
        again = make_trainer(tmp_path, pairs, **settings)
        weights: dict[str, torch.Tensor] = again.model.state_dict()  # type: ignore[union-attr]
        assert any(not torch.equal(weights[name], tensor) for name, tensor in trained.items())
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == 4
        for name, tensor in again.model.state_dict().items():  # type: ignore[union-attr]
            torch.testing.assert_close(tensor, trained[name], atol=0, rtol=0)
        assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
        assert (tmp_path / "metrics.jsonl").read_text() == lines


def test_the_folder_of_a_run_is_answered_with_its_checkpoints(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder of a run.* inside it: .*checkpoint-1, .*checkpoint-2$"):
        trainer(run, adapter=lora()).train(resume_from_checkpoint=str(run))
