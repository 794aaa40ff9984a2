"""The distance of two policies against all responses enumerated, and what a suite says of it."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magnetar.data.splits import prompt_key
from magnetar.errors import ConfigError, MagnetarError
from magnetar.evaluation import distance
from magnetar.evaluation.distance import kl_of_answers
from magnetar.evaluation.players import Answer, CheckpointPlayer
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.run import evaluate_suite
from magnetar.evaluation.suite.tables import suite_tables
from unit.evaluation.conftest import WORDS, tiny_model, tiny_tokenizer

END = 1
PROMPTS: list[Any] = ["a b c", "d", "e f g h a b"]


def log_prob(model: Any, prompt: list[int], response: list[int]) -> float:
    """Of a response, from logits of a plain pass."""
    with torch.no_grad():
        logp = model(torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
    return float(sum(logp[len(prompt) - 1 + t, token] for t, token in enumerate(response)))


def all_answers(length: int) -> tuple[list[list[int]], Answer]:
    """Every response of at most so many tokens, as tokens and as an answer."""
    words = [token for token in range(len(WORDS)) if token != END]
    ended = [[*some, END] for n in range(length) for some in itertools.product(words, repeat=n)]
    cut = [list(some) for some in itertools.product(words, repeat=length)]
    texts = [" ".join(WORDS[token] for token in one if token != END) for one in ended + cut]
    return ended + cut, Answer(texts, None, [False] * len(ended) + [True] * len(cut))


@pytest.mark.parametrize("room", [2**26, 40])
def test_its_mean_over_all_responses_is_the_divergence_of_the_two_distributions(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Enumerated: Σ_y π(y) (log π(y) − log ρ(y)) over every response, in batches of any size."""
    monkeypatch.setattr(distance, "LOGITS_AT_ONCE", room)
    policy, other, tokenizer = tiny_model(0).double(), tiny_model(1).double(), tiny_tokenizer()
    responses, answer = all_answers(2)
    (found,) = dict(kl_of_answers(policy, other, tokenizer, ["a b c"], [answer])).values()
    prompt = tokenizer("a b c")["input_ids"]
    own = np.array([log_prob(policy, prompt, one) for one in responses])
    others = np.array([log_prob(other, prompt, one) for one in responses])
    assert np.exp(own).sum() == pytest.approx(1.0)
    expected = (np.exp(own) * (own - others)).sum()
    assert expected > 0.1
    assert (np.exp(own) * found).sum() == pytest.approx(expected, rel=1e-10)
    assert np.std(found) < 0.5 * np.std(own - others), "the sum of exact divergences varies less than the ratio"


def test_prompts_come_back_under_their_own_index() -> None:
    policy, other, tokenizer = tiny_model(0), tiny_model(1), tiny_tokenizer()
    answers = [Answer(["a b", "c"], None, [True, False]), Answer(["", "d d d"]), Answer(["e", "f"])]
    together = dict(kl_of_answers(policy, other, tokenizer, PROMPTS, answers))
    for row, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        alone = dict(kl_of_answers(policy, other, tokenizer, [prompt], [answer]))
        assert together[row] == pytest.approx(alone[0], rel=1e-5)
    assert sorted(together) == [0, 1, 2]


def test_a_policy_is_at_no_distance_from_itself() -> None:
    same = dict(kl_of_answers(tiny_model(0), tiny_model(0), tiny_tokenizer(), PROMPTS, [Answer(["a b", "c"])] * 3))
    assert np.abs(list(same.values())).max() < 1e-6


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two models, one of them twice, and a file."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("start", 0), ("one", 1), ("two-seed0", 1), ("two-seed1", 2)):
        tiny_model(seed).save_pretrained(name)
        tiny_tokenizer().save_pretrained(name)
    prompts = ["a b c", "d", "e f", *(f"{x} {y}" for x in "abcd" for y in "efg")]
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    rows = [json.dumps({"prompt": one, "response": text}) + "\n" for one in prompts for text in ("a", "b")]
    Path("file.jsonl").write_text("".join(rows))
    Path("letters.py").write_text(
        "def longer(prompts, a, b):\n    return [float(len(x) > len(y)) for x, y in zip(a, b)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return {
        "output_dir": "out",
        "policies": {
            "start": "start",
            "again": "start",
            "one": "one",
            "two": ["two-seed0", "two-seed1"],
            "file": "file:file.jsonl",
        },
        "reference": "start",
        "judges": {"longer": "python:letters:longer"},
        "prompts": "prompts.jsonl",
        "sampling": {"responses": 2, "max_new_tokens": 4},
        "length_control": False,
        "distance": True,
    }


