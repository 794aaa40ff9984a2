import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from magnetar.errors import DataError, JudgeError, MagnetarError
from magnetar.evaluation import summarize
from magnetar.evaluation.play import play
from magnetar.evaluation.players import (
    CheckpointPlayer,
    FilePlayer,
    GenerationRequest,
    ModelPlayer,
    RolePlayer,
    check_player_spec,
    generate_responses,
    make_player,
)
from magnetar.judges import Judge
from magnetar.modeling.roles import make_roles
from magnetar.rollout import SamplingParams

PROMPTS: list[Any] = ["a b c", "d", "e f g h a b", "a a", "c d e"]
SAMPLING = SamplingParams(max_new_tokens=8)


def answers_file(path: Path, answers: dict[str, list[str]]) -> Path:
    lines = [{"prompt": prompt, "response": text} for prompt, texts in answers.items() for text in texts]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_answers_do_not_depend_on_the_batch(model: Any, tokenizer: Any, batch_size: int) -> None:
    whole = generate_responses(model, tokenizer, PROMPTS, GenerationRequest(SAMPLING, 3, seed=1))
    parts = generate_responses(model, tokenizer, PROMPTS, GenerationRequest(SAMPLING, 3, seed=1, batch_size=batch_size))
    assert parts.texts == whole.texts
    first = generate_responses(model, tokenizer, PROMPTS[:2], GenerationRequest(SAMPLING, 3, seed=1))
    assert first.texts == whole.texts[:2], "nor on how many prompts follow"


def test_lengths_and_truncation_are_those_of_the_tokens(model: Any, tokenizer: Any) -> None:
    found = generate_responses(model, tokenizer, PROMPTS * 4, GenerationRequest(SAMPLING, 4, seed=0))
    assert found.tokens_BG is not None and found.truncated_BG is not None
    assert found.shape == (20, 4)
    for b, group in enumerate(found.texts):
        for g, text in enumerate(group):
            words = len(text.split())
            assert words == found.tokens_BG[b, g] - (not found.truncated_BG[b, g]), "a finished response ends in </s>"
            assert not found.truncated_BG[b, g] or words == 8
    assert 0 < found.truncated_BG.mean() < 1


def test_equal_models_give_different_answers_and_no_winner(model: Any, tokenizer: Any, judge: Judge) -> None:
    prompts: list[Any] = [f"{x} {y} {z}" for x in "abcd" for y in "efgh" for z in "abcd"]
    player = ModelPlayer("same", model, tokenizer)
    match = play(player, player, prompts, None, judge, request=GenerationRequest(SAMPLING, 2, seed=0))
    same = np.mean([a == b for a, b in zip(match.policy.texts, match.opponent.texts, strict=True)])
    assert same < 0.2, "with one seed for both sides it would be 1"
    summary = summarize(match)
    assert not summary.win_rate.excludes(0.5)
    assert (summary.judge, summary.comparisons) == ("letters", len(prompts) * 4)


def test_a_match_can_be_repeated(model: Any, tokenizer: Any, judge: Judge) -> None:
    player = ModelPlayer("m", model, tokenizer)
    one, again, other = (
        play(player, player, PROMPTS, None, judge, request=GenerationRequest(SAMPLING, seed=seed)) for seed in (3, 3, 4)
    )
    assert one.policy.texts == again.policy.texts and one.opponent.texts == again.opponent.texts
    assert one.policy.texts != other.policy.texts


def test_win_probabilities_are_the_policys(tmp_path: Path, judge: Judge) -> None:
    long = FilePlayer(answers_file(tmp_path / "long.jsonl", {p: ["xxxx", "xx"] for p in PROMPTS}))
    short = FilePlayer(answers_file(tmp_path / "short.jsonl", {p: ["xx", "x", ""] for p in PROMPTS}))
    request = GenerationRequest(SAMPLING, 2, batch_size=2)
    match = play(long, short, PROMPTS, list("ppqqq"), judge, request=request, opponent_responses_per_prompt=3)
    assert match.win_prob_BGH.tolist() == [[[1, 1, 1], [0.5, 1, 1]]] * 5
    summary = summarize(match)
    assert summary.win_rate.value == pytest.approx(5.5 / 6)
    assert (summary.policy.name, summary.opponent.name) == ("long.jsonl", "short.jsonl")
    assert summary.policy.tokens is None and summary.opponent.degeneracy.empty == pytest.approx(1 / 3)
    assert {name: part.prompts for name, part in summary.categories.items()} == {"p": 2, "q": 3}


