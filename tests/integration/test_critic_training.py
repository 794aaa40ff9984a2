"""The critic beside the policy: its precision, its share of the optimiser, and what it may start from."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from tiny_runs import GAME, PROMPTS, make_config, make_trainer, scoring_judge
from transformers import OPTConfig, OPTForCausalLM

from magnetar.errors import ConfigError, ModelError, NonFiniteLossError
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.modeling.critic import make_critic
from magnetar.training import NashTrainer

PPO: dict[str, Any] = {"method": "ppo", "critic_learning_rate": 1e-2}


def value_head(trainer: NashTrainer) -> Any:
    assert trainer.critic is not None
    return cast(Any, trainer.critic.critic.model).get_output_embeddings()


def test_with_mixed_precision_values_are_those_of_sampling_and_not_rounded(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, bf16=True, max_steps=1, **PPO)
    assert trainer.critic is not None
    with torch.no_grad():
        value_head(trainer).linear.weight.normal_()
    seen: list[Any] = []
    original = trainer._rollout_batch

    def spied(*args: Any) -> Any:
        seen.append(original(*args)[0])
        return original(*args)

    trainer._rollout_batch = spied  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train()
    for batch in seen:
        assert batch.value_BGT.dtype == torch.float32
        assert torch.equal(batch.value_BGT, batch.behavior_value_BGT), "nothing has changed since sampling"
        assert not torch.equal(batch.value_BGT, batch.value_BGT.bfloat16().float()), "three digits are not enough"


def groups_of(trainer: NashTrainer) -> dict[str, float]:
    """Weight decay of each of the critic's parameters."""
    assert trainer.critic is not None
    names = {id(p): name for name, p in trainer.critic.critic.trained().items()}
    return {
        names[id(p)]: group["weight_decay"]
        for group in trainer.create_optimizer().param_groups
        for p in group["params"]
        if id(p) in names
    }


def test_the_weight_decay_is_that_of_the_policy(tmp_path: Path) -> None:
    assert set(groups_of(make_trainer(tmp_path / "none", **PPO)).values()) == {0.0}
    some = groups_of(make_trainer(tmp_path / "some", weight_decay=0.3, **PPO))
    assert {decay for name, decay in some.items() if "norm" in name or name.endswith("bias")} == {0.0}
    assert {decay for name, decay in some.items() if "proj" in name} == {0.3}


def with_optimizers(folder: Path, scheduled: bool) -> NashTrainer:
    model = GAME.model(0, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5) if scheduled else None
    return NashTrainer(
        model=model,
        judge=scoring_judge(),
        args=make_config(folder, max_steps=1, **PPO),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=GAME.tokenizer,
        optimizers=(optimizer, scheduler),
    )


def test_an_optimizer_may_be_given_but_no_scheduler(tmp_path: Path) -> None:
    trainer = with_optimizers(tmp_path / "a", scheduled=False)
    trainer.train()
    assert trainer.critic is not None
    assert value_head(trainer).linear.bias.item() != 0.0
    with pytest.raises(ConfigError, match="scheduler was given, but method 'ppo' adds the critic's weights"):
        with_optimizers(tmp_path / "b", scheduled=True)


def test_a_bad_gradient_of_the_critic_never_reaches_its_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=4, **PPO)
    assert trainer.critic is not None
    calls = []

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * (float("nan") if len(calls) == 2 else 1.0)

    next(iter(trainer.critic.critic.trained().values())).register_hook(spoil)
    with pytest.raises(NonFiniteLossError, match=r"step 2: gradient norm of the critic is nan.*checkpoint-1"):
        trainer.train()
    again = make_trainer(tmp_path, max_steps=4, **PPO)
    again.train(resume_from_checkpoint=True)
    assert again.critic is not None
    assert all(bool(p.isfinite().all()) for p in again.critic.critic.trained().values())


def test_a_critic_with_fewer_tokens_than_the_policy_is_refused(tmp_path: Path) -> None:
    smaller = EnumerableGame.build(num_words=2, max_new_tokens=3)
    smaller.model(0).save_pretrained(tmp_path / "smaller")
    smaller.tokenizer.save_pretrained(tmp_path / "smaller")
    with pytest.raises(ModelError, match="knows 3 tokens and the policy 5"):
        make_trainer(tmp_path / "run", critic_model=str(tmp_path / "smaller"), **PPO)


def test_one_that_cannot_read_packed_groups_decides_for_both(tmp_path: Path, capsys: Any) -> None:
    config = OPTConfig(
        vocab_size=5, hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
    )
    torch.manual_seed(0)
    model = OPTForCausalLM(config)
    model.set_attn_implementation("eager")
    model.save_pretrained(tmp_path / "other")
    GAME.tokenizer.save_pretrained(tmp_path / "other")
    from magnetar.training import critic as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "packing_support", lambda model: f"{type(model).__name__} cannot")
        trainer = make_trainer(tmp_path / "a", critic_model=str(tmp_path / "other"), max_steps=1, **PPO)
        assert trainer.passes.layout == "padded"
        assert "OPTForCausalLM cannot" in capsys.readouterr().out
        trainer.train()
        with pytest.raises(ConfigError, match="OPTForCausalLM cannot"):
            make_trainer(tmp_path / "b", critic_model=str(tmp_path / "other"), logprob_layout="packed", **PPO)


def test_the_value_head_reads_what_the_output_layer_read() -> None:
    config = OPTConfig(
        vocab_size=8, hidden_size=32, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
    )
    values = make_critic(OPTForCausalLM(config)).values([[3, 4]], [[[5], [6, 7]]], layout="padded", pad_token_id=0)
    assert values.shape == (1, 2, 2)
