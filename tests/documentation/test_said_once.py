"""Nothing stands twice on a page, as after a merge that kept both sides."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from documented_pages import PAGES, name_of

FENCED = re.compile(r"^(?P<fence>```+).*?^(?P=fence)", re.MULTILINE | re.DOTALL)
LONG = 25  # letters; a shorter row, and a first cell that is a number or a name, may come back in a table


def twice(found: Iterable[str]) -> list[str]:
    return [text for text, times in Counter(found).items() if times > 1]


def test_what_was_merged_twice_is_found() -> None:
    once = "## Rooms\n\n| folder | what |\n|---|---|\n| `a/` | letters |\n\n- Nothing is fetched,\n  ever.\n"
    assert not said_twice(once)
    assert said_twice(once + once.replace("ever", "never")) == ["## Rooms"]
    assert said_twice(once + "\n## More\n\n- Nothing is fetched,\n  ever.\n") == ["- Nothing is fetched, ever."]
    row = "| LoRA with checkpointed activations | refused |\n"
    assert said_twice(f"| a | b |\n|---|---|\n{row}{row.replace('refused', 'allowed')}") == [row.split(" | ")[0]]
    assert not said_twice(f"| a | b |\n|---|---|\n{row}\n| a | b |\n|---|---|\n{row}")


def said_twice(text: str) -> list[str]:
    """Headings of the second level and entries of lists that stand twice on a page, and rows that do so in a table."""
    text = FENCED.sub("", text)
    headings = re.findall(r"^## .+$", text, re.MULTILINE)
    entries = (" ".join(entry.split()) for entry in re.findall(r"^- .+(?:\n {2,}\S.*)*", text, re.MULTILINE))
    found = twice(headings) + twice(entries)
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = table.splitlines()
        first_cells = (row.split(" | ")[0] for row in rows)
        sentences = (cell for cell in first_cells if len(cell) > LONG and cell.count(" ") > 2)
        found += twice(row for row in rows[2:] if len(row) > LONG) or twice(sentences)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_stands_twice_on_a_page(page: Path) -> None:
    assert not said_twice(page.read_text(encoding="utf-8"))
