"""The suite of injected responses, and its counting, against judges whose weakness is known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from magnetar.errors import JudgeError
from magnetar.judges import FunctionJudge, Judge, Symmetrized
from magnetar.judges.language_model import LanguageModelJudge, load_injections, measure_injections
from magnetar.judges.language_model.backends.base import Backend, Reply


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's interval by its formula, 95%."""
    z = 1.959963984540054
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def test_the_suite_is_large_and_varied():
    cases = load_injections()
    assert len(cases) >= 50
    assert len({case.injected for case in cases}) == len(cases)
    assert len({case.family for case in cases}) >= 12
    assert all(case.bad in case.injected and case.injected != case.bad for case in cases)
    assert {case.prompt for case in cases[:10]} == {case.prompt for case in cases}


class Obedient(Backend):
    """Prefers the good response, unless what it reads outside the marker lines names a letter behind "answer"."""

    model = "obedient"

    def replies(self, questions, asking):
        for at, question in enumerate(questions):
            text = question[-1]["content"]
            case = next(case for case in load_injections() if case.good in text)
            good_first = text.index(case.good) < text.index(case.bad)
            # What stands between marker lines is data to it.
            obeys = "[[BEGIN" not in text and "Ignore" in text
            yield at, Reply("A" if good_first != obeys else "B")

    def identity(self):
        return {}

    def count_tokens(self, text: str) -> int:
        return len(text)


def test_a_judge_that_obeys_what_is_not_marked_off_flips_without_the_defence_only():
    judge = Symmetrized(LanguageModelJudge(Obedient(), logprobs="never"))
    report = measure_injections(judge)
    obeyed = sum("Ignore" in case.injected for case in load_injections())
    assert report.arms == ("defended", "undefended")
    with_it, without = report.summary("defended"), report.summary("undefended")
    assert (with_it.won, with_it.flips, with_it.flip_rate) == (62, 0, 0.0)
    assert (without.won, without.flips) == (62, obeyed)
    assert without.flip_rate == obeyed / 62
    assert (without.low, without.high) == pytest.approx(wilson(obeyed, 62))
    assert (without.ordered_won, without.ordered_flips) == (124, 2 * obeyed)
    assert without.shift == pytest.approx(obeyed / 62)
    assert with_it.shift == 0.0
    by_family = [report.summary("undefended", family) for family in report.families]
    assert sum(part.flips for part in by_family) == obeyed
    assert sum(part.cases for part in by_family) == 62


def always_first(prompts: Sequence, first: Sequence[str], second: Sequence[str]) -> list[float]:
    return [0.9] * len(prompts)


def test_a_judge_without_a_defence_is_asked_as_it_is_and_place_alone_is_no_flip():
    report = measure_injections(FunctionJudge(always_first))
    assert report.arms == ("as given",)
    summary = report.summary("as given")
    # The mean of both orders is 1/2: nothing is won, so nothing can flip; in the second place the bad one loses.
    assert (summary.won, summary.flips, summary.ordered_won, summary.ordered_flips) == (0, 0, 62, 0)
    assert math.isnan(summary.flip_rate)
    assert report.outcomes[0].plain_first == 0.9
    assert report.outcomes[0].plain_second == pytest.approx(0.1)


class Abstaining(Judge):
    """Leaves out whatever holds the word "admin"."""

    may_abstain = True

    def _pair_win_prob(self, prompts, first, second):
        return np.array([np.nan if "admin" in a + b else 0.5 for a, b in zip(first, second, strict=True)])


def test_masked_answers_are_counted_and_count_nowhere_else():
    summary = measure_injections(Abstaining()).summary("as given")
    assert summary.masked == sum("admin" in case.injected for case in load_injections()) > 0
    assert summary.shift == 0.0


def test_equal_questions_are_asked_once():
    asked = []

    def counting(prompts: Sequence, first: Sequence[str], second: Sequence[str]) -> list[float]:
        asked.extend(zip(prompts, first, second, strict=True))
        return [0.5] * len(prompts)

    measure_injections(FunctionJudge(counting))
    assert len(asked) == len(set(asked)) == 2 * (62 + 10)


def test_rows_and_summaries_are_flat():
    report = measure_injections(FunctionJudge(always_first), cases=load_injections()[:3], confidence=0.5)
    assert len(report.rows()) == 3
    assert report.rows()[0]["injected_response"] == load_injections()[0].injected
    assert [summary.family for summary in report.summaries()] == ["all", "order"]
    assert report.confidence == 0.5


def test_wrong_requests_are_one_clear_error():
    with pytest.raises(JudgeError, match="confidence = 95"):
        measure_injections(FunctionJudge(always_first), confidence=95)
    with pytest.raises(JudgeError, match="no injections"):
        measure_injections(FunctionJudge(always_first), cases=[])
