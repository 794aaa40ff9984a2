"""Links between pages lead somewhere, on a Git host as in the site."""

import re
from collections import Counter
from pathlib import Path

import pytest
from documented_pages import PAGES, ROOT, anchors_of, links_of, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path, account: tuple[Counter[str], list[str]]) -> None:
    problems = []
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            assert link.startswith(("https://", "mailto:")), link
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        account[0]["links followed"] += 1
        if not target.exists():
            problems.append(f"{link}: {path} does not exist")
        elif not target.is_relative_to(ROOT):
            problems.append(f"{link}: leads out of the repository")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            problems.append(f"{link}: {target.name} has no heading with the anchor {anchor!r}")
    assert not problems, f"{name_of(page)}: " + "; ".join(problems)


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    """MkDocs checks this too; here it is found without building anything."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    listed = set(re.findall(r"[\w/.-]+\.md", navigation))
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert pages <= listed, f"not in the nav of mkdocs.yml: {sorted(pages - listed)}"
