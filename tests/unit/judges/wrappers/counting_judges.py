"""Judges whose answers are a formula of the question, which keep what they were asked."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.judges import Judge, PointwiseJudge
from magnetar.types import Prompt


def pair_answer(prompt: Prompt, first: str, second: str) -> float:
    """Any number in [0, 1] that depends on all three and on their order."""
    text = f"{prompt}|{first}|{second}".encode("utf-8", "surrogatepass")
    return (sum((at % 97 + 1) * byte for at, byte in enumerate(text)) % 1009) / 1008


def features(judge: Judge, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """Features from a judge that must be pointwise."""
    assert isinstance(judge, PointwiseJudge)
    return judge.features(prompts, responses)


def masked_pair(first: str, second: str) -> bool:
    return "?" in first + second


class PairJudge(Judge):
    """Answers in batches of `size`, the last questions first; fails when `fails_after` questions were answered."""

    name = "pairs"

    def __init__(
        self,
        *,
        size: int = 3,
        version: int = 0,
        abstains: bool = False,
        fails_after: float = math.inf,
        seconds: float = 0.0,
    ) -> None:
        self.size = size
        self.version = version
        self.seconds = seconds
        self.may_abstain = abstains
        self.fails_after = fails_after
        self.asked: list[tuple[Prompt, str, str]] = []
        self.calls: list[int] = []

    def _identity(self) -> Mapping[str, Any]:
        return {"version": self.version}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        answers = np.zeros(len(prompts))
        for index, part in self._iter_pair_win_prob(prompts, first, second):
            answers[index] = part
        return answers

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.calls.append(len(prompts))
        order = np.arange(len(prompts))[::-1]
        for start in range(0, len(order), self.size):
            index = order[start : start + self.size]
            questions = [(prompts[at], first[at], second[at]) for at in map(int, index)]
            if len(self.asked) + len(questions) > self.fails_after:
                raise RuntimeError("the judge broke")
            time.sleep(self.seconds)
            self.asked += questions
            yield index, np.array([self.answer(*question) for question in questions])

    def answer(self, prompt: Prompt, first: str, second: str) -> float:
        if self.may_abstain and masked_pair(first, second):
            return math.nan
        return pair_answer(prompt, first, second)


class CircleJudge(PointwiseJudge):
    """Puts each response on a circle; the next half of the circle beats it. Names its comparison if told to."""

    name = "circle"

    def __init__(self, *, size: int = 3, named: bool = True, fails_after: float = math.inf) -> None:
        self.size = size
        self.named = named
        self.fails_after = fails_after
        self.read: list[tuple[Prompt, str]] = []

    def _identity(self) -> Mapping[str, Any]:
        return {}

    def comparison(self) -> Mapping[str, Any] | None:
        return {"rule": "general", "temperature": 0.5} if self.named else None

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        score = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
        return 1.0 / (1.0 + np.exp(-score / 0.5))

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        return np.array([self.place(*question) for question in zip(prompts, responses, strict=True)])

    def _iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(prompts), self.size):
            index = np.arange(start, min(start + self.size, len(prompts)))
            if len(self.read) + len(index) > self.fails_after:
                raise RuntimeError("the judge broke")
            rows = slice(start, start + self.size)
            self.read += list(zip(prompts[rows], responses[rows], strict=True))
            yield index, self._features(prompts[rows], responses[rows])

    @staticmethod
    def place(prompt: Prompt, response: str) -> tuple[float, float]:
        angle = 2.0 * math.pi * pair_answer(prompt, response, "")
        return math.cos(angle), math.sin(angle)
