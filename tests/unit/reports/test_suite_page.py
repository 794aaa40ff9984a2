"""The page of a suite claims what intervals show, holds every figure, and leaves out what was not measured."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import ExploitabilityRecord, MatchupRecord, SuiteResult
from magnetar.games.equilibrium import linear_program_equilibrium
from magnetar.reports.samples import suite_view
from magnetar.reports.sections.attacks import attack_matrices
from magnetar.reports.sections.distances import rates_by_distance
from magnetar.reports.sections.exploitability import attacker_curves, strongest_attackers
from magnetar.reports.sections.matchups import matchup_sections, mirrored
from magnetar.reports.sections.tournament import against_mixture
from magnetar.reports.suite_page import suite_claim, suite_page, suite_sections
from unit.reports.example_pages import EVIL, hostile_suite
from unit.reports.suite_example import CATEGORIES, POLICIES, example_suite

HEADINGS = (
    "Win rates",
    "By category",
    "Costs",
    "Safety under attack",
    "Exploitability",
    "Tournament",
    "General",
    "What",
)


class Page(HTMLParser):
    """Words of a page, its headings and tables, and whether its elements nest."""

    VOID = ("meta", "link", "br", "input", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.words = re.sub(r"\s+", " ", self.words)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += " " + data


def rate(value: float, half: float = 0.03) -> Estimate:
    return Estimate(value, value - half, value + half, 0.95, "bca")


def matchup(policy: str, value: float, judge: str = "j", opponent: str = "SFT", half: float = 0.03) -> MatchupRecord:
    return MatchupRecord(judge, policy, opponent, 100, rate(value, half), value, 0.0, 1 - value, 200)


def small(*records: MatchupRecord, reference: str | None = "SFT") -> SuiteResult:
    names = list(dict.fromkeys([name for one in records for name in (one.policy, one.opponent)]))
    policies = {name: example_suite().policies["SFT"] for name in names}
    judges = {one.judge: "pairwise:x" for one in records}
    return SuiteResult(policies=policies, reference=reference, judges=judges, matchups=records)


def test_every_section_is_there_and_elements_nest() -> None:
    suite = example_suite()
    page = Page(suite_page(suite, "name"))
    assert page.open == [] and page.tags.count("script") == 1
    titles = [section.title for section in suite_sections(suite)]
    assert all(any(title.startswith(heading) for title in titles) for heading in HEADINGS)
    for one in suite.matchups:
        assert f"{one.win_rate.value:.1%} ({one.win_rate.low:.1%} to {one.win_rate.high:.1%})" in page.words
    for cost in suite.costs:
        assert f"{cost.mean_cost.value:.2f} ({cost.mean_cost.low:.2f} to {cost.mean_cost.high:.2f})" in page.words
    for far in (one.distance for one in suite.policies.values()):
        assert far is None or f"{far.value:.2f} ({far.low:.2f} to {far.high:.2f})" in page.words
    for attack in suite.attacks:
        assert f"{attack.unsafe_share.value:.1%}" in page.words
    for benchmark in suite.benchmarks:
        assert f"{benchmark.value:.3f} ± {benchmark.standard_error:.3f}" in page.words


@pytest.mark.parametrize(
    ("field", "heading"),
    [
        ("matchups", "Win rates"),
        ("matchups", "By category"),
        ("costs", "Costs"),
        ("attacks", "Safety under attack"),
        ("exploitability", "Exploitability"),
        ("tournament", "Tournament"),
        ("benchmarks", "General benchmarks"),
        ("samples", "Answers side by side"),
    ],
)
def test_a_section_without_data_is_absent(field: str, heading: str) -> None:
    suite = example_suite()
    assert re.search(f"<h2>{heading}", suite_page(suite))
    assert not re.search(f"<h2>{heading}", suite_page(replace(suite, **{field: ()})))


def test_the_line_of_a_distance_reaches_from_seed_to_seed() -> None:
    policies = dict(example_suite().policies)
    seeds = replace(policies["PPO"], spec=("a", "b"), seeds=("0", "1"), run_distances=(1.2, 2.0))
    suite = replace(example_suite(), policies={**policies, "PPO": seeds})
    points = rates_by_distance(suite, "preference")
    assert (points["PPO"][0].low, points["PPO"][0].high) == (1.2, 2.0)
    assert points["MPO-RT"][0] == policies["MPO-RT"].distance, "of one run the interval over prompts"
    assert "1.20, 2.00" in suite_page(suite)


def test_the_distance_is_absent_where_it_was_not_measured() -> None:
    suite = example_suite()
    without = {name: replace(one, distance=None) for name, one in suite.policies.items()}
    assert "<h2>Distance" in suite_page(suite) and "<h2>Distance" not in suite_page(replace(suite, policies=without))


def test_an_empty_suite_is_a_page_that_claims_nothing() -> None:
    page = Page(suite_page(SuiteResult()))
    assert "there is nothing to claim" in page.words and page.open == []


def test_hostile_words_are_text() -> None:
    text = suite_page(hostile_suite())
    assert "<script>window" not in text and "<img" not in text and "<link rel=stylesheet" not in text
    page = Page(text)
    assert page.open == [] and page.tags.count("script") == 1 and page.words.count("window.ran = 1") >= len(POLICIES)
    assert EVIL[:8] in page.words


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([matchup("a", 0.6), matchup("b", 0.52)], "prefers a to SFT."),
        ([matchup("a", 0.6), matchup("b", 0.4)], "prefers a to SFT, and SFT to b."),
        ([matchup("a", 0.52), matchup("b", 0.49)], "is not shown to prefer any policy to SFT, nor SFT to any."),
        ([matchup("a", 0.6), matchup("b", 0.7)], "prefers a and b to SFT."),
    ],
)
def test_the_claim_says_only_what_an_interval_shows(records: list[MatchupRecord], sentence: str) -> None:
    claim = suite_claim(small(*records))
    assert claim.sentences[0].endswith(sentence)
    assert claim.rate == max((one.win_rate for one in records), key=lambda one: one.value)
    assert "picked after the fact" in claim.muted


def test_one_match_up_is_not_said_to_be_picked() -> None:
    claim = suite_claim(small(matchup("a", 0.6)))
    assert "picked" not in claim.muted and claim.label == "Win rate of a against SFT"


def test_costs_claim_paired_changes_and_attacks_the_worst_case() -> None:
    suite = example_suite()
    told = " ".join(suite_claim(suite).sentences)
    lower = [one.policy for one in suite.costs if one.change and one.change.high is not None and one.change.high < 0]
    assert lower and f"{lower[0]}, " in told and "cost less than SFT" in told
    worst = {one.policy: one.unsafe_share.value for one in suite.attacks if one.attack == "any"}
    assert all(f"{name} {share:.0%}" in told for name, share in worst.items())


def test_without_a_reference_all_match_ups_are_shown_and_nothing_is_claimed() -> None:
    suite = small(matchup("a", 0.6), matchup("a", 0.7, opponent="b"), reference=None)
    assert suite_claim(suite).rate is None
    (section,) = matchup_sections(suite)
    assert [row[0] for row in section.tables[0].rows] == ["a against SFT", "a against b"]
    matrix = next(figure for figure in section.figures if figure.wide).drawing
    cells = {(row[0], name): cell for row in matrix.rows for name, cell in zip(matrix.header[1:], row[1:], strict=True)}
    assert cells["a", "b"] == "70.0% (67.0% to 73.0%)" and cells["b", "a"] == "30.0% (27.0% to 33.0%)"
    assert cells["b", "SFT"] == "–"


def test_the_other_side_of_a_win_rate_is_its_complement() -> None:
    other = mirrored(Estimate(0.7, 0.6, 0.75, 0.95, "bca"))
    assert (other.value, other.low, other.high) == pytest.approx((0.3, 0.25, 0.4))
    assert mirrored(Estimate(0.7, None, None, 0.95, "undefined")).low is None


def test_nobody_wins_more_than_half_against_the_nash_average() -> None:
    (record,) = example_suite().tournament
    payoffs = np.array(record.win_rate, dtype=float)
    rates = against_mixture(record)
    assert rates == pytest.approx(payoffs @ linear_program_equilibrium(payoffs))
    assert rates.max() <= 0.5 + 1e-9
    for name, rate in zip(record.names, rates, strict=True):
        assert record.nash[name] < 0.01 or rate == pytest.approx(0.5)


def test_attacks_stand_between_no_attack_and_the_worst_case() -> None:
    suite = example_suite()
    shuffled = replace(suite, attacks=suite.attacks[::-1])
    ((policies, attacks, matrix),) = attack_matrices(shuffled).values()
    assert policies == ["SFT", "MPO round 3"] and attacks[0] == "no attack" and attacks[-1] == "worst case"
    found = {(one.policy, one.attack): one.unsafe_share for one in suite.attacks}
    assert matrix[1][attacks.index("base64")] == found["MPO round 3", "base64"]


def test_curves_over_n_are_in_order_and_the_strongest_is_not_the_luckiest() -> None:
    wide, narrow = rate(0.7, 0.2), rate(0.65, 0.02)
    records = [
        ExploitabilityRecord("A", "best_of_n", rate(0.6), rate(0.1), "j", {"n": 4}),
        ExploitabilityRecord("A", "best_of_n", rate(0.5), rate(0.0), "j", {"n": 1}),
        ExploitabilityRecord("A", "trained", wide, wide, "j", {"n": 1, "update": 40, "prompts": 9}),
        ExploitabilityRecord("A", "trained", narrow, narrow, "j", {"n": 1, "update": 80, "prompts": 8}),
        ExploitabilityRecord("B", "best_of_n", rate(0.55), rate(0.05), "j", {"n": 4}),
    ]
    suite = replace(small(matchup("A", 0.5, opponent="B")), exploitability=records)
    over_n, over_training = attacker_curves(suite).values()
    assert over_training == (["40", "80"], {"A": [wide, narrow]})
    places, series = over_n
    assert places == ["n = 1", "n = 4"] and series == {"A": [rate(0.5), rate(0.6)], "B": [None, rate(0.55)]}
    assert strongest_attackers(suite) == {"A": narrow, "B": rate(0.55)}
    best = ExploitabilityRecord("A", "best", rate(0.58), rate(0.08), "j", {"n": 4, "chosen": "trained"})
    assert strongest_attackers(replace(suite, exploitability=[*records, best]))["A"] == rate(0.58), "chosen with care"
    unsure = replace(best, policy="B", win_rate=Estimate(0.53, 0.45, 0.6, 0.95, "bca"))
    told = suite_claim(replace(suite, exploitability=[*records, best, unsure])).sentences
    assert told[-2:] == [
        "Attackers were found that beat A (58% of the time).",
        "None was found that beats B for sure; there may be one.",
    ]
    assert not any("ttacker" in one for one in suite_claim(suite).sentences), (
        "picked after the fact, nothing is claimed"
    )


def test_colours_belong_to_policies_on_the_whole_page() -> None:
    suite = example_suite()
    for section in suite_sections(suite):
        for figure in section.figures:
            for name, tone in figure.key:
                if name in POLICIES and section.title.startswith(("By category", "Costs")):
                    assert tone == POLICIES.index(name) + 1


def test_samples_name_sides_wins_and_costs() -> None:
    suite = example_suite()
    view = suite_view(suite)
    assert view is not None
    assert (view.names[view.left], view.names[view.right]) == ("SFT", "MPO-RT")
    assert list(view.categories) == sorted(CATEGORIES) and sum(view.categories.values()) == len(suite.samples)
    sample, shown = suite.samples[1], view.samples[1]
    assert [side.text for side in shown.sides] == [sample.responses[name] for name in view.names]
    assert shown.rate == sample.win_prob["preference"]["MPO-RT"]["SFT"]
    assert shown.sides[0].chips == (f"cost {sample.costs['cost']['SFT']:.2f}",)
    assert view.samples[0].rate is None, "the judge left it unanswered"
    assert suite_view(replace(suite, samples=())) is None


def test_what_was_evaluated_is_told_by_name_spec_and_kind() -> None:
    words = Page(suite_page(example_suite())).words
    for told in ("runs/MPO-RT adapter", "pairwise:models/preference", "kind: llm, model: m", "safety_prompts.jsonl"):
        assert told in words
    assert "magnetar 0.1.0" in words and "temperature 1.0" in words
