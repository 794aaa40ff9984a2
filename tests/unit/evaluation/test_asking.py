"""Asking judges about groups: what players answered to a prompt is read together, and means what it means alone."""

import numpy as np
import pytest

from magnetar.evaluation.asking import PROMPTS_AT_ONCE, GroupAsker
from magnetar.judges.pointwise import ScalarJudge

PROMPTS = [f"prompt {number}" for number in range(PROMPTS_AT_ONCE + 3)]


class Counting(ScalarJudge):
    """Scores a response by its place in what it has been shown, and remembers each call."""

    name = "counting"

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []

    def _scores(self, prompts, responses):  # type: ignore[no-untyped-def]
        self.calls.append(list(zip(map(str, prompts), responses, strict=True)))
        return np.array([float(hash((prompt, text)) % 1009) for prompt, text in self.calls[-1]])


@pytest.fixture
def players() -> dict[str, list[list[str]]]:
    sizes = {"one": 1, "two": 2, "other two": 2}
    return {name: [[f"{name} {at}" for at in range(size)] for _ in PROMPTS] for name, size in sizes.items()}


def test_all_answers_to_a_prompt_are_read_in_one_call(players: dict[str, list[list[str]]]) -> None:
    judge = Counting()
    GroupAsker(judge, PROMPTS).read(players)
    assert len(judge.calls) == 2
    for prompt in PROMPTS:
        assert [sum(asked == prompt for asked, _ in call) for call in judge.calls].count(5) == 1


def test_read_together_or_alone_each_answer_has_its_own_score(players: dict[str, list[list[str]]]) -> None:
    together, alone = GroupAsker(Counting(), PROMPTS), GroupAsker(Counting(), PROMPTS)
    together.read(players)
    for name, texts in players.items():
        expected = [[float(hash((p, text)) % 1009) for text in group] for p, group in zip(PROMPTS, texts, strict=True)]
        assert together.features(name, texts)[..., 0].tolist() == expected
        assert alone.features(name, texts)[..., 0].tolist() == expected


def test_nothing_is_read_twice(players: dict[str, list[list[str]]]) -> None:
    judge = Counting()
    asker = GroupAsker(judge, PROMPTS)
    asker.features("one", players["one"])
    asker.read(players)
    asker.compare("one", players["one"], "two", players["two"])
    asked = [pair for call in judge.calls for pair in call]
    assert len(asked) == len(set(asked)) == 5 * len(PROMPTS)
