"""Any player's answers are kept as they come, found again by prompt, and do not depend on company."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from magnetar.errors import DataError, ModelError
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.players import (
    Answer,
    GenerationRequest,
    ModelPlayer,
    StreamingPlayer,
    kept_answers,
    make_player,
    refuse_unreadable,
    rendering_note,
)
from magnetar.evaluation.players.digests import model_digest
from magnetar.evaluation.suite.attack_config import AttacksConfig
from magnetar.evaluation.suite.attacks import attacked_suite
from magnetar.rollout import SamplingParams, TransformersEngine

PROMPTS: list[Any] = ["a b c", "d", "e f g h a b", "a a", "c d e"]
REQUEST = GenerationRequest(SamplingParams(max_new_tokens=6), 2, seed=3, batch_size=2)


@dataclass(frozen=True)
class Echo(StreamingPlayer):
    """Answers with its seed, and stops after some answers."""

    version: int = 1
    stops_after: int = 99
    asked: Any = None

    def identity(self) -> dict[str, Any]:
        return {"version": self.version}

    def answers(self, prompts: Any, seeds: Any, request: GenerationRequest) -> Iterator[tuple[int, Answer]]:
        for row in range(min(len(prompts), self.stops_after)):
            if self.asked is not None:
                self.asked.append(prompts[row])
            yield row, Answer([f"\u2028{seeds[row]}\ud800"] * request.responses_per_prompt)
        if self.stops_after < len(prompts):
            raise KeyboardInterrupt


def test_a_stopped_player_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        kept_answers(Echo(stops_after=2, asked=asked), "p", PROMPTS, REQUEST, tmp_path / "p.jsonl")
    found = kept_answers(Echo(asked=asked), "p", PROMPTS, REQUEST, tmp_path / "p.jsonl")
    assert asked == PROMPTS, "nobody was asked twice"
    assert found == kept_answers(Echo(), "p", PROMPTS, REQUEST, tmp_path / "other.jsonl")
    # A line that a kill cut short is answered again, and nothing else.
    lines = (tmp_path / "p.jsonl").read_bytes().split(b"\n")
    (tmp_path / "p.jsonl").write_bytes(b"\n".join(lines[:-2]) + b"\n" + lines[-2][:9])
    asked.clear()
    assert kept_answers(Echo(asked=asked), "p", PROMPTS, REQUEST, tmp_path / "p.jsonl") == found
    assert asked == PROMPTS[-1:]


def test_whoever_changed_answers_again(tmp_path: Path) -> None:
    def asked_again(player: Echo, name: str = "p", request: GenerationRequest = REQUEST) -> int:
        asked: list[str] = []
        kept_answers(replace(player, asked=asked), name, PROMPTS, request, tmp_path / "p.jsonl")
        return len(asked)

    assert asked_again(Echo()) == 5
    assert asked_again(Echo()) == 0
    assert asked_again(Echo(version=2)) == 5
    assert asked_again(Echo(version=2), name="q") == 5
    assert asked_again(Echo(version=2), name="q", request=replace(REQUEST, seed=4)) == 5
    assert asked_again(Echo(version=2), name="q", request=replace(REQUEST, seed=4, batch_size=1)) == 0


def test_a_models_answers_do_not_depend_on_batches_order_or_interruptions(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = make_player(str(model_folder))
    whole = kept_answers(player, "M", PROMPTS, REQUEST, tmp_path / "whole.jsonl")
    generate = TransformersEngine.generate
    calls: list[int] = []

    def failing(engine: TransformersEngine, model: Any, prompt_ids: Any, *rest: Any) -> Any:
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        calls.append(len(prompt_ids))
        return generate(engine, model, prompt_ids, *rest)

    monkeypatch.setattr(TransformersEngine, "generate", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        kept_answers(player, "M", PROMPTS, REQUEST, tmp_path / "part.jsonl")
    calls.append(0)
    found = kept_answers(player, "M", PROMPTS[::-1], replace(REQUEST, batch_size=1), tmp_path / "part.jsonl")
    assert found == whole[::-1] and sum(calls) == 5
    other = kept_answers(player, "N", PROMPTS, REQUEST, tmp_path / "n.jsonl")
    assert [one and one.texts for one in other] != [one and one.texts for one in whole], "equal models, other names"


def test_a_model_is_known_by_what_is_in_its_folder(tmp_path: Path) -> None:
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"1")
    adapter = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    before = model_digest(str(tmp_path / "base")), model_digest(str(tmp_path / "adapter"))
    (tmp_path / "base" / "notes.txt").write_text("not weights")
    assert (model_digest(str(tmp_path / "base")), model_digest(str(tmp_path / "adapter"))) == before
    (tmp_path / "base" / "model.safetensors").write_bytes(b"2")
    after = model_digest(str(tmp_path / "base")), model_digest(str(tmp_path / "adapter"))
    assert after[0] != before[0] and after[1] != before[1], "an adapter changes with its base"
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ messages }}")
    assert model_digest(str(tmp_path / "base")) != after[0], "a template decides what a model reads"
    assert model_digest("owner/name") == "owner/name"


def test_different_tokenizers_are_told_in_one_line(model: torch.nn.Module, tokenizer: Any) -> None:
    inner = Tokenizer(models.WordLevel({"[unk]": 0, "other": 1}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    other = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[unk]", pad_token="[unk]")
    templated = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="[unk]", pad_token="[unk]")
    templated.chat_template = "{{ messages[0].content }}"
    one, two, three = (
        ModelPlayer(name, model, tok) for name, tok in (("A", tokenizer), ("B", other), ("C", templated))
    )
    assert rendering_note({"A": one, "also A": one}) is None
    note = rendering_note({"A": one, "B": two, "also A": one})
    assert note is not None and note.startswith("different tokenizers: A, also A / B;") and "\n" not in note
    assert str(rendering_note({"B": two, "C": three})).startswith("different chat templates: B / C;")
    assert str(rendering_note({"A": one, "C": three})).startswith("different tokenizers and chat templates: A / C;")


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}{{ message.content }} {% endfor %}"
)


def test_a_template_that_refuses_prompts_is_told_before_anybody_answers(
    model: torch.nn.Module, tokenizer: Any, tmp_path: Path
) -> None:
    plain: Any = [[{"role": "user", "content": "a b"}]] * 2
    system = [{"role": "system", "content": "c"}, *plain[0]]
    with pytest.raises(ModelError, match="policy 'A': the prompts are chat turns, but the tokenizer has no chat"):
        refuse_unreadable({"A": ModelPlayer("A", model, tokenizer)}, plain)
    tokenizer.chat_template = NO_SYSTEM
    players = {"echo": Echo(asked=(asked := [])), "strict": ModelPlayer("strict", model, tokenizer)}
    refuse_unreadable(players, [*plain, "text"])
    with pytest.raises(DataError, match=r"policy 'strict': .*no system role"):
        refuse_unreadable(players, [*plain, system])

    def attack(spec: str) -> None:
        config, members = AttacksConfig((spec,)), {"echo": ["echo"], "strict": ["strict"]}
        attacked_suite(
            config, IntervalSettings(), plain[:1], None, members, players, REQUEST, tmp_path, "error", lambda _: None
        )

    with pytest.raises(DataError, match=r"attack 'system_override': policy 'strict'.*system_override:place=user"):
        attack("system_override")
    assert not asked, "the other policy was not asked in vain"
    attack("system_override:place=user")
    assert len(asked) == 2
