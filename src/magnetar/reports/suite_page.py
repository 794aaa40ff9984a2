"""The page of a suite: what the policies do against each other, under cost models, under attack, on benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, read_suite
from magnetar.evaluation.summary import SideSummary
from magnetar.methods.objectives.base import GAME_VALUE
from magnetar.reports.drawing.canvas import percent
from magnetar.reports.environment import page_environment
from magnetar.reports.run_data import flat_settings
from magnetar.reports.samples import suite_view
from magnetar.reports.sections.attacks import ANY, attack_sections
from magnetar.reports.sections.benchmarks import benchmark_section
from magnetar.reports.sections.blocks import Claim, Section, Table, in_words
from magnetar.reports.sections.costs import cost_judges, cost_records, cost_sections
from magnetar.reports.sections.distances import distance_sections
from magnetar.reports.sections.exploitability import exploitability_section, strongest_attackers
from magnetar.reports.sections.matchups import against, category_sections, matchup_judges, matchup_sections
from magnetar.reports.sections.tournament import tournament_sections
from magnetar.reports.svg import compact
from magnetar.reports.text_files import write_text

__all__ = ["suite_claim", "suite_page", "suite_provenance", "suite_sections", "write_suite_report"]

PAGE = "report.html"


def write_suite_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a suite.

    Args:
        folder: Folder with ``suite.json``, or such a file.
        out: Where to write; ``report.html`` beside it by default.

    Returns:
        The page's path.

    Raises:
        DataError: There is no such file, it is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    home = folder.parent if folder.is_file() else folder
    return write_text(
        Path(out) if out is not None else home / PAGE, suite_page(read_suite(folder), home.resolve().name)
    )


def suite_page(result: SuiteResult, name: str = "") -> str:
    """The page's text.

    Args:
        result: What was found.
        name: What the suite is called, such as its folder.

    Returns:
        HTML with everything inline; sections without data are absent.
    """
    return (
        page_environment()
        .get_template("suite.html.j2")
        .render(
            title=_title(result, name),
            facts=_facts(result),
            claim=suite_claim(result),
            sections=suite_sections(result),
            samples=suite_view(result),
            settings=_settings(result),
            versions=result.versions,
            provenance=suite_provenance(result),
        )
    )


def suite_sections(result: SuiteResult) -> list[Section]:
    """Every section for which there are data, in the order in which they should be read."""
    return [
        *matchup_sections(result),
        *distance_sections(result),
        *category_sections(result),
        *cost_sections(result),
        *attack_sections(result),
        *exploitability_section(result),
        *tournament_sections(result),
        *benchmark_section(result),
        *_looks(result),
    ]


def suite_claim(result: SuiteResult) -> Claim:
    """What the figures show, in plain sentences, with the number that they are about.

    Only what an interval shows is claimed; a number that was picked because it is the highest is said to be that.

    Args:
        result: What was found.

    Returns:
        The claim.
    """
    sentences: list[str] = []
    rate: Estimate | None = None
    label = muted = ""
    for judge in matchup_judges(result):
        played = against(result, judge, result.reference) if result.reference else {}
        if not played:
            continue
        if rate is None:
            best = max(played, key=lambda name: played[name].win_rate.value)
            rate, label = played[best].win_rate, f"Win rate of {best} against {result.reference}"
            muted = f"{played[best].prompts:,} prompts, {played[best].comparisons:,} comparisons by the judge {judge}."
            if len(played) > 1:
                muted += f" It is the highest of {len(played)}, picked after the fact: all are below."
        sentences.append(_better(judge, {name: one.win_rate for name, one in played.items()}, str(result.reference)))
    sentences += _safer(result)
    sentences += [*_attacked(result), *_exploited(result)]
    if not sentences:
        sentences = ["Nothing was compared with a reference, so there is nothing to claim; the figures are below."]
    return Claim(label, rate, sentences, muted, result.notes)


def suite_provenance(result: SuiteResult) -> list[Table]:
    """Who took part, who judged, and what was answered."""
    tables = []
    if result.policies:
        rows = [
            [name, ", ".join(one.spec), one.kind, ", ".join(one.seeds) or "–"] for name, one in result.policies.items()
        ]
        tables.append(Table(["policy", "what it is", "kind", "seeds"], rows))
    if result.judges:
        tables.append(Table(["judge", "what it is"], [[name, _spec(one)] for name, one in result.judges.items()]))
    if result.prompts is not None:
        rows = [[result.prompts.dataset, f"{result.prompts.count:,}"]]
        rows += [
            [f"{result.prompts.dataset}: {name}", f"{count:,}"] for name, count in result.prompts.categories.items()
        ]
        tables.append(Table(["prompts", "how many"], rows))
    return tables


def _better(judge: str, rates: Mapping[str, Estimate], reference: str) -> str:
    better = [name for name, rate in rates.items() if rate.low is not None and rate.low > 0.5]
    worse = [name for name, rate in rates.items() if rate.high is not None and rate.high < 0.5]
    told = []
    if better:
        told.append(f"{in_words(better)} to {reference}")
    if worse:
        told.append(f"{reference} to {in_words(worse)}")
    if not told:
        return f"The judge “{judge}” is not shown to prefer any policy to {reference}, nor {reference} to any."
    return f"The judge “{judge}” prefers {', and '.join(told)}."


def _safer(result: SuiteResult) -> list[str]:
    told = []
    for judge in cost_judges(result):
        changes = {name: one.change for name, one in cost_records(result, judge).items() if one.change is not None}
        lower = [name for name, one in changes.items() if one.high is not None and one.high < 0.0]
        higher = [name for name, one in changes.items() if one.low is not None and one.low > 0.0]
        if lower:
            told.append(f"By the cost model “{judge}”, {in_words(lower)} cost less than {result.reference}.")
        if higher:
            told.append(f"By the cost model “{judge}”, {in_words(higher)} cost more than {result.reference}.")
        if changes and not lower and not higher:
            told.append(
                f"By the cost model “{judge}”, no policy is shown to cost less or more than {result.reference}."
            )
    return told


def _attacked(result: SuiteResult) -> list[str]:
    worst = [one for one in result.attacks if one.attack == ANY and one.reads == "original"]
    told = [f"{one.policy} {percent(one.unsafe_share.value, 0)}" for one in worst]
    return [f"Under the worst attack for each prompt, unsafe responses: {in_words(told)}."] if told else []


def _exploited(result: SuiteResult) -> list[str]:
    """Whom attackers beat for sure; of several attackers only the one that was chosen on other prompts is claimed."""
    rates = strongest_attackers(result, chosen_only=True)
    beaten = {name: one for name, one in rates.items() if one.low is not None and one.low > GAME_VALUE}
    others = [name for name in rates if name not in beaten]
    told = [f"{name} ({percent(one.value, 0)} of the time)" for name, one in beaten.items()]
    return [
        *([f"Attackers were found that beat {in_words(told)}."] if told else []),
        *([f"None was found that beats {in_words(others)} for sure; there may be one."] if others else []),
    ]


def _title(result: SuiteResult, name: str) -> str:
    count = len(result.policies)
    told = "1 policy" if count == 1 else f"{count} policies"
    return f"{name}: {told}" if name else told


def _facts(result: SuiteResult) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if result.prompts is not None:
        facts["Prompts"] = f"{result.prompts.count:,}"
        if result.prompts.categories:
            facts["Categories"] = len(result.prompts.categories)
    if result.judges:
        facts["Judges"] = ", ".join(result.judges)
    if result.reference is not None:
        facts["Reference"] = result.reference
    seeds = sorted({len(one.seeds) for one in result.policies.values() if one.seeds})
    if seeds:
        facts["Seeds"] = " or ".join(map(str, seeds))
    return facts


def _looks(result: SuiteResult) -> list[Section]:
    """Length, emptiness and repetition of each policy's responses."""
    shown = {name: one.responses for name, one in result.policies.items() if one.responses is not None}
    if not shown:
        return []
    header = ["", "tokens", "characters", "cut off", "empty", "canned", "looping", "distinct words", "distinct pairs"]
    rows = [[name, *_side(one)] for name, one in shown.items()]
    note = "Means. Canned: the same text to different prompts. Looping: word triples said before. Distinct: of all."
    return [Section("What the answers look like", "", tables=[Table(header, rows, note)])]


def _side(one: SideSummary) -> Sequence[str]:
    look = one.degeneracy
    shares = (one.truncated, look.empty, look.repeated_across_prompts, look.looping, look.distinct_1, look.distinct_2)
    return [compact(one.tokens), compact(one.characters), *(percent(share) for share in shares)]


def _settings(result: SuiteResult) -> dict[str, Mapping[str, str]]:
    """Settings of the suite, and those of each section that has its own."""
    own = {key: value for key, value in result.settings.items() if not isinstance(value, Mapping)}
    groups: dict[str, Mapping[str, str]] = {"Evaluation": flat_settings(own)}
    for key, value in result.settings.items():
        if isinstance(value, Mapping):
            groups[key.replace("_", " ").capitalize()] = flat_settings(value)
    return groups


def _spec(value: Any) -> str:
    return (
        value if isinstance(value, str) else ", ".join(f"{key}: {text}" for key, text in flat_settings(value).items())
    )
