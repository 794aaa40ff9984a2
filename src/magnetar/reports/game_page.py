"""One self-contained page for a comparison of methods on games: tables, plots, and how to read them."""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from magnetar.errors import DataError
from magnetar.evaluation.record import package_versions
from magnetar.games.comparison.cells import MethodSummary, target_text
from magnetar.games.settings import setting_text
from magnetar.reports.environment import page_environment
from magnetar.reports.text_files import write_text

__all__ = ["GameSection", "MethodEntry", "embedded_svg", "write_game_page"]

SCREEN_PIXELS_A_POINT = 1.6
OPEN_UP_TO = 6  # more games than this are folded, each behind its name


@dataclass(frozen=True)
class MethodEntry:
    """What the page says of a method.

    Attributes:
        label: Name in tables and plots.
        settings: Settings by name.
        converges_to: What its last iterate reaches.
        source: Where it is from.
    """

    label: str
    settings: Mapping[str, Any]
    converges_to: str
    source: str


@dataclass(frozen=True)
class GameSection:
    """What the page shows of a game.

    Attributes:
        label: Name of the game.
        actions: Number of its actions.
        gap_plot: SVG of the gaps; None if every method failed.
        simplex_plot: SVG of the paths; None unless the game has three actions.
    """

    label: str
    actions: int
    gap_plot: Path | None
    simplex_plot: Path | None


def write_game_page(
    out: Path,
    *,
    command: str,
    updates: int,
    start: str,
    targets: Sequence[float],
    methods: Sequence[MethodEntry],
    summaries: Sequence[MethodSummary],
    rows: Sequence[Mapping[str, object]],
    labels: Sequence[str],
    profile: Path | None,
    sections: Sequence[GameSection],
) -> Path:
    """Write the page of a comparison.

    Args:
        out: Where to write.
        command: How to repeat the comparison.
        updates: Updates of each run.
        start: Name of the starting policy.
        targets: Gaps that count as solved.
        methods: The methods, in order.
        summaries: Their summaries over all games, in the same order.
        rows: The table of results, see `magnetar.games.comparison.cells.result_row`.
        labels: The method of each row.
        profile: SVG of the shares of games solved; None if nothing was.
        sections: The games, in order.

    Returns:
        ``out``.

    Raises:
        DataError: The page cannot be written, or a plot cannot be read.
    """
    games = len(sections)
    # Where many games are folded away, one picture of what the methods do stays in view.
    first_simplex = next((section for section in sections if section.simplex_plot), None)
    text = (
        page_environment()
        .get_template("games.html.j2")
        .render(
            title=f"{_count(len(methods), 'method')} on {_count(games, 'game')}",
            facts={"Updates of each run": f"{updates:,}", "Start": start, "Runs": f"{len(rows):,}"},
            command=command,
            targets=[target_text(target) for target in targets],
            methods=[(entry, _settings(entry.settings)) for entry in methods],
            summaries=summaries,
            failed=[(label, row) for label, row in zip(labels, rows, strict=True) if row["failure"]],
            rows=list(zip(labels, rows, strict=True)),
            columns=[f"evaluations_to_{target_text(target)}" for target in targets],
            profile=embedded_svg(profile) if profile else None,
            sections=[
                (section, _svg_or_none(section.gap_plot), _svg_or_none(section.simplex_plot)) for section in sections
            ],
            unfolded=[games <= OPEN_UP_TO or section is first_simplex for section in sections],
            several=games > 1,
            gap=_gap,
            number=_number,
            versions=package_versions(),
        )
    )
    return write_text(out, text)


def embedded_svg(path: Path) -> Markup:
    """A plot as it stands inside a page: without prologue, links to its maker, and more digits than a screen shows.

    Args:
        path: SVG as matplotlib writes it.

    Returns:
        The ``<svg>`` element.

    Raises:
        DataError: The file cannot be read or holds no SVG.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"plot {path} cannot be read ({error}); run the command again") from error
    start = text.find("<svg")
    if start < 0:
        raise DataError(f"plot {path} holds no <svg> element; run the command again")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[start:], flags=re.DOTALL)
    # Digits below a hundredth of a point are most of the file. Only in paths: a transform's factors need theirs.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\d+\.\d\d)\d+", r"\1", path[0]), text)
    # Every plot names its axes, letters and clipping paths alike; on one page a name may stand once.
    mark = f"p{zlib.crc32(f'{path.name}{text}'.encode()):08x}-"
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{mark}", text)
    # The view box keeps the proportions; on the screen a point of the paper is somewhat more than a pixel.
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', text)
    if width is not None:
        style = f' style="max-width:{SCREEN_PIXELS_A_POINT * float(width[1]):.0f}px"'
        text = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", text, count=1)
        text = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', rf"\1{style}", text, count=1)
    return Markup(text)


def _svg_or_none(path: Path | None) -> Markup | None:
    return None if path is None else embedded_svg(path)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {setting_text(value)}" for key, value in settings.items() if value is not None)


def _gap(value: object) -> str:
    if not isinstance(value, float):
        return "–"
    return "0" if value == 0 else f"{value:.1e}".replace("e-0", "e-").replace("e+00", "")


def _number(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else "–"
