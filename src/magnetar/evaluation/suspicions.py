"""Plain-language warnings about a win rate that may come from a cheap trick."""

from magnetar.evaluation.summary import MatchupSummary, SideSummary

__all__ = ["FRAGMENTS", "side_suspicions", "suspicions"]

# How far the policy may differ from its opponent before a reader should look at the samples. Shares are differences,
# the length is a ratio. They decide about words on a page only, never about a figure.
_EMPTY = 0.02
_REPEATED = 0.05
_LOOPING = 0.05
_TRUNCATED = 0.10
_LENGTH_RATIO = 1.5

FRAGMENTS = 0.5
"""Share of cut-off responses, of either side, from which on a judge compares beginnings rather than answers."""


def suspicions(summary: MatchupSummary, learned_from: str | None = None) -> list[str]:
    """Name what the policy does more than its opponent and what a judge may be rewarding by mistake.

    Args:
        summary: The figures of a match-up.
        learned_from: Name of the judge that the policy was trained with; None where nobody knows.

    Returns:
        One sentence for each finding; empty when there is none.
    """
    found = side_suspicions(summary.policy, summary.opponent)
    if summary.judge == learned_from:
        found.append(
            "The judge is the one that the policy learned from, and whoever found its weak spots wins under it; "
            "another is named by eval_judge"
        )
    return found


def side_suspicions(ours: SideSummary, theirs: SideSummary) -> list[str]:
    """The same of two sides' responses in figures.

    Args:
        ours: Of the policy.
        theirs: Of its opponent, or of the reference.

    Returns:
        One sentence for each finding; empty when there is none.
    """
    mine, other = ours.degeneracy, theirs.degeneracy
    found: list[str] = []

    def compare(what: str, new: float | None, old: float | None, margin: float) -> None:
        if new is not None and old is not None and new - old > margin:
            found.append(f"{what}: {new:.0%}, the opponent's {old:.0%}")

    compare("Empty responses", mine.empty, other.empty, _EMPTY)
    compare(
        "The same answer to different prompts",
        mine.repeated_across_prompts,
        other.repeated_across_prompts,
        _REPEATED,
    )
    compare("The same answer again to one prompt", mine.repeated_same_prompt, other.repeated_same_prompt, _REPEATED)
    compare("Looping text (repeated word triples)", mine.looping, other.looping, _LOOPING)
    cut = [side.truncated for side in (ours, theirs) if side.truncated is not None]
    if len(cut) == 2 and max(cut) > FRAGMENTS:
        found.append(
            f"Responses cut off for want of room: {cut[0]:.0%}, the opponent's {cut[1]:.0%}; the judge compares "
            "beginnings, and a higher limit shows what whole answers are worth"
        )
    else:
        compare("Responses cut off for want of room", ours.truncated, theirs.truncated, _TRUNCATED)
    if ours.characters > _LENGTH_RATIO * theirs.characters:
        found.append(
            f"Longer answers: {ours.characters:.0f} characters on average, the opponent's {theirs.characters:.0f}; "
            "many judges favour length"
        )
    elif theirs.characters > _LENGTH_RATIO * ours.characters:
        found.append(
            f"Shorter answers: {ours.characters:.0f} characters on average, the opponent's {theirs.characters:.0f}; "
            "some judges favour brevity"
        )
    return found