def test_a_suite_has_the_distance_of_every_policy_with_a_model(world: dict[str, Any]) -> None:
    result = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    far: dict[str, Any] = {name: one.distance for name, one in result.policies.items()}
    assert far["start"] is None and far["file"] is None
    assert far["again"].value == pytest.approx(0.0, abs=1e-6)
    answers = {}
    for line in Path("out/answers/one.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        key = record.pop("prompt")
        answers[key] = Answer(**record)
    prompts = [json.loads(line)["prompt"] for line in Path("prompts.jsonl").read_text().splitlines()]
    given = [answers[prompt_key(prompt)] for prompt in prompts]
    found = dict(kl_of_answers(tiny_model(1), tiny_model(0), tiny_tokenizer(), prompts, given))
    assert far["one"].value == pytest.approx(np.mean(list(found.values())), rel=1e-5)
    assert far["one"].low < far["one"].value < far["one"].high and far["one"].method == "bca"
    assert result.policies["one"].run_distances == (pytest.approx(far["one"].value),)
    runs = result.policies["two"].run_distances
    assert len(runs) == 2 and np.mean(runs) == pytest.approx(far["two"].value) and runs[0] != runs[1]
    assert far["two"].method == "crossed" and far["two"].low >= 0.0, "over seeds and prompts"
    assert any("no distance of file to start: it answers from elsewhere" in note for note in result.notes)
    table = suite_tables(result)[0]
    assert table.header[-1] == "KL to start, nats" and table.rows[2][-1] == far["one"]


def test_some_of_the_prompts_are_drawn_at_random_the_same_for_all(world: dict[str, Any]) -> None:
    del world["policies"]["file"]
    evaluate_suite(SuiteConfig.from_dict(world | {"distance": 6}), tell=lambda _: None, progress=False)
    measured = [
        [json.loads(line)["prompt"] for line in path.read_text().splitlines()[1:]]
        for path in Path("out/distances").glob("*.jsonl")
    ]
    assert len(measured) == 4 and all(set(keys) == set(measured[0]) and len(keys) == 6 for keys in measured)
    prompts = [json.loads(line)["prompt"] for line in Path("prompts.jsonl").read_text().splitlines()]
    assert set(measured[0]) != {prompt_key(prompt) for prompt in prompts[:6]}


def test_what_was_measured_is_kept(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    monkeypatch.setattr(CheckpointPlayer, "loaded", lambda player: pytest.fail(f"{player} was loaded again"))
    again = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    assert again.policies == first.policies


def test_other_answers_are_measured_again(world: dict[str, Any]) -> None:
    first = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    path = Path("out/answers/one.jsonl")
    head, *lines = path.read_text().splitlines()
    changed = [json.dumps({**json.loads(line), "texts": ["a b", "b"], "truncated": [False, False]}) for line in lines]
    path.write_text("\n".join([head, *changed]) + "\n")
    again = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    assert again.policies["one"].distance != first.policies["one"].distance
    assert again.policies["two"].distance == first.policies["two"].distance


def test_a_model_with_other_padding_of_its_logits_has_no_distance_and_stops_nobody(world: dict[str, Any]) -> None:
    wide = tiny_model(1)
    wide.resize_token_embeddings(len(WORDS) + 8)
    wide.save_pretrained("one")
    result = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    assert result.policies["one"].distance is None and result.policies["two"].distance is not None
    assert any("no distance of one to start: it has 24 logits and start 16" in note for note in result.notes)


def test_another_vocabulary_has_no_distance(world: dict[str, Any]) -> None:
    config = json.loads(Path("one/tokenizer.json").read_text())
    config["model"]["vocab"] = {word: len(WORDS) - 1 - at for at, word in enumerate(WORDS)}
    Path("one/tokenizer.json").write_text(json.dumps(config))
    result = evaluate_suite(SuiteConfig.from_dict(world), tell=lambda _: None, progress=False)
    assert result.policies["one"].distance is None and result.policies["two"].distance is not None
    assert any("no distance of one to start: it has another vocabulary than start" in note for note in result.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": None}, "there is no reference to be distant from"),
        ({"reference": "file"}, "the reference 'file' is 1 × file; expected one model or adapter"),
        ({"reference": "two"}, "the reference 'two' is 2 × model; expected one model or adapter"),
        ({"sampling": {"temperature": 0.7}}, "with temperature 0.7, top_p 1.0 and top_k 0; expected 1.0, 1.0 and 0"),
        ({"distance": "yes"}, "distance is 'yes', expected true, false, or a number of prompts, at least 1"),
        ({"distance": 0}, "distance is 0, expected true, false, or a number of prompts, at least 1"),
    ],
)
def test_what_has_no_distance_is_refused_before_anything_is_loaded(
    world: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, MagnetarError), match=message.replace("(", r"\(")):
        SuiteConfig.from_dict(world | changes)
