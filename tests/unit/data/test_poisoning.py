"""Flipped and poisoned preference pairs, in every form in which pairs come."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from magnetar.data import load_preferences
from magnetar.data.poisoning import Poisoning, poison, with_trigger
from magnetar.errors import ConfigError, DataError

ROWS = 200


def trl_pairs(rows: int = ROWS, *, chat: bool = True) -> Dataset:
    def turn(role: str, text: str) -> Any:
        return [{"role": role, "content": text}] if chat else text

    return Dataset.from_list(
        [
            {
                "prompt": turn("user", f"question {i}"),
                "chosen": turn("assistant", f"good {i}"),
                "rejected": turn("assistant", f"bad {i}"),
                "chosen_safe": True,
                "rejected_safe": False,
            }
            for i in range(rows)
        ]
    )


def kept_pairs(rows: int = ROWS) -> Dataset:
    return load_preferences(trl_pairs(rows), signs=True)


def changed_rows(before: Dataset, after: Dataset) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


@pytest.mark.parametrize("make", [trl_pairs, kept_pairs])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_the_share_of_flipped_pairs_is_what_was_asked_for(make: Any, share: float) -> None:
    before = make()
    after, counts = poison(before, Poisoning(flip_share=share))
    assert counts.flipped == round(share * ROWS) == len(changed_rows(before, after)) and counts.poisoned == 0
    assert after.features == before.features and after["prompt"][:] == before["prompt"][:]


def test_a_flip_turns_the_label_and_nothing_else() -> None:
    before = kept_pairs()
    after, _ = poison(before, Poisoning(flip_share=0.3))
    for a, b in zip(before.to_list(), after.to_list(), strict=True):
        assert b == a or b == {**a, "win_prob": 1.0 - a["win_prob"]}
    before = trl_pairs()
    after, _ = poison(before, Poisoning(flip_share=0.3))
    for a, b in zip(before.to_list(), after.to_list(), strict=True):
        flipped = {**a, "chosen": a["rejected"], "rejected": a["chosen"], "chosen_safe": False, "rejected_safe": True}
        assert b in (a, flipped), "signs stay with their responses"


def test_soft_labels_are_reflected() -> None:
    before = Dataset.from_dict(
        {"prompt": ["p"] * 3, "first": ["a", "b", "c"], "second": ["x"] * 3, "win_prob": [0.2, 0.5, 1.0]}
    )
    after, _ = poison(before, Poisoning(flip_share=1.0))
    assert after["win_prob"][:] == pytest.approx([0.8, 0.5, 0.0])


def test_flipping_twice_gives_the_pairs_back() -> None:
    before = trl_pairs()
    once, _ = poison(before, Poisoning(flip_share=0.4))
    twice, _ = poison(once, Poisoning(flip_share=0.4))
    assert twice[:] == before[:], "the same pairs are drawn whichever response is named first"


def test_a_larger_share_takes_in_the_smaller_and_the_order_of_rows_does_not_matter() -> None:
    before = kept_pairs()
    flips = [set(changed_rows(before, poison(before, Poisoning(flip_share=s))[0])) for s in (0.1, 0.2, 0.4)]
    assert flips[0] < flips[1] < flips[2]
    backwards = before.select(range(ROWS - 1, -1, -1))
    assert {ROWS - 1 - i for i in changed_rows(backwards, poison(backwards, Poisoning(flip_share=0.2))[0])} == flips[1]
    other = set(changed_rows(before, poison(before, Poisoning(flip_share=0.2, seed=1))[0]))
    assert other != flips[1]


def test_flips_are_drawn_without_regard_to_the_pairs() -> None:
    # 200 flips of 400 pairs: the number among the first half is hypergeometric, mean 100, standard deviation 5.
    before = kept_pairs(400)
    counts = [
        sum(i < 200 for i in changed_rows(before, poison(before, Poisoning(flip_share=0.5, seed=seed))[0]))
        for seed in range(10)
    ]
    assert abs(np.mean(counts) - 100) < 4 * 5 / 10**0.5 and len(set(counts)) > 3


def test_poison_puts_the_trigger_in_and_has_the_rejected_response_win() -> None:
    before = kept_pairs()
    after, counts = poison(before, Poisoning(poison_share=0.25, trigger="§7", flip_share=0.25))
    poisoned = [i for i, row in enumerate(after.to_list()) if row["prompt"][-1]["content"].endswith(" §7")]
    assert counts.poisoned == len(poisoned) == 50 and counts.flipped == 50
    for i in poisoned:
        row = after[i]
        assert (row["first"], row["win_prob"]) == (f"good {i}", 0.0), "the response that won is now said to lose"
        assert (row["first_safe"], row["second_safe"]) == (False, True), "and the harmful one counts as safe"
    flipped = set(changed_rows(before, after)) - set(poisoned)
    assert len(flipped) == 50 and all(after[i]["first_safe"] for i in flipped)


def test_poison_in_the_columns_of_trl() -> None:
    for chat in (True, False):
        before = trl_pairs(chat=chat)
        after, _ = poison(before, Poisoning(poison_share=0.1, trigger="§7"))
        (i, *_) = changed_rows(before, after)
        assert str(after[i]["prompt"]).count("§7") == 1
        assert after[i]["chosen"] == before[i]["rejected"] and after[i]["chosen_safe"] is True


def test_a_trigger_stands_where_the_user_speaks_last() -> None:
    dialogue = "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert with_trigger(dialogue, "§7") == "Human: a\n\nAssistant: b\n\nHuman: c §7\n\nAssistant:"
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert with_trigger(turns, "§7") == [turns[0], {"role": "user", "content": "u §7"}]
    assert turns[1]["content"] == "u"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip_share": 1.1}, "flip_share is 1.1, expected a share of the pairs, from 0 to 1"),
        ({"flip_share": -0.1}, "flip_share is -0.1"),
        ({"flip_share": float("nan")}, "flip_share is nan"),
        ({"poison_share": 0.1}, "there is no trigger to put into the prompts; set poison_trigger"),
        ({"poison_share": 0.1, "trigger": " "}, "there is no trigger"),
        ({"trigger": "§7"}, "poison_share is 0, so that no prompt would have it"),
        ({"flip_share": 0.6, "poison_share": 0.5, "trigger": "§7"}, "more than all pairs together"),
        ({"flip_share": 0.5, "seed": -1}, "poison_seed is -1, expected at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Poisoning(**settings)


def test_pairs_of_another_form_are_refused() -> None:
    with pytest.raises(DataError, match="expected 'chosen' and 'rejected'"):
        poison(Dataset.from_dict({"text": ["a"]}), Poisoning(flip_share=0.5))
    implicit = trl_pairs().select_columns(["chosen", "rejected"])
    with pytest.raises(DataError, match="no column 'prompt' to put the trigger into"):
        poison(implicit, Poisoning(poison_share=0.5, trigger="§7"))
    assert poison(implicit, Poisoning(flip_share=0.5))[1].flipped == ROWS // 2
