"""A trained model, saved and loaded by its spec, answers as the model in training did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_preferences import cyclic_pairs, harmful_pairs, lora, make_config, make_model, make_tokenizer, make_trainer
from transformers import PreTrainedModel

from magnetar.errors import JudgeError
from magnetar.judges import build_judge
from magnetar.judges.models.card import read_card
from magnetar.judges.models.pairwise import DEFAULT_TEMPLATE
from magnetar.training.preference import PreferenceTrainer

PAIRS = cyclic_pairs(18, 7)


def logits_of(model: Any, text: str) -> np.ndarray:
    ids = make_tokenizer()(text)["input_ids"]
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0].double().numpy()


def expected_win_prob(model: Any, kind: str, temperature: float) -> np.ndarray:
    """From the model itself, one text at a time, by the definition of each kind."""
    found = []
    for row in PAIRS:
        prompt, first, second = (row[name] for name in ("prompt", "first", "second"))  # type: ignore[call-overload]
        if kind == "pairwise":
            orders = ((first, second), (second, first))
            texts = [DEFAULT_TEMPLATE.format(prompt=prompt, first=a, second=b) for a, b in orders]
            forward, backward = (1 / (1 + np.exp(-logits_of(model, text)[0])) for text in texts)
            found.append((forward + 1 - backward) / 2)
            continue
        a, b = (logits_of(model, prompt + text) for text in (first, second))
        if kind == "general":
            a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
            score = sum(a[k] * b[k + 1] - a[k + 1] * b[k] for k in range(0, len(a), 2))
        else:
            score = (a[0] - b[0]) * (-1 if kind == "cost" else 1)
        found.append(1 / (1 + np.exp(-score / temperature)))
    return np.array(found)


@pytest.mark.parametrize("kind", ["reward", "cost", "pairwise", "general"])
@pytest.mark.parametrize("way", ["llama", "bert", "merged", "adapter"])
def test_the_judge_answers_as_the_model_in_training(kind: str, way: str, tmp_path: Path) -> None:
    family = "bert" if way == "bert" else "llama"
    temperature = 0.7 if kind in ("reward", "cost") else 1.0 if kind == "pairwise" else 0.2
    settings: dict[str, Any] = {"kind": kind, "max_steps": 12, "per_device_train_batch_size": 16, "learning_rate": 2e-3}
    settings |= {} if kind == "pairwise" else {"temperature": temperature}
    config = make_config(tmp_path / "run", merge_adapter=way != "adapter", **settings)
    model = make_model(family, config.num_labels)
    if way == "adapter":  # an adapter names its base by the folder it was loaded from
        model.save_pretrained(tmp_path / "base")
        model.name_or_path = str(tmp_path / "base")
        model.config._name_or_path = str(tmp_path / "base")
    trainer = PreferenceTrainer(
        model,
        config,
        harmful_pairs(48, 0) if kind == "cost" else cyclic_pairs(48, 0),
        processing_class=make_tokenizer(family == "bert"),
        peft_config=lora() if way in ("merged", "adapter") else None,
    )
    trainer.train()
    expected = expected_win_prob(trainer.model, kind, temperature)
    folder = trainer.save_judge(tmp_path / "judge")
    assert (folder / "adapter_config.json").exists() == (way == "adapter")

    judge = build_judge(f"{kind}:{folder}")
    answer = judge.pair_win_prob(PAIRS["prompt"][:], PAIRS["first"][:], PAIRS["second"][:])
    np.testing.assert_allclose(answer, expected, atol=2e-5)
    assert np.ptp(expected) > 2e-3, "the answers hardly differ, so the comparison would show nothing"

    card = read_card(str(folder))
    assert card is not None
    assert (card.kind, card.max_length) == (kind, 48)
    assert card.training["pairs"] == 48
    with pytest.raises(JudgeError, match=f"was trained as {kind}"):
        build_judge(f"{'reward' if kind != 'reward' else 'cost'}:{folder}")


def test_the_model_in_training_is_left_as_it_is_when_the_adapter_is_saved_alone(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, cyclic_pairs(12, 0), kind="reward", with_lora=True, merge_adapter=False, max_steps=1
    )
    trainer.train()
    before = trainer.model
    trainer.save_judge(tmp_path / "judge")
    assert trainer.model is before
    merging = make_trainer(tmp_path / "b", cyclic_pairs(12, 0), kind="reward", with_lora=True, max_steps=1)
    merging.save_judge(tmp_path / "merged")
    assert isinstance(merging.model, PreTrainedModel)
