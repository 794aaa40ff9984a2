"""Answers of contestants are kept, found again by prompt, and their KL is that of an ordinary forward pass."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from magnetar.evaluation.comparison.contestants import REFERENCE, AnswerSettings, Contestant, collect_answers
from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.modeling.loading import load_policy
from magnetar.rollout import SamplingParams, TransformersEngine

GAME = EnumerableGame.build(num_words=4, max_new_tokens=3)
PROMPTS = ["rock paper", "paper well", "well scissors", "rock well scissors"]
SETTINGS = AnswerSettings(SamplingParams(max_new_tokens=3), responses=3, seed=5, batch_size=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, another one, an adapter on the base, and one more adapter."""
    folder = tmp_path_factory.mktemp("models")
    for number, name in enumerate(("base", "full")):
        GAME.model(number).save_pretrained(folder / name)
        GAME.tokenizer.save_pretrained(folder / name)
    for number, name in enumerate(("adapter", "adapter2")):
        base, _ = load_policy(folder / "base")
        torch.manual_seed(number)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        adapted = get_peft_model(base, config)  # type: ignore[arg-type]
        adapted.save_pretrained(str(folder / name))
        GAME.tokenizer.save_pretrained(folder / name)
    return folder


def logp(model: Any, prompt: str, texts: list[str], lengths: list[int]) -> list[Any]:
    """Next-token log-probabilities along responses, one response at a time, through transformers alone."""
    found = []
    for text, length in zip(texts, lengths, strict=True):
        start = GAME.tokenizer(prompt)["input_ids"]
        tokens = GAME.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        if len(tokens) < length:
            tokens = [*tokens, GAME.tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([[*start, *tokens]])).logits[0].double().log_softmax(-1)
        found.append(logits[len(start) - 1 : len(start) + len(tokens) - 1])
    return found


@pytest.mark.parametrize(("name", "reference"), [("full", "base"), ("adapter", "base"), ("adapter", "adapter2")])
def test_the_kl_is_that_of_a_plain_forward_pass(models: Path, tmp_path: Path, name: str, reference: str) -> None:
    players = [Contestant(name, str(models / name))]
    (answers,) = collect_answers(players, PROMPTS, str(models / reference), tmp_path, SETTINGS).values()
    policy, _ = load_policy(models / name)
    other, _ = load_policy(models / reference)
    assert isinstance(policy, PeftModel) == (name == "adapter")
    assert answers.responses.tokens_BG is not None
    for b, prompt in enumerate(PROMPTS):
        texts, lengths = answers.responses.texts[b], answers.responses.tokens_BG[b].tolist()
        own, base = logp(policy, prompt, texts, lengths), logp(other, prompt, texts, lengths)
        for g in range(3):
            kl = float((own[g].exp() * (own[g] - base[g])).sum())
            assert answers.kl_nats_BG[b, g] == pytest.approx(kl, rel=1e-4, abs=1e-6)
    assert answers.kl_nats_BG.mean() > 0.01


def test_the_reference_is_at_no_distance_and_what_is_not_wanted_is_not_measured(models: Path, tmp_path: Path) -> None:
    base = str(models / "base")
    players = [Contestant(REFERENCE, base), Contestant("point", str(models / "adapter"), measure_kl=False)]
    found = collect_answers(players, PROMPTS, base, tmp_path, SETTINGS)
    assert (found[REFERENCE].kl_nats_BG == 0.0).all()
    assert np.isnan(found["point"].kl_nats_BG).all()


def test_answers_do_not_depend_on_batches_order_or_company(models: Path, tmp_path: Path) -> None:
    base, adapter = str(models / "base"), Contestant("a", str(models / "adapter"))
    whole = collect_answers([Contestant(REFERENCE, base), adapter], PROMPTS, base, tmp_path / "1", SETTINGS)["a"]
    alone = collect_answers([adapter], PROMPTS[::-1], base, tmp_path / "2", replace(SETTINGS, batch_size=1))["a"]
    assert alone.responses.texts == whole.responses.texts[::-1]
    assert alone.kl_nats_BG == pytest.approx(whole.kl_nats_BG[::-1], abs=1e-5)


def test_equal_policies_of_different_names_answer_differently(models: Path, tmp_path: Path) -> None:
    base = str(models / "base")
    players = [Contestant("a", str(models / "full")), Contestant("b", str(models / "full"))]
    found = collect_answers(players, PROMPTS, base, tmp_path, SETTINGS)
    assert found["a"].responses.texts != found["b"].responses.texts


def test_only_what_is_missing_is_answered(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(models / "base")
    player = Contestant("a", str(models / "adapter"))
    generated: list[int] = []
    generate = TransformersEngine.generate

    def noted(engine: TransformersEngine, model: Any, prompt_ids: Any, *rest: Any) -> Any:
        generated.append(len(prompt_ids))
        return generate(engine, model, prompt_ids, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", noted)
    first = collect_answers([player], PROMPTS[:2], base, tmp_path, SETTINGS)["a"]
    assert sum(generated) == 2
    collect_answers([player], PROMPTS, base, tmp_path, SETTINGS)
    assert sum(generated) == 4
    # A line that was cut short by a kill is answered again, and nothing else.
    path = tmp_path / "a.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    again = collect_answers([player], PROMPTS, base, tmp_path, SETTINGS)["a"]
    assert sum(generated) == 5
    assert again.responses.texts[:2] == first.responses.texts
    assert [json.loads(line) for line in path.read_text().splitlines()][:-1] == [
        json.loads(line) for line in lines[:-1]
    ]


@pytest.mark.parametrize("change", ["weights", "seed", "responses", "temperature", "reference"])
def test_whoever_changed_answers_again(models: Path, tmp_path: Path, change: str) -> None:
    base = str(models / "base")
    before = collect_answers([Contestant("a", str(models / "adapter"))], PROMPTS, base, tmp_path, SETTINGS)["a"]
    settings = {
        "seed": replace(SETTINGS, seed=6),
        "responses": replace(SETTINGS, responses=2),
        "temperature": replace(SETTINGS, sampling=SamplingParams(max_new_tokens=3, temperature=0.2)),
    }.get(change, SETTINGS)
    spec = str(models / ("adapter2" if change == "weights" else "adapter"))
    reference = str(models / "full") if change == "reference" else base
    after = collect_answers([Contestant("a", spec)], PROMPTS, reference, tmp_path, settings)["a"]
    if change == "reference":
        assert not np.array_equal(after.kl_nats_BG, before.kl_nats_BG)
    else:
        assert after.responses.texts != before.responses.texts
