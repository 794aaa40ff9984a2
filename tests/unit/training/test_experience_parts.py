"""Experience taken apart and joined again is the same experience."""

import math
from dataclasses import fields, replace

import pytest
import torch

from magnetar.training.experience import Experience
from magnetar.training.ledger import Ledger


def experience(prompts: int, seed: int = 0, *, cyclic: float = 0.25) -> Experience:
    """Random tensors of a batch with three responses of different lengths; zeros behind each, as the collector pads."""
    random = torch.Generator().manual_seed(seed)
    g, longest = 3, 5
    lengths = torch.randint(1, longest + 1, (prompts, g), generator=random)
    lengths[0, 0] = longest
    mask = torch.arange(longest) < lengths[..., None]

    def tokens() -> torch.Tensor:
        return torch.randn(prompts, g, longest, generator=random) * mask

    return Experience(
        positions=[7 * b for b in range(prompts)],
        prompts=[f"prompt {b}" for b in range(prompts)],
        prompt_ids=[[b] for b in range(prompts)],
        response_ids=[[[1] * int(n) for n in row] for row in lengths],
        texts=[[f"{b} {i}" for i in range(g)] for b in range(prompts)],
        truncated_BG=torch.rand(prompts, g, generator=random) > 0.5,
        exact_weight_BG=None,
        win_prob_BGH=torch.rand(prompts, g, g, generator=random).double(),
        opponent_weight_BGH=torch.rand(prompts, g, g, generator=random).double(),
        response_weight_BG=torch.full((prompts, g), 1 / 3).double(),
        cyclic_triples=cyclic,
        behavior_logp_BGT=tokens(),
        magnet_logp_BGT=None,
        reference_logp_BGT=tokens(),
        reward_BG=torch.randn(prompts, g, generator=random).double(),
        behavior_value_BGT=tokens(),
        magnet_is_behavior=True,
        reference_is_behavior=False,
        finite=True,
        seconds={},
    )


def assert_same(a: Experience, b: Experience) -> None:
    for field in fields(Experience):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
        else:
            assert one == other, field.name


def as_collected(part: Experience) -> Experience:
    """The part as the collector makes it: no longer than its own longest response."""
    longest = max(len(tokens) for group in part.response_ids for tokens in group)
    state = part.to_state()
    for name, value in state.items():
        if name.endswith("_BGT") and value is not None:
            state[name] = value[..., :longest]
    return Experience(**state)


@pytest.mark.parametrize("places", [[[0, 1, 2, 3, 4]], [[3], [0, 4], [1, 2]], [[4], [3], [2], [1], [0]]])
def test_parts_joined_are_the_whole(places: list[list[int]]) -> None:
    whole = experience(5)
    parts = [as_collected(whole.take(part)) for part in places]
    for part, at in zip(parts, places, strict=True):
        assert part.positions == [7 * b for b in at] and part.texts == [whole.texts[b] for b in at]
    assert_same(Experience.joined(parts, places), whole)


def test_time_spending_and_cycles_of_parts_add_up() -> None:
    one = replace(
        experience(1, cyclic=0.5),
        seconds={"rollout": 1.0, "judge": 4.0, "waiting": 0.5},
        spent=Ledger(comparisons=3),
    )
    two = replace(
        experience(3, cyclic=0.1),
        seconds={"rollout": 2.0, "judge": 8.0},
        spent=Ledger(comparisons=9, prompts=3),
        finite=False,
    )
    joined = Experience.joined([one, two], [[2], [0, 1, 3]])
    assert joined.seconds == {"rollout": 3.0, "judge": 12.0, "waiting": 0.5}
    assert joined.trainer_seconds == 3.5  # the judge's own time passes beside the trainer's
    assert joined.spent == Ledger(comparisons=12, prompts=3)
    assert joined.cyclic_triples == pytest.approx((1 * 0.5 + 3 * 0.1) / 4)
    assert not joined.finite
    unknown = Experience.joined([experience(2, cyclic=math.nan), experience(1, cyclic=0.3)], [[0, 1], [2]])
    assert unknown.cyclic_triples == pytest.approx(0.3)
    nothing = Experience.joined([experience(2, cyclic=math.nan), experience(1, cyclic=math.nan)], [[0, 1], [2]])
    assert math.isnan(nothing.cyclic_triples)
