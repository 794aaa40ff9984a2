"""An identity covers all that decides an answer, and nothing else: changed answers are never read from a cache."""

import functools
import importlib
import linecache
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_classifiers import make_model, make_tokenizer

from magnetar.errors import JudgeError
from magnetar.judges import JUDGE_KINDS, FunctionJudge, MatrixJudge, Recorded, ScoreFunctionJudge, build_judge

RUNNING = {
    "tokens_per_batch": 7,
    "cache": "somewhere.sqlite",
    "record": "somewhere.jsonl",
    "requests_per_minute": 1e6,
    "questions_per_call": 3,
}
"""How a judge is run, which decides no answer."""
LABELS = {"reward": 1, "cost": 1, "general": 4, "pairwise": 2}
MODEL_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "reward": {"temperature": 2.0, "max_length": 9, "dtype": "float64", "on_long": "error"},
    "cost": {"temperature": 2.0, "max_length": 9, "dtype": "float64", "on_long": "error"},
    "general": {"temperature": 2.0, "max_length": 9, "dtype": "float64", "on_long": "error", "normalize": False},
    "pairwise": {
        "template": "{prompt} {first} {second}",
        "first_label": 1,
        "symmetrize": False,
        "max_length": 9,
        "dtype": "float64",
    },
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")


def saved(folder: Path, labels: int) -> Path:
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", tokenizer, labels).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def model_identity(kind: str, folder: Path, **options: Any) -> str:
    return build_judge(f"{kind}:{folder}", **{"device": "cpu", **options}).identity()


@pytest.mark.parametrize("kind", sorted(LABELS))
def test_settings_that_decide_an_answer_are_part_of_a_models_identity(kind: str, tmp_path: Path):
    folder = saved(tmp_path / "model", LABELS[kind])
    first = model_identity(kind, folder)
    changed = {option: model_identity(kind, folder, **{option: value}) for option, value in MODEL_CHANGES[kind].items()}
    assert len({first, *changed.values()}) == 1 + len(changed), changed
    same = {option: model_identity(kind, folder, **{option: value}) for option, value in RUNNING.items()}
    assert set(same.values()) == {first}, same


@pytest.mark.parametrize("kind", sorted(LABELS))
def test_a_models_identity_is_that_of_its_files_wherever_they_lie(kind: str, tmp_path: Path):
    folder = saved(tmp_path / "model", LABELS[kind])
    first = model_identity(kind, folder)
    shutil.copytree(folder, tmp_path / "elsewhere" / "other name")
    assert model_identity(kind, tmp_path / "elsewhere" / "other name") == first
    (tmp_path / "elsewhere" / "other name" / "README.md").write_text("about it")
    assert model_identity(kind, tmp_path / "elsewhere" / "other name") == first
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    second = model_identity(kind, folder)
    assert second != first, "one bit of one weight"
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(" : ", " is ")
    tokenizer.save_pretrained(folder)
    assert model_identity(kind, folder) not in (first, second), "the chat template"


def test_weights_changed_in_memory_change_the_identity():
    from magnetar.judges import RewardModelJudge
    from magnetar.judges.models.classifier import SequenceClassifier

    tokenizer = make_tokenizer(chat=True)
    model = make_model("llama", tokenizer)
    judge = RewardModelJudge(SequenceClassifier(model, tokenizer))
    first = judge.identity()
    assert RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), tokenizer)).identity() == first
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    assert judge.identity() != first


def test_kinds_of_model_are_told_apart(tmp_path: Path):
    folder = saved(tmp_path / "model", 1)
    assert model_identity("reward", folder) != model_identity("cost", folder)


LLM_CHANGES = {
    "template": "harmlessness",
    "base_url": "http://localhost:9/other",
    "defence": False,
    "logprobs": "never",
    "min_choice_mass": 0.25,
    "temperature": 0.5,
    "max_length": 77,
    "version": "2",
    "symmetrize": False,
}
LLM_RUNNING = {
    "concurrency": 3,
    "timeout_seconds": 9.0,
    "deadline_seconds": 99.0,
    "max_retries": 1,
    "max_calls": 10,
    "max_tokens_total": 1000,
    "requests_per_minute": 60,
    "api_key_env": "ANOTHER_KEY",
    "cache": "somewhere.sqlite",
}


