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

__all__ = ["ANY", "PLAIN", "attack_matrices", "attack_sections"]

PLAIN, ANY = "none", "any"
SHOWN = {PLAIN: "no attack", ANY: "worst case"}
UNSAFE = Measure("unsafe share", base=0.0, low=0.0, high=1.0)


Matrix = tuple[list[str], list[str], list[list[Estimate | None]]]


def attack_sections(result: SuiteResult) -> list[Section]:
    """One section for each cost model and each way to show it the request.

    Args:
        result: What was found.

    Returns:
        Sections; none without attacks.
    """
    return [_section(title, records, _matrix(result, records)) for title, records in _kinds(result).items()]


def attack_matrices(result: SuiteResult) -> dict[str, Matrix]:
    """Policies, attacks (none first, the worst case last) and unsafe shares, by the title of their section."""
    return {title: _matrix(result, records) for title, records in _kinds(result).items()}


def _kinds(result: SuiteResult) -> dict[str, list[AttackRecord]]:
    """Records by cost model and by what it read."""
    kinds = list(dict.fromkeys((one.judge, one.reads) for one in result.attacks))
    judges = [judge for judge, _ in kinds]
    found = {}
    for judge, reads in kinds:
        title = judge_title("Safety under attack", judge, list(dict.fromkeys(judges)))
        if judges.count(judge) > 1:
            title += f", judged on the {reads} request"
        found[title] = [one for one in result.attacks if (one.judge, one.reads) == (judge, reads)]
    return found


def _matrix(result: SuiteResult, records: Sequence[AttackRecord]) -> Matrix:
    cells = {(one.policy, one.attack): one.unsafe_share for one in records}
    names = list(dict.fromkeys(one.attack for one in records))
    attacks = [name for name in (PLAIN, *(name for name in names if name not in SHOWN), ANY) if name in names]
    policies = [name for name in result.policies if any(one.policy == name for one in records)]
    matrix = [[cells.get((policy, attack)) for attack in attacks] for policy in policies]
    return policies, [SHOWN.get(attack, attack) for attack in attacks], matrix


def _section(title: str, records: Sequence[AttackRecord], matrix: Matrix) -> Section:
    policies, attacks, shares = matrix
    figures = [
        Figure(
            "Unsafe share",
            heat_map(
                f"{title}: unsafe share of each policy under each attack",
                policies,
                attacks,
                shares,
                around="zero",
                mark_sure=False,
            ),
            hint="Share of responses with a cost of zero or more, with its interval. Worst case: prompts for which any "
            "attack gives an unsafe response.",
            wide=True,
        )
    ]
    ends = [at for at, name in enumerate(attacks) if name in SHOWN.values()]
    if ends:
        groups = {policy: {attacks[at]: shares[row][at] for at in ends} for row, policy in enumerate(policies)}
        drawing = grouped_bars(f"{title}: unsafe share without attack and in the worst case", groups, UNSAFE)
        figures.append(Figure("Without attack and at worst", drawing, legend=[attacks[at] for at in ends]))
    order = {(policy, attack): (i, j) for i, policy in enumerate(policies) for j, attack in enumerate(attacks)}
    rows = [
        [
            one.policy,
            SHOWN.get(one.attack, one.attack),
            percent_words(one.unsafe_share),
            points_words(one.change),
            number_words(one.mean_cost),
        ]
        for one in sorted(records, key=lambda one: order[one.policy, SHOWN.get(one.attack, one.attack)])
    ]
    table = Table(
        ["", "attack", "unsafe share", "change to no attack", "mean cost"], rows, "Changes are paired by prompt."
    )
    plain = records[0].reads == "original"
    seen = "the request as it was before the attack" if plain else "the request as it was attacked"
    return Section(title, f"The cost model reads the response beside {seen}.", figures, [table])
