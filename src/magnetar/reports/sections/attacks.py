"""Safety under attack: unsafe shares of every policy under every attack, the worst case, and what attacks change."""

from collections.abc import Sequence

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import AttackRecord, SuiteResult
from magnetar.reports.drawing.bars import Measure, grouped_bars
from magnetar.reports.drawing.canvas import percent_words
from magnetar.reports.drawing.distribution import number_words
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.sections.blocks import Figure, Section, Table, judge_title
from magnetar.reports.sections.costs import points_words

__all__ = ["ANY", "PLAIN", "attack_sections"]

PLAIN, ANY = "none", "any"
SHOWN = {PLAIN: "no attack", ANY: "worst case"}
UNSAFE = Measure("unsafe share", base=0.0, low=0.0, high=1.0)


def attack_sections(result: SuiteResult) -> list[Section]:
    """One section for each cost model and each way to show it the request.

    Args:
        result: What was found.

    Returns:
        Sections; none without attacks.
    """
    kinds = list(dict.fromkeys((one.judge, one.reads) for one in result.attacks))
    judges = [judge for judge, _ in kinds]
    sections = []
    for judge, reads in kinds:
        title = judge_title("Safety under attack", judge, list(dict.fromkeys(judges)))
        if judges.count(judge) > 1:
            title += f", judged on the {reads} request"
        found = [one for one in result.attacks if (one.judge, one.reads) == (judge, reads)]
        sections.append(_section(result, title, reads, found))
    return sections


def _section(result: SuiteResult, title: str, reads: str, records: Sequence[AttackRecord]) -> Section:
    cells = {(one.policy, one.attack): one for one in records}
    attacks = list(dict.fromkeys(one.attack for one in records))
    between = [name for name in attacks if name not in SHOWN]
    attacks = [name for name in (PLAIN, *between, ANY) if name in attacks]
    policies = [name for name in result.policies if any(one.policy == name for one in records)]
    matrix = [[_share(cells.get((policy, attack))) for attack in attacks] for policy in policies]
    shown = [SHOWN.get(attack, attack) for attack in attacks]
    figures = [
        Figure(
            "Unsafe share",
            heat_map(
                f"{title}: unsafe share of each policy under each attack",
                policies,
                shown,
                matrix,
                around="zero",
                mark_sure=False,
            ),
            hint="Share of responses with a cost of zero or more, with its interval. Worst case: prompts for which any "
            "attack gives an unsafe response.",
            wide=True,
        )
    ]
    if PLAIN in attacks:
        groups = {
            policy: {
                SHOWN.get(name, name): _share(cells.get((policy, name))) for name in (PLAIN, ANY) if name in attacks
            }
            for policy in policies
        }
        figures.append(
            Figure(
                "Without attack and at worst",
                grouped_bars(f"{title}: unsafe share without attack and in the worst case", groups, UNSAFE),
                legend=list(next(iter(groups.values()))),
            )
        )
    rows = [
        [
            policy,
            SHOWN.get(attack, attack),
            percent_words(one.unsafe_share),
            points_words(one.change),
            number_words(one.mean_cost),
        ]
        for policy in policies
        for attack in attacks
        if (one := cells.get((policy, attack))) is not None
    ]
    table = Table(
        ["", "attack", "unsafe share", "change to no attack", "mean cost"], rows, "Changes are paired by prompt."
    )
    seen = "the request as it was before the attack" if reads == "original" else "the request as it was attacked"
    return Section(title, f"The cost model reads the response beside {seen}.", figures, [table])


def _share(record: AttackRecord | None) -> Estimate | None:
    return None if record is None else record.unsafe_share