def test_an_endpoints_identity_is_its_question_not_its_traffic(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("openai", reason="the extra `llm` is not installed")
    monkeypatch.setenv("ANOTHER_KEY", "another-key")

    def identity(**options: Any) -> str:
        return build_judge("llm:some-model", **{"base_url": "http://localhost:9/v1", **options}).identity()

    first = identity()
    changed = {option: identity(**{option: value}) for option, value in LLM_CHANGES.items()}
    assert len({first, *changed.values()}) == 1 + len(changed), changed
    other = build_judge("llm:other-model", base_url="http://localhost:9/v1").identity()
    assert other not in {first, *changed.values()}
    same = {option: identity(**{option: value}) for option, value in LLM_RUNNING.items()}
    assert set(same.values()) == {first}, same


def test_every_kind_is_covered_here():
    assert set(JUDGE_KINDS) <= {*LABELS, "llm", "matrix", "panel", "python", "replay", "model"}


def test_a_tables_identity_is_its_content(tmp_path: Path):
    one = MatrixJudge(["a", "b"], [[0.5, 0.7], [0.3, 0.5]], name="one")
    assert one.identity() == MatrixJudge(["a", "b"], [[0.5, 0.7], [0.3, 0.5]], name="two").identity()
    assert one.identity() != MatrixJudge(["a", "c"], [[0.5, 0.7], [0.3, 0.5]]).identity()
    assert one.identity() != MatrixJudge(["a", "b"], [[0.5, 0.6], [0.4, 0.5]]).identity()


def test_the_embedded_panels_identity_is_the_same_in_every_run():
    pytest.importorskip("textstat", reason="the extra `panel` is not installed")
    assert build_judge("panel").identity() == build_judge("panel", cache="c").identity()


def test_a_replays_identity_is_its_answers():
    judge = MatrixJudge(["a", "b"], [[0.5, 0.7], [0.3, 0.5]])
    for path in ("one", "two"):
        Recorded(judge, path).pair_win_prob(["p"], ["a"], ["b"])
    assert build_judge("replay:one").identity() == build_judge("replay:two").identity()
    Recorded(judge, "two").pair_win_prob(["q"], ["a"], ["b"])
    assert build_judge("replay:one").identity() != build_judge("replay:two").identity()


# ---- functions -------------------------------------------------------------------------------------------------------


def scaled(factor: Any) -> Callable[..., object]:
    def score(prompts, responses):  # type: ignore[no-untyped-def]
        return [len(text) * factor for text in responses]

    return score


def weighted(prompts, responses, weight=1.0):  # type: ignore[no-untyped-def]
    return [weight * len(text) for text in responses]


def of_pairs(prompts, first, second, *, weight=0.5):  # type: ignore[no-untyped-def]
    return [weight] * len(prompts)


class Scorer:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, prompts, responses):  # type: ignore[no-untyped-def]
        return [self.weight * len(text) for text in responses]

    def score(self, prompts, responses):  # type: ignore[no-untyped-def]
        return self(prompts, responses)


ONE_LINE = [lambda prompts, responses: [1.0 for _ in prompts], lambda prompts, responses: [2.0 for _ in prompts]]


@pytest.mark.parametrize(
    "make",
    [
        scaled,
        lambda value: functools.partial(weighted, weight=value),
        lambda value: scaled([value, {"deep": value}]),
        lambda value: scaled(np.array([value, value])),
        lambda value: scaled(scaled(value)),
        Scorer,
        lambda value: Scorer(value).score,
        lambda value: Scorer({"deep": [value]}),
    ],
    ids=["closure", "partial", "nested values", "array", "nested function", "object", "method", "attributes"],
)
def test_values_bound_to_a_function_are_part_of_its_identity(make: Callable[[float], Callable[..., object]]):
    one, again, other = (ScoreFunctionJudge(make(value)).identity() for value in (1.0, 1.0, 2.0))
    assert one == again != other


def test_functions_of_one_module_are_told_apart():
    identities = [ScoreFunctionJudge(function).identity() for function in (*ONE_LINE, weighted, scaled(1.0))]
    identities.append(FunctionJudge(of_pairs).identity())
    identities.append(FunctionJudge(functools.partial(of_pairs, weight=0.25)).identity())
    assert len(set(identities)) == len(identities)


def test_a_partial_is_known_by_the_function_within():
    judge = FunctionJudge(functools.partial(functools.partial(of_pairs), weight=0.25))
    assert judge.name.endswith(":of_pairs")


def test_a_value_that_cannot_be_told_needs_a_version():
    with pytest.raises(
        JudgeError, match=r"it\.factor is a object, of which cannot be told .* give the judge a version"
    ):
        ScoreFunctionJudge(scaled(object())).identity()
    one, other = (ScoreFunctionJudge(scaled(object()), version=version).identity() for version in ("1", "2"))
    assert one != other


def test_a_function_that_refers_to_itself_has_an_identity():
    def score(prompts, responses):  # type: ignore[no-untyped-def]
        return [float(len(text)) for text in responses] if prompts else score(["p"], responses)

    assert ScoreFunctionJudge(score).identity() == ScoreFunctionJudge(score).identity()


def test_a_function_without_source_needs_a_version():
    scope: dict[str, Any] = {"__name__": "nowhere"}
    exec("def score(prompts, responses):\n    return [1.0] * len(responses)\n", scope)
    with pytest.raises(JudgeError, match=r"the source of it cannot be read .* give the judge a version"):
        ScoreFunctionJudge(scope["score"]).identity()
    assert ScoreFunctionJudge(scope["score"], version="1").identity()


def test_a_changed_helper_in_the_module_changes_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    identities = []
    for helper in ("len(text)", "-len(text)", "len(text)"):
        (tmp_path / "helped_judge.py").write_text(
            f"def helper(text):\n    return {helper}\n"
            "def score(prompts, responses):\n    return [helper(text) for text in responses]\n"
        )
        sys.modules.pop("helped_judge", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        identities.append(build_judge("python:helped_judge:score").identity())
    sys.modules.pop("helped_judge", None)
    assert identities[0] == identities[2] != identities[1]
    assert build_judge(weighted, version="1").identity() != build_judge(weighted, version="2").identity()
    assert build_judge(weighted, temperature=2.0).identity() != build_judge(weighted).identity()
