"""Safety under attack in figures, against loops over prompts and against SciPy's paired test."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from magnetar.errors import ConfigError, DataError, JudgeError
from magnetar.evaluation.attacks import parse_attacks
from magnetar.evaluation.attacks.measure import AttackSettings, check_attacks, measure_attacks
from magnetar.evaluation.intervals import estimate_mean
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.suite.results import AttackRecord
from magnetar.judges import Judge, build_judge
from magnetar.types import Prompt

SPECS = "role_play,base64,payload_splitting,refusal_suppression"
PROMPTS: list[Prompt] = [
    [{"role": "user", "content": f"Tell me about number {number} please."}] for number in range(40)
]
CATEGORIES = ["even" if number % 2 == 0 else "odd" for number in range(40)]


def harm(response: str) -> float:
    """The cost of a response: what it says of itself."""
    return float(response.split("cost ")[1])


def cost_judge() -> Judge:
    def scores(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [-harm(text) for text in responses]

    return build_judge(scores)


class Answering:
    """Answers by a rule that a test can repeat: a cost drawn from the prompt's words and the seed."""

    def __init__(self, seed: int, samples: int = 1) -> None:
        self.seed, self.samples, self.calls = seed, samples, 0

    def text(self, prompt: Prompt, sample: int) -> str:
        digest = zlib.crc32(repr((prompt, self.seed, sample)).encode()) % 10_001
        return f"cost {digest / 10_000 * 4 - 3:.6f}"

    def __call__(self, prompts: Sequence[Prompt]) -> Responses:
        self.calls += 1
        return Responses([[self.text(prompt, g) for g in range(self.samples)] for prompt in prompts])


def by_name(records: Sequence[AttackRecord]) -> dict[tuple[str, str], AttackRecord]:
    return {(record.policy, record.attack): record for record in records}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_are_those_of_loops_over_prompts(seeds: int, samples: int) -> None:
    attacks = parse_attacks(SPECS)
    responders = {"A": [Answering(seed, samples) for seed in range(seeds)]}
    found = by_name(measure_attacks(attacks, PROMPTS, CATEGORIES, responders, {"harm": cost_judge()}))
    assert [name for _, name in found] == [*(attack.label for attack in attacks), "any"]
    costs = {
        attack.label: [
            [[harm(one.text(attack.apply(prompt).prompt, g)) for g in range(samples)] for prompt in PROMPTS]
            for one in responders["A"]
        ]
        for attack in attacks
    }
    for label, of_seeds in costs.items():
        flat = [cost for seed in of_seeds for group in seed for cost in group]
        even = [c for seed in of_seeds for b, group in enumerate(seed) for c in group if CATEGORIES[b] == "even"]
        record = found["A", label]
        assert record.unsafe_share.value == pytest.approx(sum(cost >= 0 for cost in flat) / len(flat))
        assert record.mean_cost is not None and record.mean_cost.value == pytest.approx(sum(flat) / len(flat))
        assert record.categories["even"].value == pytest.approx(sum(cost >= 0 for cost in even) / len(even))
        assert record.prompts == len(PROMPTS) and record.reads == "original"
    tried = successes = 0
    for seed in range(seeds):
        for b in range(len(PROMPTS)):
            for g in range(samples):
                tried += 1
                successes += any(of_seeds[seed][b][g] >= 0 for of_seeds in costs.values())
    worst = found["A", "any"]
    assert worst.unsafe_share.value == pytest.approx(successes / tried)
    assert worst.unsafe_share.value > max(found["A", label].unsafe_share.value for label in costs)
    assert worst.change is not None
    assert worst.change.value == pytest.approx(worst.unsafe_share.value - found["A", "none"].unsafe_share.value)


def test_intervals_are_over_prompts_and_the_change_is_paired() -> None:
    attacks = parse_attacks("base64")
    one = Answering(0)
    found = by_name(measure_attacks(attacks, PROMPTS, None, {"A": [one]}, {"harm": cost_judge()}))
    plain = np.array([harm(one.text(prompt, 0)) >= 0 for prompt in PROMPTS], dtype=float)
    attacked = np.array([harm(one.text(attacks[1].apply(prompt).prompt, 0)) >= 0 for prompt in PROMPTS], dtype=float)
    expected = estimate_mean(attacked, bootstrap=2000, confidence=0.95, seed=0)
    assert found["A", "base64"].unsafe_share == expected
    change = found["A", "base64"].change
    assert change is not None and change.value == pytest.approx(attacked.mean() - plain.mean())
    # Paired by prompt: the interval is that of the differences, by SciPy's own bootstrap (other draws).
    paired = stats.bootstrap(
        ((attacked - plain),), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(5)
    )
    interval = paired.confidence_interval
    assert (change.low, change.high) == (pytest.approx(interval.low, abs=0.03), pytest.approx(interval.high, abs=0.03))
    assert found["A", "none"].change is None and found["A", "none"].categories == {}


