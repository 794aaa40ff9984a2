"""The README: its figures are those of the pages that it cites, and it sets up by two commands."""

import re

from documented_pages import ROOT, blocks_of

from magnetar.methods import METHODS

README = (ROOT / "README.md").read_text(encoding="utf-8")
EVIDENCE = (ROOT / "docs" / "language_model_evidence.md").read_text(encoding="utf-8")


def between(text: str, marker: str) -> str:
    return text.split(f"<!-- {marker}:begin -->")[1].split(f"<!-- {marker}:end -->")[0]


def test_set_up_is_two_commands() -> None:
    part = README.split("## Set up")[1].split("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
    assert [line.split("#")[0].strip() for line in block.splitlines()] == ["make demo", "make test"]


def test_the_gaps_of_the_methods_are_those_of_the_evidence() -> None:
    """Least and largest over the methods of a row, from the page that a script writes."""
    measured = {}
    for row in re.findall(r"^\| \[`(\w+)`\].*$", between(EVIDENCE, "methods"), re.MULTILINE):
        line = next(line for line in EVIDENCE.splitlines() if line.startswith(f"| [`{row}`]"))
        measured[row] = [float(number) for number in re.findall(r"\d\.\d+", line.split(" | ")[3])]
    listed: list[str] = []
    for line in between(README, "methods").splitlines():
        names = re.findall(r"`(\w+)`", line)
        if not names:
            continue
        listed += names
        gaps = [gap for name in names for gap in measured[name]]
        assert line.split(" | ")[-1].strip(" |") == f"{min(gaps):.3f} to {max(gaps):.3f}", names
    assert sorted(listed) == sorted(measured), "the README lists the methods that the evidence measures"


def test_what_the_last_iterates_reach_is_what_the_methods_say() -> None:
    says = {
        "the original equilibrium": {"original equilibrium"},
        "the same, without a magnet": {"original equilibrium"},
        "the equilibrium of a game regularised": {"regularised equilibrium", "nothing known"},
        "nothing; its average converges": {"average only"},
        "the best policy for fitted": {"Bradley–Terry policy"},
    }
    for beginning, allowed in says.items():
        (line,) = (line for line in README.splitlines() if line.startswith(f"| {beginning}"))
        for name in re.findall(r"`(\w+)`", line):
            assert METHODS[name]().converges_to in allowed, name
    games_only = [name for name, make in METHODS.items() if make().games_only_because is not None]
    assert len(games_only) == 6 and "six more run on games only" in README


def test_the_figures_beside_commands_stand_on_the_pages_that_they_link_to() -> None:
    table = README.split("## Measured")[1].split("\n## ")[0]
    pages = {
        "2.61 times": "benchmarks/README.md",
        "4.26 times": "benchmarks/README.md",
        "30.9 times": "docs/fastest.md",
        "53.0% [51.6%, 54.5%]": "benchmarks/README.md",
        "1.7% of 14,000": "benchmarks/README.md",
    }
    for figure, page in pages.items():
        assert figure in table, figure
        text = (ROOT / page).read_text(encoding="utf-8")
        assert figure.removesuffix(" times") in text, f"{figure} is not on {page}"


def test_python_on_the_page_is_about_twenty_lines() -> None:
    lines = [
        line
        for block in blocks_of(ROOT / "README.md")
        if block.language == "python"
        for line in block.text.splitlines()
    ]
    assert len(lines) <= 20
