import json
from typing import Any

import numpy as np
import pytest

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation import Matchup, MatchupSummary, Responses, degeneracy, sample_records, summarize
from magnetar.evaluation.degeneracy import distinct_n, looping_share


def matchup(b: int = 12, g: int = 2, h: int = 3, *, seed: int = 0, categories: bool = True, **changes: Any) -> Matchup:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "prompts": [f"prompt {i}" for i in range(b)],
        "categories": [("help", "safety", "law")[i % 3] for i in range(b)] if categories else None,
        "policy": Responses([[f"new {i} {j}" for j in range(g)] for i in range(b)], rng.integers(1, 9, (b, g))),
        "opponent": Responses(
            [[f"old {i} {j}" for j in range(h)] for i in range(b)], truncated_BG=rng.random((b, h)) < 0.5
        ),
        "win_prob_BGH": rng.choice([0.0, 0.5, 0.5 + 5e-10, 0.9, 1.0], (b, g, h)),
        "judge": "panel",
        "policy_name": "trained",
        "opponent_name": "start",
    }
    return Matchup(**{**values, **changes})


def test_win_rate_is_the_mean_over_prompts_of_means_over_pairs() -> None:
    match = matchup()
    total = 0.0
    for block in match.win_prob_BGH.tolist():
        pairs = [p for row in block for p in row]
        total += sum(pairs) / len(pairs)
    summary = summarize(match, bootstrap=200)
    assert summary.win_rate.value == pytest.approx(total / 12, abs=1e-12)
    assert summary.comparisons == 12 * 2 * 3


def test_ties_wins_and_losses_are_counted_with_tolerance_and_sum_to_one() -> None:
    match = matchup()
    flat = match.win_prob_BGH.ravel().tolist()
    summary = summarize(match, bootstrap=200)
    assert summary.ties == pytest.approx(sum(p in (0.5, 0.5 + 5e-10) for p in flat) / len(flat))
    assert summary.wins == pytest.approx(sum(p in (0.9, 1.0) for p in flat) / len(flat))
    assert summary.wins + summary.ties + summary.losses == pytest.approx(1.0)


def test_swapping_the_sides_mirrors_everything() -> None:
    match = matchup()
    swapped = matchup(
        policy=match.opponent,
        opponent=match.policy,
        win_prob_BGH=1.0 - match.win_prob_BGH.transpose(0, 2, 1),
        policy_name="start",
        opponent_name="trained",
    )
    one, other = summarize(match, bootstrap=2000), summarize(swapped, bootstrap=2000)
    assert other.win_rate.value == pytest.approx(1.0 - one.win_rate.value)
    assert one.win_rate.low is not None and other.win_rate.high is not None
    # The same resamples mirrored; quantiles interpolate symmetrically.
    assert other.win_rate.high == pytest.approx(1.0 - one.win_rate.low, abs=5e-3)
    assert (other.wins, other.ties) == pytest.approx((one.losses, one.ties))
    assert other.opponent == one.policy and other.policy == one.opponent


def test_prompts_are_the_unit_of_resampling() -> None:
    """Repeating each prompt's verdict over many pairs adds no information, so the interval must not shrink."""
    base = np.random.default_rng(1).choice([0.0, 1.0], (20, 1, 1))
    few = summarize(matchup(20, 1, 1, win_prob_BGH=base, categories=False))
    many = summarize(matchup(20, 5, 5, win_prob_BGH=np.tile(base, (1, 5, 5)), categories=False))
    assert (few.win_rate.low, few.win_rate.high) == (many.win_rate.low, many.win_rate.high)


def test_categories_partition_the_prompts() -> None:
    match = matchup()
    summary = summarize(match, bootstrap=200)
    assert list(summary.categories) == ["help", "law", "safety"]
    assert sum(part.prompts for part in summary.categories.values()) == summary.prompts
    weighted = sum(part.prompts * part.win_rate.value for part in summary.categories.values())
    assert weighted / summary.prompts == pytest.approx(summary.win_rate.value)
    rows = [i for i in range(12) if i % 3 == 1]
    assert summary.categories["safety"].win_rate.value == pytest.approx(match.win_prob_B[rows].mean())


def test_a_category_of_one_prompt_has_no_interval() -> None:
    summary = summarize(matchup(4, categories=False).__class__(**{**vars(matchup(4)), "categories": list("aaab")}))
    assert summary.categories["b"].win_rate.low is None
    assert summary.categories["b"].prompts == 1


def test_lengths_and_truncation_are_null_where_unknown() -> None:
    match = matchup()
    summary = summarize(match, bootstrap=200)
    assert match.policy.tokens_BG is not None and match.opponent.truncated_BG is not None
    assert summary.policy.tokens == pytest.approx(match.policy.tokens_BG.mean())
    assert summary.policy.truncated is None and summary.opponent.tokens is None
    assert summary.opponent.truncated == pytest.approx(match.opponent.truncated_BG.mean())


