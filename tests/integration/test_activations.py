"""Activations that are computed again or moved away leave every gradient as it was, the critic's too."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import GAME, assert_close, make_config, make_trainer, snapshot

from magnetar.errors import ConfigError
from magnetar.training import NashTrainer
from magnetar.training import config as config_module

SGD: dict[str, Any] = {"optim": "sgd", "learning_rate": 0.5, "max_steps": 4}
CASES: dict[str, dict[str, Any]] = {
    "exact kl": {"kl_estimator": "exact", "inner_epochs": 2, "magnet_every": 1, **SGD},
    "critic": {"method": "ppo", "inner_epochs": 2, "critic_learning_rate": 0.5, **SGD},
}


def layers_run(trainer: NashTrainer) -> dict[str, int]:
    """Train, and count how often the first layer of policy and critic computes with something to learn from."""
    counts = {"policy": 0, "critic": 0}
    models: dict[str, Any] = {"policy": trainer.roles.current}
    if trainer.critic is not None:
        models["critic"] = trainer.critic.critic.model
    for name, model in models.items():
        base = model.get_base_model() if hasattr(model, "get_base_model") else model

        def count(*_: Any, name: str = name) -> None:
            counts[name] += torch.is_grad_enabled()

        base.model.layers[0].self_attn.register_forward_pre_hook(count)
    trainer.train()
    return counts


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["hooks", "reentrant"])
def test_checkpointing_computes_twice_and_learns_the_same(
    tmp_path: Path, case: str, with_lora: bool, use_reentrant: bool
) -> None:
    settings: dict[str, Any] = CASES[case] | {"with_lora": with_lora}
    plain = make_trainer(tmp_path / "plain", **settings)
    once = layers_run(plain)
    saving = make_trainer(
        tmp_path / "saving",
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": use_reentrant},
        **settings,
    )
    assert saving.passes.layout == "packed"
    twice = layers_run(saving)
    # A reentrant forward pass keeps no graph, so it is seen only when it is done again.
    assert twice == ({name: count if use_reentrant else 2 * count for name, count in once.items()})
    assert_close(snapshot(plain), snapshot(saving), 1e-6)


class MainMemoryIsTheDevice:
    """Stands in for the accelerator that TRL's manager asks for, so that its hooks run here."""

    type = "cpu"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["alone", "with checkpointing"])
def test_offloading_leaves_every_gradient_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, checkpointing: bool
) -> None:
    from trl.models import activation_offloading

    moved: list[int] = []
    original = activation_offloading.OffloadActivations

    class Counting(original):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings | {"use_pin_memory": False, "use_streams": False})
            pack = self.pack_hook

            def counted(tensor: torch.Tensor) -> Any:
                place = pack(tensor)
                moved.append(int(self.tracker[place][1]))
                return place

            self.pack_hook = counted

    plain = make_trainer(tmp_path / "plain", with_lora=True, **CASES[case])
    plain.train()
    with monkeypatch.context() as patch:
        patch.setattr(torch.accelerator, "current_accelerator", MainMemoryIsTheDevice)
        patch.setattr(activation_offloading, "OffloadActivations", Counting)
        patch.setattr(config_module.NashConfig, "_check_activations", lambda self: None)
        offloading = make_trainer(
            tmp_path / "offloading",
            with_lora=True,
            activation_offloading=True,
            activation_checkpointing=checkpointing,
            **CASES[case],
        )
    offloading.train()
    assert sum(moved) > 0, "something was moved"
    assert_close(snapshot(plain), snapshot(offloading), 1e-6)


def test_offloading_on_the_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="activation_offloading is set, but this run is on the CPU"):
        make_config(tmp_path, activation_offloading=True)


def critic_that_drops(folder: Path, **settings: Any) -> NashTrainer:
    GAME.model(7).save_pretrained(folder / "other")
    GAME.tokenizer.save_pretrained(folder / "other")
    config = GAME.model(7).config
    config.attention_dropout = 0.5
    config.save_pretrained(folder / "other")
    return make_trainer(
        folder / "run", method="ppo", critic_model=str(folder / "other"), max_steps=1, num_generations=2, **settings
    )


@pytest.mark.parametrize("disabled", [True, False])
def test_dropout_of_a_critic_of_its_own_is_a_matter_of_the_setting(tmp_path: Path, disabled: bool) -> None:
    trainer = critic_that_drops(tmp_path, disable_dropout=disabled)
    assert trainer.critic is not None
    critic = trainer.critic.critic
    with torch.no_grad():
        critic.model.get_output_embeddings().linear.weight.normal_()  # type: ignore[operator]
    seen: list[bool] = []
    original: Any = trainer._rollout_batch

    def twice(*args: Any) -> Any:
        first, again = original(*args), original(*args)
        values = [cast(Any, batch).value_BGT for batch in (first[0], again[0])]
        seen.append(torch.equal(*values))
        return first

    trainer._rollout_batch = twice  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train()
    assert seen == [disabled]
    with torch.no_grad():
        rows = [[1, 2]], [[[3, 4], [3, 1]]]
        values = [trainer.passes.values(critic.eval(), *rows) for _ in range(2)]
    assert torch.equal(*values)
