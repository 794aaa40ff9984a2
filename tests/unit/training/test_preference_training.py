"""Preference models learn what they can represent, and a run is the same however it is cut into pieces."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_preferences import (
    HANDS,
    cyclic_pairs,
    harmful_pairs,
    lora,
    make_config,
    make_model,
    make_tokenizer,
    make_trainer,
)
from transformers import TrainerCallback

from magnetar.errors import CheckpointError, ConfigError, DataError, ModelError
from magnetar.training import TrainingInterrupted
from magnetar.training.checkpoints import complete_checkpoints
from magnetar.training.preference import PreferenceTrainer
from magnetar.training.preference.encoding import encode_pairs
from magnetar.training.preference.models import head_names
from magnetar.training.preference.reward import TrlRewardTrainer
from magnetar.training.preference.reward import make_trainer as choose_trainer
from magnetar.training.preference.trainer import pair_losses

LEARN: dict[str, Any] = {"learning_rate": 1e-3, "num_train_epochs": 8}


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("kind", ["general", "pairwise"])
def test_general_and_pairwise_models_learn_a_cycle(family: str, kind: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, cyclic_pairs(600, 0), family=family, kind=kind, **LEARN)
    trainer.train()
    found = trainer.evaluate(cyclic_pairs(120, 1))
    assert found["eval_accuracy"] > 0.95


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_reward_model_cannot_learn_a_cycle(family: str, tmp_path: Path) -> None:
    """Any ranking of three is wrong about one of the three matches; chance variation leaves it below 0.8."""
    trainer = make_trainer(tmp_path, cyclic_pairs(600, 0), family=family, kind="reward", **LEARN)
    trainer.train()
    found = trainer.evaluate(cyclic_pairs(120, 1))
    assert found["eval_accuracy"] < 0.8


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_cost_model_learns_which_response_is_safer_and_which_are_safe(family: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, harmful_pairs(600, 0), family=family, kind="cost", **LEARN)
    trainer.train()
    found = trainer.evaluate(harmful_pairs(120, 1))
    assert found["eval_accuracy"] > 0.95
    assert found["eval_sign_accuracy"] > 0.95


def test_a_reward_model_learns_a_ranking(tmp_path: Path) -> None:
    """The control of the test above: with rock < paper < scissors the same model and steps reach the top."""
    pairs = cyclic_pairs(600, 0)
    order = {hand: rank for rank, hand in enumerate(HANDS)}

    def rank(text: str) -> int:
        return next(order[word] for word in text.split() if word in order)

    ranked = pairs.map(lambda row: {"win_prob": float(rank(row["first"]) > rank(row["second"]))})
    trainer = make_trainer(tmp_path, ranked, kind="reward", **LEARN)
    trainer.train()
    assert trainer.evaluate(trainer.train_dataset)["eval_accuracy"] > 0.95


def test_soft_labels_are_learned_as_probabilities(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, cyclic_pairs(600, 0, sharpness=0.5), kind="general", temperature=0.5, **LEARN)
    trainer.train()
    loss = trainer.evaluate(cyclic_pairs(120, 1, 0.5))
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()).item()
    assert entropy - 1e-6 <= loss["eval_loss"] < entropy + 0.02


@pytest.mark.parametrize("kind", ["reward", "pairwise", "general", "cost"])
@pytest.mark.parametrize("with_lora", [False, True])
def test_reading_shared_beginnings_once_changes_neither_loss_nor_gradient(
    kind: str, with_lora: bool, tmp_path: Path
) -> None:
    pairs = harmful_pairs(6, 0) if kind == "cost" else cyclic_pairs(6, 0)
    found = []
    for share in (True, False):
        trainer = make_trainer(tmp_path, pairs, kind=kind, with_lora=with_lora, share_beginnings=share)
        assert trainer.data_collator.share_beginnings == share  # type: ignore[union-attr]
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])  # type: ignore[index]
        assert len(batch["input_ids"]) == (6 if share else 12)
        loss = trainer.compute_loss(trainer.model.train(), batch)  # type: ignore[union-attr]
        loss.backward()
        gradients = {n: p.grad for n, p in trainer.model.named_parameters() if p.grad is not None}  # type: ignore[union-attr]
        found.append((loss.detach(), gradients))
    (one, one_grad), (other, other_grad) = found
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert one_grad.keys() == other_grad.keys()
    assert any(float(gradient.abs().max()) > 1e-3 for gradient in one_grad.values())
    for name, gradient in one_grad.items():
        torch.testing.assert_close(gradient, other_grad[name], atol=2e-6, rtol=1e-3)


def weights(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


def largest_gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_accumulated_gradients_are_those_of_one_batch_also_in_the_last_incomplete_step(tmp_path: Path) -> None:
    """26 pairs in steps of 8: the last step has two micro-batches of one and two pairs instead of four of two."""
    found = []
    for size, accumulation in ((8, 1), (2, 4), (1, 8)):
        trainer = make_trainer(
            tmp_path / str(size),
            cyclic_pairs(27, 0),
            kind="general",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            optim="sgd",
            learning_rate=0.1,
        )
        before = weights(trainer)
        trainer.train()
        found.append(weights(trainer))
        assert largest_gap(before, found[-1]) > 1e-3
    assert largest_gap(found[0], found[1]) < 1e-5
    assert largest_gap(found[0], found[2]) < 1e-5


RUN: dict[str, Any] = {"kind": "pairwise", "max_steps": 8, "per_device_train_batch_size": 4, "logging_steps": 2}


@pytest.mark.parametrize("with_lora", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one(with_lora: bool, tmp_path: Path) -> None:
    """Bit for bit, with dropout on, so that random states matter; metrics too."""
    settings: dict[str, Any] = RUN | {"disable_dropout": False, "save_strategy": "steps", "save_steps": 4}
    pairs = cyclic_pairs(24, 0)
    whole = make_trainer(tmp_path / "whole", pairs, with_lora=with_lora, dropout=0.1, **settings)
    whole.train()
    part = make_trainer(
        tmp_path / "part", pairs, with_lora=with_lora, dropout=0.1, callbacks=[_Signal(5, signal.SIGINT)], **settings
    )
    with pytest.raises(TrainingInterrupted, match="resume_from_checkpoint") as stopped:
        part.train()
    assert stopped.value.checkpoint.name == "checkpoint-5"
    assert [p.name for p in complete_checkpoints(tmp_path / "part")] == ["checkpoint-4", "checkpoint-5"]
    resumed = make_trainer(tmp_path / "part", pairs, with_lora=with_lora, dropout=0.1, **settings)
    resumed.train(resume_from_checkpoint=True)
    assert largest_gap(weights(whole), weights(resumed)) == 0.0
    steps = [[line.split(",")[0] for line in _lines(tmp_path / run)] for run in ("whole", "part")]
    assert set(steps[0]) <= set(steps[1])


class _Signal(TrainerCallback):
    """Sends a signal to this process at the end of a step, as a scheduler would."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


