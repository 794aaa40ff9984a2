"""What a judge says of the devices that it leaves free and the calls that it gains by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_classifiers import make_model, make_tokenizer

from magnetar.judges import (
    Batched,
    Cached,
    CombinedJudge,
    FunctionJudge,
    Judge,
    MatrixJudge,
    RateLimited,
    Recorded,
    Symmetrized,
)
from magnetar.judges.models.classifier import SequenceClassifier
from magnetar.judges.models.general import GeneralPreferenceJudge
from magnetar.judges.models.pairwise import PairwiseModelJudge
from magnetar.judges.models.scalar import RewardModelJudge
from magnetar.judges.wrappers.relay import Relay, relayed
from magnetar.modeling.devices import are_apart


class Elsewhere(Judge):
    """Answers without any device, and gains by three calls at once."""

    name = "elsewhere"
    calls_at_once = 3

    def leaves_free(self, device: str) -> bool:
        return device == "cuda:1"

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        return [0.5] * len(prompts)

    def _identity(self) -> dict[str, Any]:
        return {"version": 1}


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        *[("cpu", "cpu", False), ("cuda:0", "cpu", True), ("cuda:0", "cuda:1", True), ("cuda:1", "cuda:1", False)],
        # Without a number it is the current one, which may be either.
        *[("cuda", "cuda:1", False), ("cuda:0", "cuda", False), ("cuda", "cpu", True), ("mps", "cpu", True)],
    ],
)
def test_devices_are_apart_only_if_they_surely_are(first: str, second: str, apart: bool) -> None:
    assert are_apart(first, second) == are_apart(torch.device(second), first) == apart


def test_a_judge_that_says_nothing_is_asked_by_the_trainer_itself() -> None:
    for judge in (MatrixJudge(["a"], [[0.5]]), FunctionJudge(lambda prompts, first, second: [0.5])):
        assert judge.calls_at_once == 1
        assert not any(judge.leaves_free(device) for device in ("cpu", "cuda:0"))


def test_wrappers_say_what_the_judge_inside_says(tmp_path: Path) -> None:
    inner = Elsewhere()
    wrapped = [
        *[Symmetrized(inner), Cached(inner, tmp_path / "cache"), Recorded(inner, tmp_path / "record.jsonl")],
        *[Batched(inner, 4), RateLimited(inner, 60.0), Symmetrized(Cached(Batched(inner, 2), tmp_path / "two"))],
        CombinedJudge([inner, Elsewhere()]),
    ]
    for judge in wrapped:
        assert judge.calls_at_once == 3
        assert judge.leaves_free("cuda:1") and not judge.leaves_free("cuda:0")


def test_one_judge_that_needs_the_device_or_one_call_at_a_time_holds_for_a_panel() -> None:
    panel = CombinedJudge([Elsewhere(), MatrixJudge(["a"], [[0.5]])])
    assert panel.calls_at_once == 1 and not panel.leaves_free("cuda:1")

    class Mine(Relay):
        def pass_on(self, questions: Any, ask: Any, count: Any) -> Any:
            yield from ask(questions)

    assert relayed(Elsewhere(), Mine()).calls_at_once == 1  # it does not say that it is made for threads


def test_a_model_leaves_every_device_free_but_its_own() -> None:
    tokenizer = make_tokenizer(chat=False)
    judges = [
        RewardModelJudge(SequenceClassifier(make_model("llama", tokenizer), tokenizer)),
        PairwiseModelJudge(SequenceClassifier(make_model("llama", tokenizer), tokenizer)),
        GeneralPreferenceJudge(SequenceClassifier(make_model("llama", tokenizer, 2), tokenizer)),
    ]
    for judge in judges:
        assert judge.calls_at_once == 1
        assert judge.leaves_free("cuda:0") and not judge.leaves_free("cpu")
