"""Matrices of shares as coloured cells with their numbers: around one half, or from zero up."""

from collections.abc import Sequence
from typing import Literal

from markupsafe import escape

from magnetar.evaluation.intervals import Estimate
from magnetar.reports.drawing.canvas import Drawing, frame, label_lines, percent_words

__all__ = ["heat_map"]

CELL_WIDTH, CELL_HEIGHT, LABEL_WIDTH, LETTER = 74.0, 42.0, 150.0, 6.6
HEADING, LINE = 14.0, 13.0
FULL_AT = 0.5  # distance from one half at which a cell has its full colour
FAINT, STRONG = 0.08, 0.62  # opacity of the palest cell, and what the strongest adds


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    matrix: Sequence[Sequence[Estimate | None]],
    *,
    around: Literal["half", "zero"] = "half",
    mark_sure: bool = True,
) -> Drawing:
    """Draw shares as cells; with the same rows and columns, columns have the numbers of the rows.

    Args:
        title: What is drawn.
        rows: Labels.
        columns: Labels.
        matrix: Shares; None leaves a cell empty.
        around: "half": two colours, pale at one half; "zero": one colour, pale at zero.
        mark_sure: Whether an interval that excludes one half is in bold.

    Returns:
        The drawing, wider the more columns there are.
    """
    numbered = list(rows) == list(columns)
    left = min(LABEL_WIDTH, max(len(label) for label in rows) * LETTER) + (34.0 if numbered else 14.0)
    letters = int(CELL_WIDTH / LETTER)
    headings = [[str(at + 1)] if numbered else label_lines(label, letters, 3) for at, label in enumerate(columns)]
    top = HEADING + LINE * (max(map(len, headings)) - 1) + 8.0
    parts = []
    for column, lines in enumerate(headings):
        middle = left + CELL_WIDTH * (column + 0.5)
        spans = "".join(
            f'<tspan x="{middle:.1f}" y="{top - 8.0 - LINE * (len(lines) - 1 - at):.1f}">{escape(line)}</tspan>'
            for at, line in enumerate(lines)
        )
        parts.append(
            f'<text class="tick name" text-anchor="middle">{spans}<title>{escape(columns[column])}</title></text>'
        )
    for row, label in enumerate(rows):
        y = top + CELL_HEIGHT * row
        number = f"{row + 1} " if numbered else ""
        parts.append(
            f'<text class="tick name" x="{left - 8:.1f}" y="{y + CELL_HEIGHT / 2 + 4:.1f}" text-anchor="end">'
            f"{number}{escape(_short(label))}<title>{escape(label)}</title></text>"
        )
        for column, cell in enumerate(matrix[row]):
            words = f"{label}, {columns[column]}" if not numbered else f"{label} against {columns[column]}"
            parts.append(_cell(words, cell, left + CELL_WIDTH * column, y, around, mark_sure))
    width, height = left + CELL_WIDTH * len(columns) + 2.0, top + CELL_HEIGHT * len(rows) + 2.0
    return Drawing(
        frame(title, width, height, parts, natural=True),
        ("", *columns),
        tuple((label, *(percent_words(cell) for cell in line)) for label, line in zip(rows, matrix, strict=True)),
    )


def _cell(words: str, cell: Estimate | None, x: float, y: float, around: str, mark_sure: bool) -> str:
    place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" rx="3"'
    if cell is None or cell.value != cell.value:
        return f'<rect class="cell none" {place}/>'
    if around == "half":
        side = "up" if cell.value >= 0.5 else "down"
        strength = min(abs(cell.value - 0.5) / FULL_AT, 1.0)
    else:
        side, strength = "down", min(max(cell.value, 0.0), 1.0)
    sure = " sure" if mark_sure and cell.excludes(0.5) else ""
    middle = x + CELL_WIDTH / 2
    interval = "" if cell.low is None or cell.high is None else f"{100 * cell.low:.0f}–{100 * cell.high:.0f}"
    return (
        f'<g><rect class="cell {side}" style="fill-opacity:{FAINT + STRONG * strength:.2f}" {place}/>'
        f'<text class="rate{sure}" x="{middle:.1f}" y="{y + 18:.1f}" text-anchor="middle">{cell.value:.1%}</text>'
        f'<text class="tick inside-cell" x="{middle:.1f}" y="{y + 33:.1f}" text-anchor="middle">{interval}</text>'
        f"<title>{escape(f'{words}: {percent_words(cell)}')}</title></g>"
    )


def _short(label: str) -> str:
    room = int(LABEL_WIDTH / LETTER)
    return label if len(label) <= room else label[: room - 1] + "…"
