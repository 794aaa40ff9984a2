"""A judge who errs on a fixed share of the pairs: antisymmetric, repeatable, and in the mean what the formula says."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from magnetar.errors import JudgeError
from magnetar.judges import (
    CombinedJudge,
    Flipped,
    Judge,
    Symmetrized,
    build_judge,
    parse_judge_spec,
    parse_scoring_spec,
)

PROMPTS = [f"prompt {b}" for b in range(30)]
GROUPS = [[f"answer {b} {g}" + "!" * ((b + g) % 4) for g in range(4)] for b in range(30)]
OTHERS = [[f"other {b} {h}" + "!" * ((b + 2 * h) % 5) for h in range(3)] for b in range(30)]


def marks(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
    return [1.0 / (1.0 + np.exp(b.count("!") - a.count("!"))) for a, b in zip(first, second, strict=True)]


def test_flips_are_antisymmetric_and_the_same_in_pairs_groups_and_crosses() -> None:
    judge = Flipped(build_judge(marks), 0.3, seed=1)
    group = judge.group_win_prob(PROMPTS, GROUPS)
    assert np.allclose(group + np.swapaxes(group, 1, 2), 1.0) and np.all(np.diagonal(group, axis1=1, axis2=2) == 0.5)
    cross = judge.cross_win_prob(PROMPTS, GROUPS, GROUPS)
    assert np.allclose(cross, group)
    cross = judge.cross_win_prob(PROMPTS, GROUPS, OTHERS)
    for b, g, h in product(range(30), range(4), range(3)):
        pair = judge.pair_win_prob([PROMPTS[b]], [GROUPS[b][g]], [OTHERS[b][h]])
        back = judge.pair_win_prob([PROMPTS[b]], [OTHERS[b][h]], [GROUPS[b][g]])
        assert pair[0] == cross[b, g, h] == pytest.approx(1.0 - back[0])


def test_a_drawn_pair_is_answered_the_wrong_way_round_and_others_are_not() -> None:
    plain = build_judge(marks).cross_win_prob(PROMPTS, GROUPS, OTHERS)
    seen = Flipped(build_judge(marks), 0.3).cross_win_prob(PROMPTS, GROUPS, OTHERS)
    turned = ~np.isclose(seen, plain)
    assert np.allclose(seen[turned], 1.0 - plain[turned])
    # 360 pairs of which those with P = 1/2 do not show: at least 0.3 ± 4 standard deviations of what shows.
    shows = plain != 0.5
    assert abs(turned[shows].mean() - 0.3) < 4 * (0.3 * 0.7 / shows.sum()) ** 0.5


def test_the_mean_over_seeds_is_the_preference_shrunk_towards_a_half() -> None:
    plain = build_judge(marks).cross_win_prob(PROMPTS[:3], GROUPS[:3], OTHERS[:3])
    seeds, share = 400, 0.2
    mean = np.mean(
        [
            Flipped(build_judge(marks), share, seed).cross_win_prob(PROMPTS[:3], GROUPS[:3], OTHERS[:3])
            for seed in range(seeds)
        ],
        axis=0,
    )
    spread = np.abs(1.0 - 2.0 * plain) * (share * (1 - share) / seeds) ** 0.5
    assert np.all(np.abs(mean - ((1 - 2 * share) * plain + share)) <= 4.5 * spread + 1e-12)


def test_nothing_and_everything() -> None:
    plain = build_judge(marks).group_win_prob(PROMPTS, GROUPS)
    assert np.array_equal(Flipped(build_judge(marks), 0.0).group_win_prob(PROMPTS, GROUPS), plain)
    everything = Flipped(build_judge(marks), 1.0).group_win_prob(PROMPTS, GROUPS)
    assert np.allclose(everything, 1.0 - plain)


def test_answers_come_as_a_stream_and_are_counted() -> None:
    judge = Flipped(build_judge(marks), 0.5)
    first, second = [group[0] for group in GROUPS], [group[1] for group in GROUPS]
    whole = judge.pair_win_prob(PROMPTS, first, second)
    found = np.full(len(PROMPTS), np.nan)
    for index, answers in judge.iter_pair_win_prob(PROMPTS, first, second):
        found[index] = answers
    assert np.array_equal(found, whole)
    counters = judge.stats()
    assert counters["comparisons"] == 60 and counters["inner_comparisons"] == 60
    drawn = np.mean(~np.isclose(whole, build_judge(marks).pair_win_prob(PROMPTS, first, second)))
    assert counters["flipped_share"] == pytest.approx(drawn)


class Silent(Judge):
    """Answers nothing."""

    may_abstain = True

    def _pair_win_prob(self, prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> Any:
        return np.full(len(prompts), np.nan)


def test_an_unanswered_pair_stays_unanswered() -> None:
    judge = Flipped(Silent(), 0.5)
    assert judge.may_abstain and np.isnan(judge.pair_win_prob(["p"] * 9, ["a"] * 9, list("bcdefghij"))).all()


def test_the_options_of_a_spec(tmp_path: Any) -> None:
    judge = build_judge(marks, flip_share=0.25, flip_seed=3)
    assert isinstance(judge, Flipped) and (judge.share, judge.seed) == (0.25, 3)
    assert judge.name.endswith("marks, 0.25 flipped")
    same, other = build_judge(marks, flip_share=0.25, flip_seed=3), build_judge(marks, flip_share=0.25)
    assert judge.identity() == same.identity() != other.identity() != build_judge(marks).identity()
    panel = build_judge({"kind": "panel", "judges": [marks, marks], "flip_share": 0.1}, cache=str(tmp_path / "kept"))
    assert isinstance(panel, Flipped) and isinstance(panel.judge, CombinedJudge)
    assert not any(isinstance(member, Flipped) for member in panel.judge.judges.values())
    outside = build_judge(Symmetrized(build_judge(marks)), flip_share=0.1)
    assert isinstance(outside, Flipped) and isinstance(outside.judge, Symmetrized)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip_share": 1.5}, "flip_share is 1.5, expected a share of the pairs"),
        ({"flip_share": "many"}, "flip_share is 'many'"),
        ({"flip_share": 0.1, "flip_seed": -1}, "flip_seed is -1, expected at least 0"),
        ({"flip_seed": 1}, "no pair is flipped; set flip_share"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec("panel", **options)


def test_a_method_that_maximises_a_score_is_refused_flips() -> None:
    with pytest.raises(JudgeError, match="with flip_share' only says which of two responses is better"):
        parse_scoring_spec("reward:somewhere", "method 'grpo'", flip_share=0.2)
