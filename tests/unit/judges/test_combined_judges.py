"""Panels of any judges: each rule against its definition written out, whatever way the question is asked."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest

from magnetar.errors import JudgeError
from magnetar.judges import CombinedJudge, FunctionJudge, Judge, ScoreFunctionJudge, Symmetrized, build_judge
from magnetar.types import Prompt

TEXTS = ["rock", "paper", "scissors", "spock"]
GROUPS = [TEXTS, [*TEXTS[2:], "lizard", "rock"]]
PROMPTS: list[Prompt] = ["p", [{"role": "user", "content": "q"}]]


class Table(Judge):
    """An antisymmetric judge with an answer of its own for each pair, which keeps what it was asked."""

    def __init__(self, seed: int, *, abstains_from: str = "") -> None:
        self.name = f"table {seed}"
        self.seed = seed
        self.may_abstain = bool(abstains_from)
        self.abstains_from = abstains_from
        self.asked: list[Prompt] = []
        self.groups = 0

    def _identity(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "abstains_from": self.abstains_from}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        self.asked += prompts
        return np.array([self.answer(*question) for question in zip(prompts, first, second, strict=True)])

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> np.ndarray:
        self.groups += 1
        return super()._group_win_prob(prompts, responses)

    def answer(self, prompt: Prompt, a: str, b: str) -> float:
        if a == b:
            return 0.5
        if self.abstains_from and self.abstains_from in (a, b):
            return math.nan
        low, high = sorted((a, b))
        value = round(np.random.default_rng([self.seed, *f"{prompt}{low}|{high}".encode()]).uniform(), 3)
        return value if a == low else 1.0 - value


def votes(values: list[float]) -> list[float]:
    return [1.0 if value > 0.5 else 0.0 if value < 0.5 else 0.5 for value in values]


def by_hand(rule: str, values: list[float], weights: Sequence[float], on_abstain: str) -> float:
    shares = values if rule == "mean" else votes(values)
    given = [(share, weight) for share, weight, value in zip(shares, weights, values, strict=True) if value == value]
    if not given or (on_abstain == "mask" and len(given) < len(values)):
        return math.nan
    return sum(share * weight for share, weight in given) / sum(weight for _, weight in given)


@pytest.mark.parametrize("on_abstain", ["mask", "skip"])
@pytest.mark.parametrize("weights", [None, [1, 1, 1], [3.0, 0.5, 1e-3]])
@pytest.mark.parametrize("rule", ["mean", "majority"])
def test_each_pair_is_combined_by_the_definition(rule: str, weights: list[float] | None, on_abstain: str):
    judges = [Table(1), Table(2, abstains_from="spock"), Table(3, abstains_from="lizard")]
    panel = CombinedJudge(judges, rule=rule, weights=weights, on_abstain=on_abstain)
    assert panel.may_abstain
    expected = {
        (b, first, second): by_hand(
            rule, [judge.answer(prompt, first, second) for judge in judges], weights or [1.0] * 3, on_abstain
        )
        for b, prompt in enumerate(PROMPTS)
        for first in [*TEXTS, "lizard"]
        for second in [*TEXTS, "lizard"]
        if first != second
    }
    assert any(math.isnan(value) for value in expected.values()) == (on_abstain == "mask")
    group = panel.group_win_prob(PROMPTS, GROUPS)
    cross = panel.cross_win_prob(PROMPTS, GROUPS, [["lizard"], ["paper"]])
    for b in range(2):
        for i, j in permutations(range(4), 2):
            value = expected[b, GROUPS[b][i], GROUPS[b][j]]
            assert group[b, i, j] == pytest.approx(value, abs=1e-12, nan_ok=True)
        for i in range(4):
            against = ["lizard", "paper"][b]
            if GROUPS[b][i] != against:
                value = expected[b, GROUPS[b][i], against]
                assert cross[b, i, 0] == pytest.approx(value, abs=1e-12, nan_ok=True)
    keys = list(expected)
    pairs = panel.pair_win_prob([PROMPTS[b] for b, _, _ in keys], [a for _, a, _ in keys], [b for _, _, b in keys])
    np.testing.assert_allclose(pairs, list(expected.values()), atol=1e-12)


def test_a_group_question_goes_to_each_judge_as_a_group():
    read = Counter()

    def length(prompts, responses):  # type: ignore[no-untyped-def]
        read.update(responses)
        return [float(len(text)) for text in responses]

    table = Table(1)
    CombinedJudge([ScoreFunctionJudge(length), table]).group_win_prob(["p"], [TEXTS])
    assert read == Counter(TEXTS), "a judge of single responses reads each once"
    assert (table.groups, len(table.asked)) == (1, 6)


def test_transitive_judges_have_a_cyclic_majority_and_an_acyclic_mean_may_differ():
    orders = ["abc", "bca", "cab"]  # Condorcet's three voters

    def voter(order: str) -> Judge:
        return ScoreFunctionJudge(
            lambda prompts, responses: [-float(order.index(text)) for text in responses], name=f"voter {order}"
        )

    panel = CombinedJudge([voter(order) for order in orders], rule="majority")
    win_prob = panel.group_win_prob(["p"], [list("abc")])[0]
    np.testing.assert_allclose(win_prob, [[1 / 2, 2 / 3, 1 / 3], [1 / 3, 1 / 2, 2 / 3], [2 / 3, 1 / 3, 1 / 2]])
    stats = panel.stats()
    assert stats["cyclic_share"] == 1.0
    assert [stats[f"voter {order}/cyclic_share"] for order in orders] == [0.0, 0.0, 0.0]
    assert stats["split_share"] == 1.0
    dictator = CombinedJudge([voter(order) for order in orders], rule="majority", weights=[5, 1, 1])
    dictator.group_win_prob(["p"], [list("abc")])
    assert dictator.stats()["cyclic_share"] == 0.0


def test_ties_count_half_for_each_side():
    even = FunctionJudge(lambda prompts, first, second: [0.5 + 1e-9] * len(prompts))
    sure = FunctionJudge(lambda prompts, first, second: [0.9] * len(prompts))
    panel = CombinedJudge([even, sure, sure], rule="majority")
    assert panel.pair_win_prob(["p"], ["a"], ["b"])[0] == pytest.approx((0.5 + 1 + 1) / 3)


def test_disagreement_and_splits_are_those_of_all_pairs_of_judges():
    judges = [Table(1), Table(2, abstains_from="spock"), Table(3)]
    panel = CombinedJudge(judges)
    panel.group_win_prob(PROMPTS, GROUPS)
    distances, split, judged, cyclic = [], 0, 0, Counter()
    for b, prompt in enumerate(PROMPTS):
        for first, second in combinations(GROUPS[b], 2):
            answers = [judge.answer(prompt, first, second) for judge in judges]
            known = [answer for answer in answers if answer == answer]
            distances += [abs(x - y) for x, y in combinations(known, 2)]
            split += min(known) < 0.5 < max(known)
            judged += 1
        for judge in judges:
            for trio in combinations(GROUPS[b], 3):
                wins = [[judge.answer(prompt, x, y) for y in trio] for x in trio]
                if not np.isnan(wins).any():
                    cyclic[judge.name, "all"] += 1
                    beaten = [sum(value > 0.5 for value in row) for row in wins]
                    cyclic[judge.name, "cyclic"] += beaten == [1, 1, 1]
    stats = panel.stats()
    assert stats["disagreement"] == pytest.approx(np.mean(distances))
    assert stats["split_share"] == pytest.approx(split / judged)
    for judge in judges:
        expected = cyclic[judge.name, "cyclic"] / cyclic[judge.name, "all"]
        assert stats[f"{judge.name}/cyclic_share"] == pytest.approx(expected)
        assert stats[f"{judge.name}/comparisons"] == 12
    assert sum(cyclic[judge.name, "cyclic"] for judge in judges) > 0
    assert stats["masked"] == sum("spock" in pair for group in GROUPS for pair in combinations(group, 2))
    assert panel.stats() == {}
    pairs = CombinedJudge([Table(1), Table(1)])
    pairs.pair_win_prob(["p"] * 3, TEXTS[:3], TEXTS[1:])
    assert (pairs.stats() | {})["disagreement"] == 0.0


def test_a_drawn_judge_answers_all_of_its_prompts_questions_alone():
    judges = {"one": Table(1), "two": Table(2), "three": Table(3)}
    panel = CombinedJudge(judges, rule="draw", seed=5)
    prompts = [f"prompt {at}" for at in range(40)]
    drawn = [order[0] for order in panel.member_of(prompts)]
    assert set(drawn) == set(judges)
    win_prob = panel.group_win_prob(prompts, [TEXTS] * 40)
    for b, name in enumerate(drawn):
        np.testing.assert_allclose(win_prob[b], judges[name].group_win_prob([prompts[b]], [TEXTS])[0])
    for judge in judges.values():
        judge.asked.clear()
    pairs = panel.pair_win_prob(prompts, ["rock"] * 40, ["paper"] * 40)
    cross = panel.cross_win_prob(prompts, [["rock"]] * 40, [["paper"]] * 40)
    np.testing.assert_array_equal(pairs, win_prob[:, 0, 1])
    np.testing.assert_array_equal(cross[:, 0, 0], win_prob[:, 0, 1])
    for name, judge in judges.items():
        assert set(judge.asked) == {prompt for prompt, who in zip(prompts, drawn, strict=True) if who == name}
    stats = panel.stats()
    assert stats["comparisons"] == 40 * 6 + 40 + 40
    assert "disagreement" not in stats
    assert "cyclic_share" in stats


def test_prompts_are_drawn_by_weight_seed_and_content_alone():
    judges = [Table(at) for at in range(3)]
    weights = [0.5, 0.3, 0.2]
    prompts: list[Prompt] = [f"prompt {at}" for at in range(4000)]
    orders = CombinedJudge(judges, rule="draw", weights=weights).member_of(prompts)
    again = CombinedJudge(judges, rule="draw", weights=[5, 3, 2]).member_of(prompts[::-1])[::-1]
    assert orders == again, "neither company nor place matters"
    first = Counter(order[0] for order in orders)
    for judge, weight in zip(judges, weights, strict=True):
        # Four standard deviations of a binomial share.
        assert first[judge.name] / 4000 == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / 4000))
    # Who comes second is drawn from the rest by weight: P(0, 1) = 0.5 · 0.3 / 0.5.
    both = sum(order[:2] == ["table 0", "table 1"] for order in orders) / 4000
    assert both == pytest.approx(0.3, abs=0.03)
    other = CombinedJudge(judges, rule="draw", weights=weights, seed=1).member_of(prompts)
    same = np.mean([a[0] == b[0] for a, b in zip(orders, other, strict=True)])
    assert same == pytest.approx(0.5**2 + 0.3**2 + 0.2**2, abs=0.04)


def test_the_draw_is_the_same_in_every_process():
    panel = CombinedJudge([Table(at) for at in range(4)], rule="draw", seed=3)
    prompts: list[Prompt] = ["a", "b", [{"role": "user", "content": "ü"}], "c", "d", "e"]
    drawn = [order[0][-1] for order in panel.member_of(prompts)]
    code = (
        "from magnetar.judges import CombinedJudge, FunctionJudge\n"
        "f = lambda prompts, first, second: [0.5] * len(prompts)\n"
        "judges = {str(at): FunctionJudge(f) for at in range(4)}\n"
        f"orders = CombinedJudge(judges, rule='draw', seed=3).member_of({prompts!r})\n"
        "print(*(order[0] for order in orders))\n"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
        )
        assert done.stdout.split() == drawn


@pytest.mark.parametrize("on_abstain", ["mask", "skip"])
def test_a_drawn_judge_that_abstains_is_masked_or_the_next_one_decides(on_abstain: str):
    judges = [Table(1, abstains_from="spock"), Table(2, abstains_from="rock"), Table(3, abstains_from="spock")]
    panel = CombinedJudge(judges, rule="draw", on_abstain=on_abstain)
    prompts = [f"prompt {at}" for at in range(30)]
    groups = panel.group_win_prob(prompts, [TEXTS] * 30)
    pairs = {
        (i, j): panel.pair_win_prob(prompts, [TEXTS[i]] * 30, [TEXTS[j]] * 30) for i, j in permutations(range(4), 2)
    }
    named = {judge.name: judge for judge in judges}
    kinds = Counter()
    for b, order in enumerate(panel.member_of(prompts)):
        for i, j in permutations(range(4), 2):
            answers = [named[name].answer(prompts[b], TEXTS[i], TEXTS[j]) for name in order]
            if on_abstain == "mask":
                answers = answers[:1]
            rank = next((at for at, answer in enumerate(answers) if answer == answer), None)
            kinds[rank] += 1
            expected = math.nan if rank is None else answers[rank]
            assert groups[b, i, j] == pytest.approx(expected, nan_ok=True, abs=1e-12)
            assert pairs[i, j][b] == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert set(kinds) == ({0, None} if on_abstain == "mask" else {0, 1, 2, None}), "rock against spock: nobody"


def test_a_panel_streams_what_is_finished():
    class Stream(Table):
        def _iter_pair_win_prob(self, prompts, first, second):  # type: ignore[no-untyped-def]
            for at in range(len(prompts)):
                if first[at] == "bad":
                    raise RuntimeError("broke")
                yield [at], [self.answer(prompts[at], first[at], second[at])]

    panel = CombinedJudge([Table(1), Stream(2)])
    got = []
    with pytest.raises(RuntimeError, match="broke"):
        for index, answers in panel.iter_pair_win_prob(["p"] * 4, ["a", "b", "bad", "c"], ["x"] * 4):
            got.append((index.tolist(), answers.tolist()))
    expected = [np.mean([Table(seed).answer("p", text, "x") for seed in (1, 2)]) for text in "ab"]
    assert got == [([0], [pytest.approx(expected[0])]), ([1], [pytest.approx(expected[1])])]


def test_weights_that_do_not_sum_to_one_exactly_stay_within_the_unit_interval():
    sure = FunctionJudge(lambda prompts, first, second: [1.0] * len(prompts))
    for count in (3, 6, 7, 10, 49):
        rng = np.random.default_rng(count)
        panel = CombinedJudge([sure] * count, weights=rng.uniform(size=count).tolist())
        assert panel.pair_win_prob(["p"], ["a"], ["b"])[0] == pytest.approx(1.0, abs=1e-12)


def test_judges_of_one_name_are_told_apart():
    panel = CombinedJudge([Table(1), Table(1), Table(1)])
    assert list(panel.judges) == ["table 1", "table 1 (2)", "table 1 (3)"]
    panel.pair_win_prob(["p"], ["a"], ["b"])
    assert panel.stats()["table 1 (3)/comparisons"] == 1


def test_identity_covers_rule_weights_seed_and_judges():
    def panel(*seeds: int, **settings: Any) -> str:
        return CombinedJudge([Table(seed) for seed in seeds or (1, 2)], **settings).identity()

    different = [
        panel(),
        panel(1, 3),
        panel(2, 1),
        panel(rule="majority"),
        panel(rule="draw"),
        panel(rule="draw", seed=1),
        panel(weights=[1, 2]),
        panel(on_abstain="skip"),
    ]
    assert len(set(different)) == len(different)
    assert panel() == panel(weights=[2, 2]) == panel(seed=4) == panel(name="other")


def test_a_panel_can_be_symmetrised_and_nested():
    biased = FunctionJudge(lambda prompts, first, second: [0.8] * len(prompts), name="first")
    inner = CombinedJudge([biased, Table(1)], rule="majority")
    outer = CombinedJudge([Symmetrized(inner), Table(2)])
    win_prob = outer.group_win_prob(["p"], [TEXTS])[0]
    for i, j in permutations(range(4), 2):
        vote = votes([Table(1).answer("p", TEXTS[i], TEXTS[j])])[0]
        expected = ((1 + vote) / 2 + 1 - (1 + 1 - vote) / 2) / 2 / 2 + Table(2).answer("p", TEXTS[i], TEXTS[j]) / 2
        assert win_prob[i, j] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "median"}, "unknown rule of a panel 'median'.*known: draw, majority, mean"),
        ({"on_abstain": "guess"}, "unknown on_abstain of a panel 'guess'"),
        ({"weights": [1.0]}, r"weights = \[1.0\], expected 2 positive numbers, one for each judge"),
        ({"weights": [1.0, 0.0]}, "0.0 is not a positive number; leave a judge out instead"),
        ({"weights": [1.0, math.nan]}, "nan is not a positive number"),
        ({"weights": [1.0, "2"]}, "'2' is not a positive number"),
        ({"weights": "12"}, "expected 2 positive numbers"),
        ({"weights": {"table 1": 1.0}}, r"weights name \['table 1'\], expected one weight for each of"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_a_setting_that_cannot_be_is_one_clear_error(settings: dict, message: str):
    with pytest.raises(JudgeError, match=message):
        CombinedJudge([Table(1), Table(2)], **settings)
    with pytest.raises(JudgeError, match=message.replace("table 1", "one")):
        weights = settings.get("weights")
        if isinstance(weights, dict):
            settings = {"weights": {"one": 1.0}}
        build_judge({"kind": "panel", "judges": {"one": Table(1), "two": Table(2)}, "rule": "draw"} | settings)


def test_a_panel_of_nobody_is_refused():
    with pytest.raises(JudgeError, match="panel of no judges"):
        CombinedJudge([])
