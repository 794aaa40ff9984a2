import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from magnetar.errors import DataError
from magnetar.evaluation import Estimate, MatchupSummary
from magnetar.evaluation.asking import OrderRecord
from magnetar.reports import verdict, write_matchup_report, write_run_report
from magnetar.reports.run_data import read_run
from magnetar.reports.run_page import _mean_win_prob

EVIL = "<script>alert('x')</script> & \"quotes\" </textarea> {{ 7 * 7 }}"
VOID = {"meta", "link", "br", "img", "input", "line", "path", "circle"}


class Page(HTMLParser):
    """Text, element names and attributes of a page, and whether its elements nest properly."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += " " + data

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)

    def count(self, tag: str, style: str | None = None) -> int:
        return sum(t == tag and (style is None or style in (a.get("class") or "").split()) for t, a in self.elements)


def test_page_says_the_figures_of_the_evaluation(make_run: Callable[..., Path], summary: MatchupSummary) -> None:
    page = Page(write_run_report(make_run()))
    rate = summary.win_rate
    assert rate.low is not None and rate.high is not None
    assert f"{rate.value:.1%}" in page.words and f"95% interval {rate.low:.1%} to {rate.high:.1%}" in page.words
    assert verdict(summary) in page.words
    for name, part in summary.categories.items():
        assert re.search(rf"{name} {part.prompts} prompts .*?{part.win_rate.value:.1%}", page.words)


def test_page_loads_nothing_from_elsewhere(make_run: Callable[..., Path]) -> None:
    page = Page(write_run_report(make_run()))
    for tag, attributes in page.elements:
        assert "src" not in attributes and tag not in ("iframe", "object", "embed")
        assert (attributes.get("href") or "data:,").startswith(("data:,", "#"))
    assert not re.search(r"https?:|@import|url\(|fetch\(", page.source)


def test_what_models_and_datasets_say_is_shown_as_text(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    sample = {"prompt": EVIL, "category": EVIL, "policy": EVIL, "opponent": EVIL, "win_prob": 0.5}
    (folder / "evaluation_samples.jsonl").write_text(json.dumps(sample) + "\n")
    training = {"update": 1, "prompt": [{"role": EVIL, "content": EVIL}], "responses": [EVIL], "win_prob": [0.5]}
    (folder / "samples.jsonl").write_text(json.dumps(training) + "\n")
    config = json.loads((folder / "magnetar_config.json").read_text())
    (folder / "magnetar_config.json").write_text(json.dumps({**config, "method": EVIL, EVIL: EVIL}))
    page = Page(write_run_report(folder))
    assert page.count("script") == 1, "the page's own"
    assert "<script>alert" not in page.source
    assert page.text.count(EVIL) >= 8


def test_samples_of_training_are_headed_by_their_update(make_run: Callable[..., Path]) -> None:
    """`group.update` of a template is the method of a dictionary; a page showed it with its address in memory."""
    run = make_run()
    updates = [json.loads(line)["update"] for line in (run / "samples.jsonl").read_text().splitlines()]
    words = Page(write_run_report(run)).words
    assert updates and all(f" Update {update} " in words for update in updates)
    assert " object at 0x" not in words


def test_a_run_measured_by_its_own_judge_says_so(make_run: Callable[..., Path]) -> None:
    run = make_run()
    config = json.loads((run / "magnetar_config.json").read_text())
    assert config["judge"] == "panel" and "the policy learned from" in Page(write_run_report(run)).words
    (run / "magnetar_config.json").write_text(json.dumps(config | {"judge": "another"}))
    assert "the policy learned from" not in Page(write_run_report(run)).words


def test_markup_in_names_of_players_is_escaped(summary: MatchupSummary, tmp_path: Path) -> None:
    evil = replace(summary, policy=replace(summary.policy, name=EVIL), judge=EVIL)
    page = Page(write_matchup_report(evil, [], tmp_path / "page.html"))
    assert page.count("script") == 1 and EVIL in page.text


def test_an_unevaluated_run_says_so_and_claims_nothing(make_run: Callable[..., Path]) -> None:
    page = Page(write_run_report(make_run(evaluated=False)))
    assert "has not been evaluated" in page.words
    assert "Win rate of" not in page.words and "By category" not in page.words


def test_magnet_moves_are_marked_in_every_chart(make_run: Callable[..., Path]) -> None:
    page = Page(write_run_report(make_run(updates=100, magnet_every=25)))
    charts = page.count("svg", "plot")
    assert charts >= 8
    assert page.count("line", "mark") == 4 * charts
    assert "moved (4 times)" in page.words


def test_a_magnet_that_always_moves_is_told_in_words(make_run: Callable[..., Path]) -> None:
    page = Page(write_run_report(make_run(updates=100, magnet_every=1)))
    assert page.count("line", "mark") == 0
    assert "moved 100 times, too often to mark" in page.words


def test_missing_and_broken_numbers_are_gaps(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    lines = ['{"update": 1, "loss": NaN, "kl_magnet": null}', '{"update": 2, "kl_magnet": 0.5}', '{"update": 3, "ent']
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    page = Page(write_run_report(folder))
    assert page.count("svg", "plot") == 1 and "Distance travelled" in page.words


def test_several_lines_of_an_update_become_one_and_evaluations_join_it(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    lines = [
        {"step": 1, "update": 1, "loss": 1.0, "magnet_moved": 1, "entropy": 2.0},
        {"step": 2, "update": 1, "loss": 3.0, "magnet_moved": 0},
        {"step": 2, "eval_win_rate": 0.6},
        {"step": 3, "update": 2, "loss": 4.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    assert run.updates == [1.0, 2.0] and run.column("loss") == [3.0, 4.0] and run.column("entropy") == [2.0, None]
    assert run.magnet_moves() == [1.0] and run.column("eval_win_rate") == [0.6, None]


def test_categories_of_the_filter_are_those_of_the_samples(make_run: Callable[..., Path]) -> None:
    page = Page(write_run_report(make_run()))
    section = page.source[page.source.index('data-filter="category"') :]
    options = re.findall(r'<option value="([^"]*)"', section[: section.index("</select>")])
    cards = [attributes.get("data-category") for tag, attributes in page.elements if tag == "article"]
    assert options == ["", *sorted({card or "" for card in cards})]
    assert f"all ({len(cards)})" in page.words


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", "", "holds no update"),
        ("metrics.jsonl", '{"update": 1}\nnot json\n{"update": 2}\n', "line 2, is not JSON"),
        ("metrics.jsonl", "[1]\n", "expected a JSON object"),
        ("magnetar_config.json", "{", "is not JSON"),
        ("evaluation.json", '{"win_rate": 1}', "not an evaluation summary"),
        ("samples.jsonl", '{"update": 1}\n', "samples.jsonl is damaged"),
        ("evaluation_samples.jsonl", '{"prompt": "x"}\n', "evaluation sample is damaged"),
    ],
)
def test_damaged_files_are_named(make_run: Callable[..., Path], name: str, content: str, message: str) -> None:
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        write_run_report(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metrics\.jsonl"):
        write_run_report(tmp_path)


def test_out_chooses_the_place(make_run: Callable[..., Path], tmp_path: Path) -> None:
    assert write_run_report(make_run(), tmp_path / "a" / "b.html") == tmp_path / "a" / "b.html"
    assert (tmp_path / "a" / "b.html").is_file()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.55, 0.7, "lies above 50%: the judge prefers trained to start"),
        (0.2, 0.4, "lies below 50%: the judge prefers start to trained"),
        (0.45, 0.6, "includes 50%: this does not show"),
        (None, None, "no interval (one prompt)"),
    ],
)
def test_verdict_follows_the_interval(
    summary: MatchupSummary, low: float | None, high: float | None, words: str
) -> None:
    rate = Estimate(0.5, low, high, 0.95, "bca", "one prompt" if low is None else None)
    assert words in verdict(replace(summary, win_rate=rate))


def test_what_length_and_order_have_to_do_with_it_stands_beside_the_win_rate(
    summary: MatchupSummary, tmp_path: Path
) -> None:
    rate = Estimate(0.502, 0.497, 0.506, 0.95, "bca")
    orders = OrderRecord(0.657, 0.457, Estimate(0.6, None, None, 0.95, "undefined", "alike"), 0.57)
    page = write_matchup_report(replace(summary, length_controlled=rate, orders=orders), [], tmp_path / "a.html")
    words = " ".join(page.read_text().split())
    assert "At equal length: <b>50.2%</b> (49.7% to 50.6%)." in words
    assert "wins 65.7% shown first and 45.7% shown second; 57.0% of pairs change their winner" in words
    page = write_matchup_report(replace(summary, no_length_control="always longer"), [], tmp_path / "a.html")
    assert "At equal length: unknown, always longer." in page.read_text()


def test_a_response_is_not_averaged_with_itself() -> None:
    assert _mean_win_prob([[0.5, 1.0, 0.4], [0.0, 0.5, 0.2], [0.6, 0.8, 0.5]], 3) == pytest.approx([0.7, 0.1, 0.7])
    assert _mean_win_prob([[0.5, 1.0]], 1) == pytest.approx([0.75]), "opponents of another role have no diagonal"
    assert _mean_win_prob([0.2, 0.8], 2) == [0.2, 0.8]
    assert _mean_win_prob(None, 2) == [None, None]


def test_sides_of_one_name_are_told_apart(summary: MatchupSummary) -> None:
    same = replace(summary, opponent=replace(summary.opponent, name="trained"))
    assert verdict(same).endswith("the judge prefers the policy to the opponent.")
