"""Samples of a comparison are what the first runs answered, with what the judge made of these two."""

import numpy as np
import pytest

from magnetar.evaluation import Responses
from magnetar.evaluation.comparison.contestants import REFERENCE, Answers
from magnetar.evaluation.comparison.results import Spent
from magnetar.evaluation.comparison.round_robin import WinRates
from magnetar.evaluation.comparison.samples import comparison_samples
from magnetar.evaluation.comparison.tables import FinishedRun

PROMPTS = [f"prompt {number}" for number in range(9)]


def run(label: str, seed: int) -> FinishedRun:
    return FinishedRun(label, "mpo", seed, f"{label}-{seed}", Spent(1, 1, 1, 1), (), 1)


def answers(name: str) -> Answers:
    texts = [[f"{name} to {prompt}", "second"] for prompt in PROMPTS]
    return Answers(Responses(texts, np.ones((9, 2), int), np.zeros((9, 2), bool)), np.zeros((9, 2)))


@pytest.fixture
def rates() -> WinRates:
    names = ("a-0", "a-1", "b-0", REFERENCE)
    table = np.random.default_rng(0).random((4, 4, 9))
    table[0, 2, 3] = np.nan
    return WinRates(names, table)


def test_samples_hold_first_responses_of_first_runs_and_the_judges_means(rates: WinRates) -> None:
    runs = [run("a", 0), run("a", 1), run("b", 0)]
    found = comparison_samples(
        runs, {name: answers(name) for name in rates.names}, PROMPTS, rates, "j", count=20, seed=1
    )
    assert sorted(str(one.prompt) for one in found) == PROMPTS, "all, if fewer were answered than asked for"
    for one in found:
        at = PROMPTS.index(str(one.prompt))
        assert one.responses == {
            "a": f"a-0 to {one.prompt}", "b": f"b-0 to {one.prompt}", REFERENCE: f"{REFERENCE} to {one.prompt}"
        }  # fmt: skip
        assert one.win_prob["j"]["a"]["b"] == (None if at == 3 else rates.win_prob_PPB[0, 2, at])
        assert one.win_prob["j"][REFERENCE]["b"] == rates.win_prob_PPB[3, 2, at]
        assert set(one.win_prob["j"]["a"]) == {"b", REFERENCE}


def test_the_draw_is_random_and_the_seeds(rates: WinRates) -> None:
    def drawn(seed: int) -> list[str]:
        some = {name: answers(name) for name in rates.names}
        return [
            str(one.prompt) for one in comparison_samples([run("a", 0)], some, PROMPTS, rates, "j", count=4, seed=seed)
        ]

    assert drawn(1) == drawn(1) != drawn(2) and len(set(drawn(1))) == 4
