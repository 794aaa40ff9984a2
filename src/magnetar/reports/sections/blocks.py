"""What sections are made of: figures and tables with the words around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult
from magnetar.reports.drawing.canvas import TONES, Drawing

__all__ = [
    "Claim",
    "Figure",
    "Section",
    "Table",
    "confidence_words",
    "in_words",
    "interval_words",
    "judge_title",
    "policy_tones",
]


@dataclass(frozen=True)
class Figure:
    """A drawing with its words.

    Attributes:
        title: What it shows.
        drawing: The picture and its table.
        unit: In which unit.
        hint: How to read it.
        legend: Names of the colours.
        tones: The colours, from 1; by their order where empty.
        wide: Whether it may take the whole width and be scrolled, as a matrix is.
    """

    title: str
    drawing: Drawing
    unit: str = ""
    hint: str = ""
    legend: Sequence[str] = ()
    tones: Sequence[int] = ()
    wide: bool = False

    @property
    def key(self) -> list[tuple[str, int]]:
        """Names with the numbers of their colours."""
        return [(name, self.tones[at] if self.tones else at % TONES + 1) for at, name in enumerate(self.legend)]


@dataclass(frozen=True)
class Table:
    """Figures in rows; the first column names the row.

    Attributes:
        header: Of the columns.
        rows: In words.
        note: Below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading.

    Attributes:
        title: The heading.
        intro: One or more sentences below it.
        figures: First.
        tables: Then; long ones are folded.
    """

    title: str
    intro: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Claim:
    """What a page says first.

    Attributes:
        label: What the large number is; "" for no number.
        rate: The number, a share with its interval; None for no number.
        sentences: What was found, in plain words.
        muted: How it was found.
        warnings: What to know before trusting it.
    """

    label: str = ""
    rate: Estimate | None = None
    sentences: Sequence[str] = ()
    muted: str = ""
    warnings: Sequence[str] = field(default=())


def confidence_words(estimates: Sequence[Estimate | None]) -> str:
    """Say what the intervals cover, such as "95% intervals"."""
    found = sorted({f"{100 * one.confidence:g}%" for one in estimates if one is not None})
    return f"{' and '.join(found)} intervals" if found else "intervals"


def interval_words(estimate: Estimate) -> str:
    """Interval of a share, or why there is none."""
    if estimate.low is None or estimate.high is None:
        return estimate.note or "no interval"
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def policy_tones(result: SuiteResult) -> dict[str, int]:
    """Colour of each policy, the same on the whole page."""
    return {name: at % TONES + 1 for at, name in enumerate(result.policies)}


def judge_title(title: str, judge: str, judges: Sequence[str]) -> str:
    """A heading that names the judge where there are several."""
    return f"{title}: judge {judge}" if len(judges) > 1 else title


def in_words(names: Sequence[str]) -> str:
    """Names in a sentence, the last one after "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