def _lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_dropout_is_off_unless_asked_for(tmp_path: Path) -> None:
    for disable, differs in ((True, False), (False, True)):
        trainer = make_trainer(
            tmp_path, cyclic_pairs(4, 0), family="bert", kind="reward", dropout=0.5, disable_dropout=disable
        )
        batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])  # type: ignore[index]
        found = [trainer.compute_loss(trainer.model.train(), batch).item() for _ in range(2)]  # type: ignore[union-attr]
        assert (found[0] != found[1]) == differs


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_trl_trains_the_same_reward_model(family: str, tmp_path: Path) -> None:
    """Same pairs, seed and steps of gradient descent through TRL's RewardTrainer: the same weights.

    Not Adam, which makes steps of full size from gradients that are zero but for rounding.
    """
    settings: dict[str, Any] = {"kind": "reward", "max_steps": 6, "per_device_train_batch_size": 8}
    settings |= {"learning_rate": 0.1, "optim": "sgd"}
    pairs = cyclic_pairs(32, 0)
    ours = make_trainer(tmp_path / "ours", pairs, family=family, **settings)
    before = weights(ours)
    ours.train()
    config = make_config(tmp_path / "theirs", use_trl=True, **settings)
    theirs = choose_trainer(make_model(family, 1), config, pairs, processing_class=make_tokenizer(family == "bert"))
    assert isinstance(theirs, TrlRewardTrainer)
    theirs.train()
    assert largest_gap(before, weights(ours)) > 1e-3
    assert largest_gap(weights(ours), weights(theirs)) < 2e-5
    assert (theirs.save_judge(tmp_path / "judge") / "magnetar_judge.json").is_file()


@pytest.mark.parametrize("kind", ["reward", "cost", "pairwise", "general"])
def test_a_model_that_sees_no_difference_is_half_right_whatever_the_label(kind: str, tmp_path: Path) -> None:
    config = make_config(tmp_path, kind=kind)
    logits = torch.ones(6, config.num_labels)
    safe = torch.ones(3, dtype=torch.bool)
    inputs = {"labels": torch.tensor([0.0, 0.5, 1.0]), "first_safe": safe, "second_safe": safe}
    accuracy = pair_losses(logits, inputs, config)[1]["accuracy"]
    torch.testing.assert_close(accuracy, torch.tensor([0.5, float("nan"), 0.5]), equal_nan=True)


