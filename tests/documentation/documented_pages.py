"""The pages that are written by people, and what is in them: code in any language, headings, links."""

import re
from dataclasses import dataclass
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

__all__ = ["PAGES", "ROOT", "Block", "anchors_of", "blocks_of", "links_of", "name_of", "without_code"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

SKIP = re.compile(r"<!--\s*skip: next\s+\"(?P<reason>[^\"]+)\"\s*-->\s*\Z")
CODE = re.compile(r"^(?P<fence>```+).*?^(?P=fence)|(?P<ticks>`+)(?!`).*?(?P=ticks)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)[^)]*\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Where it is.
        line: Of its fence.
        language: The word behind the fence.
        text: What is in it.
        not_run: Why it is not run, as the comment above it says; None for one that is.
        before: What stands between it and the block before.
    """

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def name_of(page: Path) -> str:
    """Name of a page in the names of tests."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page that name a language, in order."""
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for region in FencedCodeBlockLexer(r"\w+")(Document(text, str(page))):
        before = text[end : region.start]
        marked = SKIP.search(before)
        language, source = region.lexemes["language"], str(region.lexemes["source"])
        line = text.count("\n", 0, region.start) + 1
        found.append(Block(page, line, language, source, marked["reason"] if marked else None, before))
        end = region.end
    return found


def without_code(text: str) -> str:
    """A page's text without what is code."""
    return CODE.sub("", text)


def links_of(page: Path) -> list[str]:
    """Targets of the links and pictures of a page."""
    return [match["target"] for match in LINK.finditer(without_code(page.read_text(encoding="utf-8")))]


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as Git hosts and the site make them."""
    text = re.sub(r"^(```+).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+?)\s*#*$", text, re.MULTILINE):
        words = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = anchor
        for count in range(1, 100):
            if again not in found:
                break
            again = f"{anchor}-{count}"
        found.add(again)
    return found