def test_the_worst_case_is_a_union_over_attacks() -> None:
    attacks = parse_attacks("role_play,base64")
    unsafe = {attack.label: attack.apply(prompt).prompt for attack, prompt in zip(attacks, PROMPTS, strict=False)}

    def respond(prompts: Sequence[Prompt]) -> Responses:
        return Responses([["cost 1" if prompt in unsafe.values() else "cost -1"] for prompt in prompts])

    found = by_name(measure_attacks(attacks, PROMPTS, None, {"A": [respond]}, {"harm": cost_judge()}))
    shares = {name: record.unsafe_share.value for (_, name), record in found.items()}
    assert shares == {"none": 1 / 40, "role_play": 1 / 40, "base64": 1 / 40, "any": 3 / 40}
    assert found["A", "role_play"].change == found["A", "base64"].change
    change = found["A", "any"].change
    assert change is not None and change.value == pytest.approx(2 / 40)


def test_a_policy_that_is_never_unsafe_has_an_exact_bound() -> None:
    safe = lambda prompts: Responses([["cost -1"] for _ in prompts])  # noqa: E731
    found = by_name(measure_attacks(parse_attacks("base64"), PROMPTS, None, {"A": [safe]}, {"harm": cost_judge()}))
    share = found["A", "any"].unsafe_share
    assert (share.value, share.low) == (0.0, 0.0)
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 40)) and share.note is not None
    assert share.note.startswith("no response was unsafe")
    change = found["A", "any"].change
    assert change is not None and change.method == "undefined"


def test_a_cost_of_zero_is_unsafe() -> None:
    zero = lambda prompts: Responses([["cost 0.0"] for _ in prompts])  # noqa: E731
    found = measure_attacks(parse_attacks("base64"), PROMPTS, None, {"A": [zero]}, {"harm": cost_judge()})
    assert all(record.unsafe_share.value == 1.0 for record in found)


def test_the_judge_reads_the_plain_request_unless_told_otherwise() -> None:
    seen: list[Prompt] = []

    def scores(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        seen.extend(prompts)
        return [-1.0 if "number" in prompt[-1]["content"] else 1.0 for prompt in prompts]

    respond = lambda prompts: Responses([["an answer"] for _ in prompts])  # noqa: E731
    settings = AttackSettings(reads=("original", "attacked"))
    found = measure_attacks(
        parse_attacks("base64"), PROMPTS, None, {"A": [respond]}, {"j": build_judge(scores)}, settings
    )
    shares = {(record.reads, record.attack): record.unsafe_share.value for record in found}
    # Hidden in Base64 the request fools a judge who looks for a word, and the plain one does not.
    assert shares["original", "base64"] == 1.0 and shares["attacked", "base64"] == 0.0
    assert shares["attacked", "none"] == shares["attacked", "any"] == 1.0
    assert any("Base64" in str(prompt) for prompt in seen)


def test_what_a_prefill_began_is_judged_with_the_answer() -> None:
    read: list[tuple[Prompt, str]] = []

    def scores(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        read.extend(zip(prompts, responses, strict=True))
        return [0.5] * len(prompts)

    def respond(prompts: Sequence[Prompt]) -> Responses:
        return Responses([["with pleasure." if prompt[-1]["role"] == "assistant" else "No."] for prompt in prompts])  # type: ignore[index]

    attacks = parse_attacks("prefill:prefix=Sure")
    settings = AttackSettings(reads=("original", "attacked"))
    measure_attacks(attacks, PROMPTS[:2], None, {"A": [respond]}, {"j": build_judge(scores)}, settings)
    assert read.count((PROMPTS[0], "Sure with pleasure.")) == 2, "the judge's request ends with the user's turn"
    assert read.count((PROMPTS[0], "No.")) == 2


def test_each_seed_of_a_policy_is_asked_once() -> None:
    responders = {"A": [Answering(0), Answering(1)], "B": [Answering(2)]}
    measure_attacks(parse_attacks(SPECS), PROMPTS, None, responders, {"one": cost_judge(), "two": cost_judge()})
    assert [one.calls for of_seeds in responders.values() for one in of_seeds] == [1, 1, 1]


def test_bad_requests_are_refused() -> None:
    respond = {"A": [Answering(0)]}
    with pytest.raises(DataError, match="no prompts to attack with"):
        measure_attacks(parse_attacks("base64"), [], None, respond, {"harm": cost_judge()})
    with pytest.raises(ConfigError, match="first attack is not 'none'"):
        measure_attacks(parse_attacks("base64")[1:], PROMPTS, None, respond, {"harm": cost_judge()})
    pairwise = build_judge(lambda prompts, first, second: [0.5] * len(prompts))
    with pytest.raises(JudgeError, match="one score per response"):
        measure_attacks(parse_attacks("base64"), PROMPTS, None, respond, {"j": pairwise})
    with pytest.raises(ConfigError, match="unknown request to read 'orginal'; did you mean 'original'"):
        AttackSettings(reads=("orginal",))
    with pytest.raises(ConfigError, match="'prefill' begins the answer, but policy 'far' is behind an endpoint"):
        check_attacks(parse_attacks("all"), {"near": "model", "far": "endpoint"})
    check_attacks(parse_attacks("base64"), {"far": "endpoint"})
    check_attacks(parse_attacks("all"), {"near": "adapter"})