def test_trl_is_not_asked_for_what_it_cannot_do(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], Dataset, str]] = [
        ({"kind": "reward"}, cyclic_pairs(6, 0, 0.5), "row 0 has the soft label.*drop use_trl"),
        ({"kind": "reward", "temperature": 2.0}, cyclic_pairs(6, 0), "temperature is 2.0"),
    ]
    for settings, pairs, message in cases:
        config = make_config(tmp_path, use_trl=True, **settings)
        with pytest.raises(ConfigError, match=message):
            choose_trainer(make_model("llama", config.num_labels), config, pairs, processing_class=make_tokenizer())
    with pytest.raises(ConfigError, match=r"kind is 'general'.*use PreferenceTrainer"):
        TrlRewardTrainer(make_model("llama", 8), make_config(tmp_path, kind="general"), cyclic_pairs(6, 0))


def test_adapters_train_and_keep_the_head(tmp_path: Path) -> None:
    for family, heads in (("llama", ["score"]), ("bert", ["classifier", "pooler"])):
        assert head_names(make_model(family, 1)) == heads
        trainer = make_trainer(tmp_path / family, cyclic_pairs(12, 0), family=family, kind="reward", with_lora=True)
        trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}  # type: ignore[union-attr]
        assert all("lora_" in name or ".modules_to_save." in name for name in trained)
        for head in heads:
            assert any(f"{head}.modules_to_save" in name for name in trained)


def test_a_head_in_bfloat16_is_trained_in_float32(tmp_path: Path) -> None:
    model = make_model("llama", 1).to(torch.bfloat16)
    trainer = make_trainer(tmp_path, cyclic_pairs(12, 0), model=model, kind="reward", with_lora=True, max_steps=2)
    trained = [p for _, p in trainer.model.named_parameters() if p.requires_grad]  # type: ignore[union-attr]
    assert trained and all(p.dtype == torch.float32 for p in trained)
    trainer.train()
    trainer.save_judge(tmp_path / "judge")
    assert {p.dtype for p in trainer.model.parameters()} == {torch.bfloat16}  # type: ignore[union-attr]
    assert torch.isfinite(trainer.model(input_ids=torch.tensor([[2, 5, 3]])).logits).all()  # type: ignore[misc]


