import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from magnetar.cli.games import main
from magnetar.errors import DataError
from magnetar.reports.game_page import embedded_svg

VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "rect", "line", "circle"}


class Page(HTMLParser):
    """Checks that elements close, and collects what could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.rows: list[list[str]] = []
        self.heads: list[str] = []
        self.ids: set[str] = set()
        self.uses: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data", "poster") and tag not in ("use",):
                self.links.append(value or "")
            if key == "id":
                self.ids.add(value or "")
            if tag == "use" and key == "xlink:href":
                self.uses.add((value or "").removeprefix("#"))
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th") and self.rows:
            self.rows[-1].append(data.strip())


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / "out"
    words = ["--methods", "mirror_descent,mpo,mpo:step_size=2", "--updates", "40", "--out", str(folder)]
    assert main(["compare", "--games", "biased_rps,random:actions=4", *words]) == 0
    return folder


def test_the_page_is_whole_and_needs_no_network(out: Path) -> None:
    text = (out / "index.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.links and all(link.startswith(("data:,", "#")) for link in page.links)
    assert page.uses and page.uses <= page.ids
    assert text.count("<svg") == 4
    for loader in ("url(http", "@import", "fetch(", "XMLHttpRequest", "<metadata", "<!DOCTYPE svg"):
        assert loader not in text


def test_the_tables_hold_every_method_and_every_run(out: Path) -> None:
    page = Page()
    page.feed((out / "index.html").read_text())
    runs = [row for row in page.rows if row and row[0] in ("biased_rps", "random:actions=4")]
    assert len(runs) == 6
    assert [row[2] for row in runs[:3]] == ["mirror_descent", "mpo η=1", "mpo η=2"]
    summary = [row for row in page.rows if row and row[0] == "mpo η=2"]
    assert summary[0][1] == "original equilibrium"
    assert "arXiv:2410.16714, Algorithm 1" in summary[-1]


def test_plots_keep_their_letters_when_they_are_embedded(out: Path) -> None:
    plot = next((out / "plots").glob("simplex_*.svg"))
    before, after = plot.read_text(), embedded_svg(plot)
    assert after.startswith("<svg") and len(after) < len(before)
    assert before.count('transform="translate(') == after.count('transform="translate(')
    for part in before.split(">"):
        if 'transform="' in part:
            assert part + ">" in after  # a rounded factor would shrink or move letters
            break
    with pytest.raises(DataError, match="cannot be read"):
        embedded_svg(out / "nowhere.svg")
    (out / "text.svg").write_text("words")
    with pytest.raises(DataError, match="holds no <svg> element"):
        embedded_svg(out / "text.svg")


def test_no_name_stands_twice_on_a_page_with_several_plots(out: Path) -> None:
    """Two clipping paths of one name would cut one plot as the other is cut."""
    page = (out / "index.html").read_text()
    names = re.findall(r'\bid="([^"]+)"', page)
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert page.count("<svg") > 1 and len(names) == len(set(names))
    assert set(used) <= set(names)