def test_summary_survives_json() -> None:
    summary = summarize(matchup(), bootstrap=200)
    text = json.dumps({**summary.to_dict(), "settings": {"limit": 3}})
    assert MatchupSummary.from_dict(json.loads(text)) == summary


@pytest.mark.parametrize("broken", [{}, {"prompts": 3}, {"win_rate": 3}])
def test_from_dict_refuses_what_is_no_summary(broken: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not an evaluation summary"):
        MatchupSummary.from_dict(broken)


@pytest.mark.parametrize("value", [1.2, -0.1, float("inf")])
def test_answers_that_are_no_probabilities_are_refused(value: float) -> None:
    wrong = np.full((12, 2, 3), 0.5)
    wrong[3, 1, 2] = value
    with pytest.raises(JudgeError, match=r"outside \[0, 1\]"):
        matchup(win_prob_BGH=wrong)


def test_shapes_are_checked_at_the_door() -> None:
    with pytest.raises(JudgeError, match="shape"):
        matchup(win_prob_BGH=np.full((12, 3, 2), 0.5))
    with pytest.raises(DataError, match="equally many"):
        Responses([["a"], ["b", "c"]])
    with pytest.raises(DataError, match="no prompts"):
        Responses([])
    with pytest.raises(DataError, match="categories"):
        matchup(categories=False).__class__(**{**vars(matchup()), "categories": ["a"]})


def test_samples_take_the_categories_in_turn_and_quote_truly() -> None:
    match = matchup(12)
    records = sample_records(match, 6, seed=1)
    assert sorted(record["category"] for record in records) == ["help"] * 2 + ["law"] * 2 + ["safety"] * 2
    for record in records:
        row = match.prompts.index(record["prompt"])
        assert record["policy"] == match.policy.texts[row][0]
        assert record["opponent"] == match.opponent.texts[row][0]
        assert record["win_prob"] == match.win_prob_BGH[row, 0, 0]
    assert sample_records(match, 6, seed=1) == records
    assert sample_records(match, 6, seed=2) != records
    assert len(sample_records(match, 99)) == 12


def test_cheap_tricks_show() -> None:
    honest = degeneracy([["The cat sat on the mat.", "A dog ran."], ["Boil water, then add salt.", "Use a pan."]])
    assert (honest.empty, honest.repeated_same_prompt, honest.repeated_across_prompts) == (0.0, 0.0, 0.0)
    assert honest.looping == 0.0
    empty = degeneracy([["", " \n"], ["text", "x"]])
    assert empty.empty == 0.5 and empty.repeated_same_prompt == 0.5
    canned = degeneracy([["I cannot help."], ["I cannot  help."], ["Sure: use salt."]])
    assert canned.repeated_across_prompts == pytest.approx(2 / 3)
    assert canned.repeated_same_prompt is None
    assert degeneracy([["no " * 50]]).looping == pytest.approx(1 - 1 / 48)


def test_distinct_n_by_hand() -> None:
    texts = ["a b a b", "a b c"]
    assert distinct_n(texts, 1) == pytest.approx(3 / 7)
    assert distinct_n(texts, 2) == pytest.approx(3 / 5)  # ab ba ab | ab bc
    assert distinct_n(texts, 3) == pytest.approx(1.0)  # aba bab | abc
    assert distinct_n([""], 1) is None
    assert looping_share("a b c a b c") == pytest.approx(1 / 4)  # abc bca cab abc


def test_unanswered_pairs_are_left_out_and_counted() -> None:
    hidden = np.random.default_rng(5).random((12, 2, 3)) < 0.4
    hidden[4] = True  # a prompt without any answer
    match = matchup()
    masked = matchup(win_prob_BGH=np.where(hidden, np.nan, match.win_prob_BGH))
    summary = summarize(masked, bootstrap=200)
    means = [
        np.mean([p for p, h in zip(match.win_prob_BGH[i].ravel(), hidden[i].ravel(), strict=True) if not h])
        for i in range(12)
        if i != 4
    ]
    assert summary.win_rate.value == pytest.approx(np.mean(means))
    assert (summary.prompts, summary.comparisons, summary.masked) == (11, int((~hidden).sum()), int(hidden.sum()))
    assert summary.wins + summary.ties + summary.losses == pytest.approx(1.0)
    assert MatchupSummary.from_dict(json.loads(json.dumps(summary.to_dict()))) == summary
    with pytest.raises(JudgeError, match="answered none of 72 pairs"):
        summarize(matchup(win_prob_BGH=np.full((12, 2, 3), np.nan)))