def test_what_is_too_long_is_cut_dropped_or_refused(tmp_path: Path) -> None:
    long = Dataset.from_dict(
        {
            "prompt": ["play a hand " * 10, "show a hand "],
            "first": ["we rock", "we rock"],
            "second": ["they surely paper", "they paper"],
            "win_prob": [0.0, 0.0],
        }
    )
    tokenizer = make_tokenizer()
    cut = encode_pairs(long, tokenizer, make_config(tmp_path, kind="reward", max_length=16))
    assert (cut.cut, cut.dropped, len(cut.dataset)) == (1, 0, 2)
    first, second = cut.dataset["first_ids"][0], cut.dataset["second_ids"][0]
    for ids, response in ((first, "we rock"), (second, "they surely paper")):
        assert len(ids) <= 16
        assert ids[0] == tokenizer.bos_token_id
        assert str(tokenizer.decode(ids)).endswith(f"{response} <eos>")
    assert first[:-3] == second[:-4], "the prompt is cut alike for both"
    assert len(second) >= 14, "no more is cut than has to be"
    dropped = encode_pairs(long, tokenizer, make_config(tmp_path, kind="reward", max_length=16, on_long="drop"))
    assert (dropped.cut, dropped.dropped, len(dropped.dataset)) == (0, 1, 1)
    with pytest.raises(DataError, match="row 0 has an input of 35 tokens, the limit is 16"):
        encode_pairs(long, tokenizer, make_config(tmp_path, kind="reward", max_length=16, on_long="error"))
    with pytest.raises(DataError, match="all 1 pairs have inputs of more than max_length=16 tokens, up to 35"):
        encode_pairs(long.select([0]), tokenizer, make_config(tmp_path, kind="reward", max_length=16, on_long="drop"))


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "kind": ({"kind": "pairwize"}, "unknown kind 'pairwize'; did you mean 'pairwise'"),
    "odd": ({"kind": "general", "embedding_dim": 3}, "embedding_dim is 3, expected an even number"),
    "dimensions of a reward": ({"kind": "reward", "embedding_dim": 4}, "kind is 'reward', which has none"),
    "template of a reward": (
        {"kind": "reward", "template": "{prompt}"},
        "template is '{prompt}', but kind is 'reward'",
    ),
    "template": ({"kind": "pairwise", "template": "{prompt} {first}"}, "each exactly once"),
    "temperature": ({"kind": "reward", "temperature": 0.0}, "temperature is 0.0, expected a positive number"),
    "pairwise temperature": ({"kind": "pairwise", "temperature": 1.0}, "logit is not divided"),
    "normalize": ({"kind": "cost", "normalize": False}, "has no embedding"),
    "on_long": ({"kind": "cost", "on_long": "chop"}, "unknown on_long 'chop'"),
    "max_length": ({"kind": "cost", "max_length": 2}, "max_length is 2, expected at least 8"),
    "batch": ({"kind": "cost", "per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
    "use_trl": ({"kind": "general", "use_trl": True}, "use_trl is True, but kind is 'general'.*drop use_trl"),
    "smoothing": ({"kind": "cost", "label_smoothing_factor": 0.1}, "labels are soft already"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_work_are_refused(case: str, tmp_path: Path) -> None:
    settings, message = BAD_SETTINGS[case]
    with pytest.raises(ConfigError, match=message):
        make_config(tmp_path, **settings)


def test_models_and_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the model has 3 outputs, kind 'reward' needs 1"):
        make_trainer(tmp_path, cyclic_pairs(6, 0), model=make_model("llama", 3), kind="reward")
    with pytest.raises(DataError, match=r"no column 'first_safe', which kind 'cost' needs.*signs=True"):
        make_trainer(tmp_path, cyclic_pairs(6, 0), kind="cost")
    with pytest.raises(ConfigError, match="eval_strategy asks for evaluations"):
        make_trainer(tmp_path, cyclic_pairs(6, 0), kind="reward", eval_strategy="steps", eval_steps=2)
    with pytest.raises(ModelError, match="processing_class is None"):
        PreferenceTrainer(make_model("llama", 1), make_config(tmp_path, kind="reward"), cyclic_pairs(6, 0))


def test_runs_are_kept_apart(tmp_path: Path) -> None:
    settings: dict[str, Any] = RUN | {"save_strategy": "steps", "save_steps": 4}
    pairs = cyclic_pairs(24, 0)
    make_trainer(tmp_path, pairs, **settings).train()
    with pytest.raises(ConfigError, match="already holds a run"):
        make_trainer(tmp_path, pairs, **settings).train()
    last = complete_checkpoints(tmp_path)[-1]
    with pytest.raises(CheckpointError, match="was written with kind='pairwise', this run has kind='reward'"):
        other: dict[str, Any] = settings | {"kind": "reward"}
        make_trainer(tmp_path, pairs, **other).train(resume_from_checkpoint=str(last))
    with pytest.raises(CheckpointError, match="while training on other pairs"):
        make_trainer(tmp_path, cyclic_pairs(24, 5), **settings).train(resume_from_checkpoint=True)
    (last / "magnetar_state.json").unlink()
    with pytest.raises(CheckpointError, match=r"its writing was cut short; complete checkpoints beside it: .*-4"):
        make_trainer(tmp_path, pairs, **settings).train(resume_from_checkpoint=str(last))
    settings |= {"overwrite_output_dir": True, "save_strategy": "no"}
    again = make_trainer(tmp_path, pairs, **settings)
    again.train()
    assert not complete_checkpoints(tmp_path)


def test_the_adapter_of_a_config_is_not_attached_twice(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, cyclic_pairs(6, 0), kind="reward", with_lora=True)
    with pytest.raises(ModelError, match="already has an adapter"):
        PreferenceTrainer(
            trainer.model,  # type: ignore[arg-type]
            make_config(tmp_path, kind="reward"),
            cyclic_pairs(6, 0),
            processing_class=make_tokenizer(),
            peft_config=lora(),
        )


def test_wrappers_that_hide_an_adapter_from_its_checkpoints_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_ACTIVATION_CHECKPOINTING", "true")
    make_trainer(tmp_path, cyclic_pairs(8, 0), kind="reward", with_lora=True)  # nothing is sharded
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"fsdp_activation_checkpointing is true.*gradient_checkpointing: true"):
        make_trainer(tmp_path, cyclic_pairs(8, 0), kind="reward", with_lora=True)
