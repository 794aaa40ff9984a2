"""What a judge is asked, and the figures of answers that can be computed by hand."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from magnetar.errors import ConfigError, DataError, JudgeError
from magnetar.evaluation.judging import ask_pairs, evaluate_judge, measure_judge, response_groups
from magnetar.evaluation.judging.pairs import Pairs
from magnetar.judges import FunctionJudge, Judge, ScoreFunctionJudge, Symmetrized


def longer(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def first_always(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
    return [1.0] * len(prompts)


class Table(Judge):
    """Answers from a table of ordered pairs; what is not there is not answered. Remembers what it was asked."""

    name = "table"
    may_abstain = True

    def __init__(self, answers: dict[tuple[str, str], float]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        asked = list(zip(first, second, strict=True))
        self.asked += asked
        return np.array([self.answers.get(pair, np.nan) for pair in asked])


def rows(*triples: tuple[str, str, float], prompts: Sequence[str] | None = None) -> dict[str, Any]:
    return {
        "prompt": list(prompts or [f"p{i}" for i in range(len(triples))]),
        "first": [first for first, _, _ in triples],
        "second": [second for _, second, _ in triples],
        "win_prob": [label for _, _, label in triples],
    }


def test_pairs_of_one_prompt_count_as_one_in_every_interval() -> None:
    def answers(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [float(response.split()[0]) for response in responses]

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(40, 2)).round(2)
    single = rows(*[(f"{a} a", f"{b} b", 1.0) for a, b in scores])
    # Each prompt five times, with other texts of the same scores.
    fold = [(f"{a} a{'x' * i}", f"{b} b{'x' * i}", 1.0) for a, b in scores for i in range(5)]
    fivefold = rows(*fold, prompts=[f"p{at}" for at in range(40) for _ in range(5)])
    one, five = (evaluate_judge(ScoreFunctionJudge(answers), data, max_group=0).labels for data in (single, fivefold))
    assert one is not None and five is not None
    for name in ("accuracy", "brier", "cross_entropy_nats"):
        a, b = getattr(one, name), getattr(five, name)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


def test_a_judge_of_places_gains_nothing_from_chosen_standing_first() -> None:
    data = rows(*[(f"a{i}", f"b{i}", 1.0) for i in range(20)])
    found = evaluate_judge(FunctionJudge(first_always), data)
    assert found.labels is not None and found.flips is not None and found.first_place is not None
    assert found.labels.accuracy.value == 0.5  # right in one order, wrong in the other
    assert found.flips.value == 1.0 and found.first_place.value == 1.0
    assert found.labels.calibration.error.value == pytest.approx(0.5)
    averaged = evaluate_judge(Symmetrized(FunctionJudge(first_always)), data)
    assert averaged.labels is not None and averaged.flips is not None
    assert averaged.labels.accuracy.value == 0.5 and averaged.ties.value == 1.0 and averaged.flips.value == 1.0
    assert (found.asked, averaged.asked) == ("both orders, each counted one half", "both orders, averaged")


def test_figures_by_hand() -> None:
    data = rows(("a", "b", 1.0), ("c", "d", 0.0), ("e", "f", 0.8), ("g", "h", 0.5), ("i", "j", 1.0))
    forward = {("a", "b"): 0.9, ("c", "d"): 0.6, ("e", "f"): 0.5, ("g", "h"): 0.7}
    backward = {("b", "a"): 0.2, ("d", "c"): 0.6, ("f", "e"): 0.5, ("h", "g"): 0.3}
    judged = ask_pairs(Symmetrized(Table(forward | backward)), data)
    assert judged.win_prob_N[:4] == pytest.approx([0.85, 0.5, 0.5, 0.7]) and np.isnan(judged.win_prob_N[4])
    found = measure_judge(judged)
    assert (found.pairs, found.masked) == (5, 1)
    assert found.flips is not None and found.flips.value == pytest.approx(1 / 4)  # the second pair; ties are no flips
    assert found.first_place is not None
    assert found.first_place.value == pytest.approx(np.mean([0.55, 0.6, 0.5, 0.5]))
    labels = found.labels
    assert labels is not None and labels.soft and (labels.pairs, labels.label_ties) == (3, 1)
    assert labels.accuracy.value == pytest.approx((1 + 0.5 + 0.5) / 3)
    p, label = np.array([0.85, 0.5, 0.5, 0.7]), np.array([1.0, 0.0, 0.8, 0.5])
    entropy = -(label * np.log(p) + (1 - label) * np.log(1 - p))
    assert labels.cross_entropy_nats.value == pytest.approx(entropy.mean())
    least = -sum(x * np.log(x) for x in (0.8, 0.2, 0.5, 0.5)) / 4
    assert labels.label_entropy_nats == pytest.approx(least)
    assert labels.brier.value == pytest.approx(((p - label) ** 2).mean())
    assert labels.calibration.error_if_calibrated is None  # soft labels are not drawn


def test_log_loss_and_brier_are_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores = {f"r{i}": float(x) for i, x in enumerate(rng.normal(size=200))}
    label = rng.integers(0, 2, 100).astype(float)
    data = rows(*[(f"r{2 * i}", f"r{2 * i + 1}", label[i]) for i in range(100)])
    judge = ScoreFunctionJudge(lambda prompts, responses: [scores[r] for r in responses])
    labels = evaluate_judge(judge, data).labels
    p = ask_pairs(judge, data).win_prob_N
    assert labels is not None
    assert labels.accuracy.value == pytest.approx(metrics.accuracy_score(label, p > 0.5))
    assert labels.cross_entropy_nats.value == pytest.approx(metrics.log_loss(label, p))
    assert labels.brier.value == pytest.approx(metrics.brier_score_loss(label, p))


def test_a_pointwise_judge_reads_each_response_once_and_has_no_flips() -> None:
    read: list[str] = []

    def score(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        read.extend(responses)
        return longer(prompts, responses)

    data = rows(("base", "longer one", 0.0), ("base", "x", 1.0), ("base", "y", 1.0), prompts=["p", "p", "q"])
    found = evaluate_judge(ScoreFunctionJudge(score), data, max_group=0)
    assert sorted(read) == ["base", "base", "longer one", "x", "y"]
    assert found.flips is None and found.first_place is None and found.flips_note is not None
    assert found.labels is not None and found.labels.accuracy.value == 1.0


def test_cycles_are_measured_on_prompts_with_three_responses_and_never_reported_as_zero_without() -> None:
    beats = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}
    table = {(a, b): float((a, b) in beats) for a, b in [*beats, *((b, a) for a, b in beats)]}
    triple = rows(("rock", "paper", 0.0), ("scissors", "rock", 0.0), prompts=["p", "p"])
    found = evaluate_judge(Table(table), triple)
    assert found.cycles is not None and found.cycles.share.value == 1.0 and found.cycles.triples == 1
    found = evaluate_judge(Table(table), rows(("rock", "paper", 0.0)))
    assert found.cycles is None and found.cycles_note == "no prompt has three different responses"
    silent = {pair: answer for pair, answer in table.items() if set(pair) != {"rock", "paper"}}
    found = evaluate_judge(
        Table(silent), rows(("rock", "scissors", 1.0), ("scissors", "paper", 1.0), prompts=["p", "p"])
    )
    assert found.cycles is not None and found.cycles.triples == 0 and np.isnan(found.cycles.share.value)


def test_groups_hold_distinct_responses_drawn_by_the_seed() -> None:
    pairs = Pairs(["p"] * 9, ["base"] * 9, [f"r{i % 8}" for i in range(9)])
    (group,) = response_groups(pairs, max_responses=9, seed=0)
    assert group.responses == ["base", *(f"r{i}" for i in range(8))]
    draws = {tuple(response_groups(pairs, max_responses=4, seed=seed)[0].responses) for seed in range(20)}
    assert all(len(set(draw)) == 4 for draw in draws) and len(draws) > 10


def test_length_figures_by_hand() -> None:
    # The judge takes the longer one always; the labels do so twice in three, and one pair is of equal length.
    data = rows(("aaaa", "b", 1.0), ("c", "dddd", 0.0), ("ee", "f", 0.0), ("gg", "hh", 1.0))
    found = evaluate_judge(ScoreFunctionJudge(longer), data)
    assert found.prefers_longer.value == 1.0 and found.length_correlation.value == pytest.approx(1.0)
    labels = found.labels
    assert labels is not None
    assert (labels.length.pairs_longer, labels.length.pairs_shorter) == (2, 1)
    assert (labels.length.accuracy_longer.value, labels.length.accuracy_shorter.value) == (1.0, 0.0)
    rule = labels.baselines["longer wins"]
    assert rule.accuracy.value == pytest.approx(2.5 / 4) and rule.difference.value == pytest.approx(0.0)
    other = labels.baselines["shorter wins"]
    assert other.accuracy.value == pytest.approx(1.5 / 4) and other.difference.value == pytest.approx(0.25)
    assert list(labels.shown_baselines) == ["longer wins"]


def test_a_judge_that_has_learnt_brevity_is_held_against_brevity() -> None:
    data = rows(("aaaa", "b", 0.0), ("c", "dddd", 1.0), ("ee", "f", 0.0), ("gg", "h", 1.0))
    brief = ScoreFunctionJudge(lambda prompts, responses: [-float(len(response)) for response in responses])
    found = evaluate_judge(brief, data, baselines={"mine": [0.5] * 4}).labels
    assert found is not None and found.accuracy.value == 0.75
    assert list(found.baselines) == ["longer wins", "shorter wins", "mine"]
    assert list(found.shown_baselines) == ["shorter wins", "mine"]
    assert found.baselines["longer wins"].difference.value == 0.5
    assert found.shown_baselines["shorter wins"].difference.value == 0.0


def test_baselines_are_compared_on_the_pairs_that_both_answered() -> None:
    data = rows(*[(f"a{i}", f"b{i}", 1.0) for i in range(10)])
    judge = Symmetrized(
        Table({(f"a{i}", f"b{i}"): 0.9 for i in range(8)} | {(f"b{i}", f"a{i}"): 0.1 for i in range(8)})
    )
    words = np.array([1.0] * 4 + [0.0] * 4 + [1.0, 1.0])
    half = Table({(f"a{i}", f"b{i}"): 0.6 for i in range(2)} | {(f"b{i}", f"a{i}"): 0.4 for i in range(2)})
    found = evaluate_judge(judge, data, baselines={"words": words, "table": half})
    assert found.labels is not None
    baselines = found.labels.baselines
    assert baselines["words"].accuracy.value == 0.5 and baselines["words"].difference.value == 0.5
    assert baselines["table"].accuracy.value == 1.0 and baselines["table"].difference.value == 0.0
    low = baselines["words"].difference.low
    assert low is not None and 0.0 < low < 0.5
    with pytest.raises(DataError, match="baseline 'words'"):
        evaluate_judge(judge, data, baselines={"words": words[:3]})


def test_categories_partition_the_answered_pairs() -> None:
    data = {**rows(("aa", "b", 1.0), ("c", "dd", 1.0), ("ee", "f", 1.0)), "category": ["x", "x", "y"]}
    found = evaluate_judge(ScoreFunctionJudge(longer), Dataset.from_dict(data)).labels
    assert found is not None
    assert {name: (part.pairs, part.accuracy.value) for name, part in found.categories.items()} == {
        "x": (2, 0.5),
        "y": (1, 1.0),
    }
    silent = Symmetrized(Table({("aa", "b"): 1.0, ("b", "aa"): 0.0}))
    found = evaluate_judge(silent, data).labels
    assert found is not None and (found.categories["y"].pairs, found.categories["y"].masked) == (0, 1)


def test_the_worst_disagreements_come_first_and_are_disagreements() -> None:
    p = np.linspace(0.0, 1.0, 21)
    table = {(f"a{i}", f"b{i}"): x for i, x in enumerate(p)} | {(f"b{i}", f"a{i}"): 1 - x for i, x in enumerate(p)}
    data = rows(*[(f"a{i}", f"b{i}", 1.0) for i in range(21)])
    found = evaluate_judge(Symmetrized(Table(table)), data, disagreements=30).labels
    assert found is not None
    assert [one.win_prob for one in found.disagreements] == pytest.approx(p[:10].tolist())
    assert found.disagreements[0].first == "a0"


def test_without_labels_the_rest_is_measured_and_all_of_it_is_json() -> None:
    data = rows(("aa", "b", 1.0), ("c", "ddd", 1.0))
    del data["win_prob"]
    found = evaluate_judge(FunctionJudge(first_always), data)
    assert found.labels is None and found.flips is not None
    labelled = evaluate_judge(ScoreFunctionJudge(longer), rows(("aa", "b", 1.0), ("c", "ddd", 1.0)))
    for one in (found, labelled):
        assert json.loads(json.dumps(one.to_dict(), allow_nan=False)) == one.to_dict()


def test_progress_counts_every_pair_once() -> None:
    for judge in (ScoreFunctionJudge(longer), FunctionJudge(first_always)):
        steps: list[int] = []
        ask_pairs(judge, rows(*[(f"a{i}", "b", 1.0) for i in range(7)]), on_progress=steps.append)
        assert sum(steps) == 7


def test_answers_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows(*[("x" * (i % 5), "y" * (i % 3), 1.0) for i in range(23)])
    judge = FunctionJudge(
        lambda prompts, first, second: [len(a) / (len(a) + len(b) + 2) for a, b in zip(first, second, strict=True)]
    )
    whole = [ask_pairs(one, data) for one in (judge, ScoreFunctionJudge(longer))]
    monkeypatch.setattr("magnetar.evaluation.judging.pairs.PAIRS_PER_CALL", 4)
    for before, one in zip(whole, (judge, ScoreFunctionJudge(longer)), strict=True):
        assert np.array_equal(ask_pairs(one, data).answers_NK, before.answers_NK)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"first": None}, "no column 'first'"),
        ({"win_prob": [1.0, 1.2]}, "row 1: win_prob is 1.2"),
        ({"win_prob": [1.0, float("nan")]}, "row 1: win_prob is nan"),
        ({"win_prob": [1.0]}, "1 entries of label_N for 2 prompts"),
        ({"prompt": [], "first": [], "second": [], "win_prob": []}, "no pairs"),
    ],
)
def test_rows_of_the_wrong_form_are_refused(change: dict[str, Any], words: str) -> None:
    data = {k: v for k, v in (rows(("a", "b", 1.0), ("c", "d", 1.0)) | change).items() if v is not None}
    with pytest.raises(DataError, match=words):
        evaluate_judge(ScoreFunctionJudge(longer), data)


def test_settings_out_of_range_are_refused_and_so_is_a_judge_that_answers_nothing() -> None:
    data = rows(("a", "b", 1.0), ("c", "d", 1.0))
    for settings in ({"bootstrap": 99}, {"confidence": 1.0}):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            evaluate_judge(ScoreFunctionJudge(longer), data, **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="max_group=2"):
        evaluate_judge(ScoreFunctionJudge(longer), data, max_group=2)
    with pytest.raises(JudgeError, match="all 2 pairs unanswered"):
        evaluate_judge(Table({}), data)