# peft 0.21 asks transformers for an attribute under its old name whenever an adapter is attached.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_roles_of_a_training_play_with_one_base_model(model: Any, tokenizer: Any, judge: Judge) -> None:
    request = GenerationRequest(SAMPLING, 2, seed=5)
    before = generate_responses(model, tokenizer, PROMPTS, request)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"]))
    roles = make_roles(adapted)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=2.0)
    adapted.train()
    reference, current = (RolePlayer(role, roles, role, tokenizer) for role in ("reference", "current"))
    assert reference.respond(PROMPTS, request).texts == before.texts, "the reference is the model before training"
    assert current.respond(PROMPTS, request).texts != before.texts
    assert adapted.training, "training goes on where it was"
    match = play(current, reference, PROMPTS, None, judge, request=request)
    assert match.win_prob_BGH.shape == (5, 2, 2)


# A checkpoint without a chat template is loaded, which is fine for plain text.
def test_a_checkpoint_plays_like_the_model_in_it(model: Any, tokenizer: Any, model_folder: Path) -> None:
    request = GenerationRequest(SAMPLING, 2, seed=6)
    player = make_player(str(model_folder))
    assert isinstance(player, CheckpointPlayer)
    assert player.respond(PROMPTS, request).texts == generate_responses(model, tokenizer, PROMPTS, request).texts


def test_files_of_answers_know_conversations_and_compression(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    path = tmp_path / "answers.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for record in ({"prompt": chat, "response": "one"}, {"prompt": "hi", "response": "two"}):
            file.write(json.dumps(record) + "\n\n")
    found = make_player(f"file:{path}").respond([chat, "hi"], GenerationRequest(SAMPLING))
    assert found.texts == [["one"], ["two"]] and found.tokens_BG is None


def test_missing_answers_are_counted(tmp_path: Path) -> None:
    player = FilePlayer(answers_file(tmp_path / "a.jsonl", {"a b c": ["x", "y"], "d": ["x"]}))
    with pytest.raises(DataError, match=r"for 4 of 5 prompts; the first, \"d\", has 1, expected 2"):
        player.respond(PROMPTS, GenerationRequest(SAMPLING, 2))


@pytest.mark.parametrize("line", ["nonsense", '{"prompt": "a"}', '{"prompt": "a", "response": 3}', "[]"])
def test_broken_lines_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "response": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        FilePlayer(tmp_path / "a.jsonl").respond(["a"], GenerationRequest(SAMPLING))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "a", "response": "x"}\n')[:-6]),
        ("a.jsonl.gz", b'{"prompt": "a", "response": "x"}\n'),
        ("a.jsonl", '{"prompt": "a", "response": "x"}'.encode("utf-16")),
    ],
    # A compressed file holds the time of its making, and parallel processes must collect tests of the same names.
    ids=["truncated", "not compressed", "not UTF-8"],
)
def test_files_that_cannot_be_read_are_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jsonl.* cannot be read .* expected UTF-8 text of one JSON object a line"):
        FilePlayer(tmp_path / name).respond(["a"], GenerationRequest(SAMPLING))


def test_specs_of_players_are_checked_without_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    check_player_spec("demo")
    check_player_spec("owner/model")
    for spec, message in {
        "file:absent.jsonl": "no file 'absent.jsonl'",
        "runs/mine": "neither config.json nor adapter_config.json",
        "runs/mime": "did you mean 'runs/mine'",
        "/no/such/folder": "no folder",
        "what is this": "no Hub id",
    }.items():
        with pytest.raises(MagnetarError, match=message):
            check_player_spec(spec)


def test_no_prompts_and_wrong_judges_are_refused(tmp_path: Path, judge: Judge) -> None:
    player = FilePlayer(answers_file(tmp_path / "a.jsonl", {p: ["x"] for p in PROMPTS}))
    with pytest.raises(DataError, match="no prompts"):
        play(player, player, [], None, judge, request=GenerationRequest(SAMPLING))

    class OutOfRange(type(judge)):
        def _pair_win_prob(self, prompts: Any, first: Any, second: Any) -> Any:
            return np.full(len(first), 1.5)

    with pytest.raises(JudgeError, match=r"1\.5"):
        other = FilePlayer(answers_file(tmp_path / "b.jsonl", {p: ["y"] for p in PROMPTS}))
        play(player, other, PROMPTS, None, OutOfRange(), request=GenerationRequest(SAMPLING))
