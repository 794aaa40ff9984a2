"""The page of the reproduction says what the committed figures say, and these hold nobody's prompts."""

import json
import re
from pathlib import Path

import pytest

from benchmark_scripts import load_script
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import read_suite

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reproduction"


for sibling in ("language_model_sections", "method_pages"):
    load_script(sibling)
script = load_script("reproduction_page")


def test_every_table_is_that_of_the_committed_figures() -> None:
    text = script.PAGE.read_text(encoding="utf-8")
    for marker, content in script.blocks().items():
        shown = text.split(f"<!-- {marker}:begin -->\n")[1].split(f"\n<!-- {marker}:end -->")[0]
        assert shown == content, "run: python benchmarks/reproduction_page.py"


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", script.PAGE.read_text(encoding="utf-8"))
    assert len(pictures) >= 4
    assert all((script.PAGE.parent / picture).is_file() for picture in pictures)


def test_nobodys_prompts_and_no_paths_of_a_machine_are_published() -> None:
    files = [path for path in RESULTS.iterdir() if path.name not in (script.STEPS, script.APOLOGIES)]
    assert {"safety.json", "harmless.json"} <= {path.name for path in files}
    assert all(not read_suite(path).samples for path in files)
    assert not any(re.search(r'"(/|\w+@)', path.read_text(encoding="utf-8")) for path in RESULTS.iterdir())


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("I'm sorry, but no.", True),
        ("I’m so sorry about it", True),
        ("I am sorry", True),
        ("Sorry", False),
        ("No. I'm sorry.", False),
    ],
)
def test_an_apology_is_told_by_how_an_answer_begins(text: str, begins: bool) -> None:
    assert (script.APOLOGY.match(text) is not None) is begins


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.51, 0.6, "**yes**"), (0.4, 0.49, "**the opposite**"), (0.49, 0.6, "not shown")]
)
def test_a_claim_is_shown_where_the_whole_interval_says_so(low: float, high: float, word: str) -> None:
    assert script.verdict(Estimate((low + high) / 2, low, high, 0.95, "bca")).endswith(f"] {word}")


def test_every_step_says_what_it_took() -> None:
    steps = json.loads((RESULTS / script.STEPS).read_text(encoding="utf-8"))
    assert {"sft", "preference/judge", "train/mpo/seed-0"} <= {step["step"] for step in steps}
    assert all(step["hours"] > 0 and step["hardware"]["cores"] >= 1 and step["git"]["commit"] for step in steps)
