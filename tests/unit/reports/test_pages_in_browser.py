"""The pages in a real browser: nothing is fetched, nothing is too wide, everything can be read and used by keyboard."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from magnetar.evaluation import MatchupSummary
from unit.reports.browser import CHROMIUM, axe_violations, chromium
from unit.reports.example_pages import hostile_suite, write_pages
from unit.reports.suite_example import POLICIES

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

KINDS = ("run", "matchup", "suite", "comparison", "pipeline", "judge", "games")
# A browser takes seconds for each page: the default suite opens the one that has the most parts.
ONE_KIND = [pytest.param(kind, marks=[] if kind == "suite" else [pytest.mark.slow]) for kind in KINDS]
PHONE, SMALL_PHONE, DESK = (390, 844), (320, 640), (1280, 900)
Opener = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, summary: MatchupSummary) -> dict[str, Path]:
    return write_pages(tmp_path_factory.mktemp("pages"), summary)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Iterator[Opener]:
    """Open a page: `opened("suite", size=PHONE, scheme="dark")`; it carries `asked` and `said`."""
    contexts = []

    def open_page(kind: str, size: tuple[int, int] = DESK, scheme: str = "light", scripts: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        page = context.new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(pages[kind].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("kind", ONE_KIND)
def test_a_page_asks_for_nothing_but_itself_and_runs_nothing_but_its_own(opened: Opener, kind: str) -> None:
    page = opened(kind)
    page.wait_for_load_state("networkidle")
    assert [url.split("?")[0].rsplit("/", 1)[-1] for url in page.asked if not url.startswith("data:")] == [
        page.url.rsplit("/", 1)[-1]
    ]
    assert page.said == [], "no error, and nothing that the page's own policy had to forbid"
    assert page.evaluate("window.ran") is None


@pytest.mark.slow
def test_even_markup_that_was_not_escaped_could_run_and_fetch_nothing(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    source = pages["suite"].read_text().replace("<main", "<script>window.ran = 1</script><main", 1)
    source = source.replace("<main", "<img src='http://127.0.0.1:9/x.png' onerror='window.ran = 1'><main", 1)
    broken.write_text(source)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(broken.as_uri())
    assert page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in line for line in said) >= 2
    assert page.locator("form.filters").is_visible(), "the page's own script still runs"
    page.close()


@pytest.mark.parametrize("size", [PHONE, pytest.param(SMALL_PHONE, marks=pytest.mark.slow)], ids=["390", "320"])
@pytest.mark.parametrize("kind", ONE_KIND)
def test_a_page_is_no_wider_than_a_phone(opened: Opener, kind: str, size: tuple[int, int]) -> None:
    page = opened(kind, size)
    for fold in page.locator("details:not([open]) > summary").all():
        if fold.is_visible():
            fold.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    if size == PHONE:
        assert _letters_too_small(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_word_of_a_drawing_lies_within_it(opened: Opener, kind: str) -> None:
    page = opened(kind)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    outside = page.evaluate(
        """() => [...document.querySelectorAll('svg.plot')].flatMap((svg) => {
            const room = svg.viewBox.baseVal;
            return [...svg.querySelectorAll('text')].filter((text) => {
                const box = text.getBBox();
                return box.width && (box.x < -1 || box.y < -1 || box.x + box.width > room.width + 1
                                     || box.y + box.height > room.height + 1);
            }).map((text) => `${svg.getAttribute('aria-label').slice(0, 60)}: ${text.textContent.slice(0, 40)}`);
        })"""
    )
    assert outside == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_that_keeps_anybody_out(opened: Opener, kind: str, scheme: str) -> None:
    page = opened(kind, PHONE if scheme == "dark" else DESK, scheme)
    assert axe_violations(page) == []


@pytest.mark.slow
def test_contents_lead_to_the_sections_in_their_order(opened: Opener) -> None:
    for kind in KINDS:
        page = opened(kind)
        links = page.eval_on_selector_all(".contents a", "all => all.map((one) => one.hash.slice(1))")
        ids = page.eval_on_selector_all("[id]", "all => all.map((one) => one.id)")
        assert links and len(ids) == len(set(ids))
        assert [place for place in ids if place in links] == links
        heads = page.eval_on_selector_all("main h2", "all => all.map((one) => one.textContent.trim())")
        assert heads == page.eval_on_selector_all(".contents a", "all => all.map((one) => one.textContent.trim())")


@pytest.mark.slow
def test_without_scripts_every_answer_can_be_read(opened: Opener) -> None:
    page = opened("suite", scripts=False)
    suite = hostile_suite()
    assert page.locator("article.pair").count() == len(suite.samples)
    assert all(one.is_visible() for one in page.locator("article.pair").all())
    assert page.locator("article.pair .side").count() == len(suite.samples) * len(POLICIES)
    assert not page.locator("form.filters").is_visible()


def test_filters_show_what_the_figures_say_and_work_by_keyboard(opened: Opener) -> None:
    page = opened("suite")
    suite = hostile_suite()
    count = page.locator(".samples .count")
    policy, reference = list(suite.policies)[5], "SFT"

    def expected(category: str = "", winner: str = "", text: str = "") -> int:
        total = 0
        for one in suite.samples:
            rate = one.win_prob["preference"][policy][reference]
            won = None if rate is None else "tie" if rate == 0.5 else "right" if rate > 0.5 else "left"
            prompt = one.prompt if isinstance(one.prompt, str) else " ".join(turn["content"] for turn in one.prompt)
            words = " ".join([prompt, one.responses[policy], one.responses[reference]]).lower()
            total += one.category == (category or one.category) and winner in ("", won) and text in words
        return total

    page.locator("[data-filter=left]").focus()
    page.keyboard.type("SFT")
    page.keyboard.press("Tab")
    page.keyboard.type(policy)
    page.locator("[data-filter=winner]").focus()
    page.keyboard.type(f"{policy} wins")
    assert page.locator("[data-filter=winner]").input_value() == "right"
    for winner in ("right", "left", "tie", ""):
        page.locator("[data-filter=winner]").select_option(winner)
        assert count.inner_text() == f"{expected(winner=winner)} of {len(suite.samples)}"
        assert page.locator("article.pair:visible").count() == min(10, expected(winner=winner))
    page.locator("[data-filter=category]").select_option("insult")
    assert count.inner_text() == f"{expected('insult')} of {len(suite.samples)}"
    page.locator("[data-filter=category]").select_option("")
    page.locator("[data-filter=text]").focus()
    page.keyboard.type("whom you CAN ask")
    assert count.inner_text() == f"{expected(text='whom you can ask')} of {len(suite.samples)}"
    shown = page.locator("article.pair:visible").first
    assert shown.locator(".side:visible").count() == 2
    page.keyboard.press("Control+A")
    page.keyboard.type("no such words")
    assert page.locator(".samples .nothing").is_visible() and page.locator("article.pair:visible").count() == 0


def test_the_percentage_is_that_of_the_two_that_are_shown(opened: Opener) -> None:
    page = opened("suite")
    one = page.locator("article.pair").nth(1)
    rate = hostile_suite().samples[1].win_prob["preference"]["PPO"]["SFT"]
    assert rate is not None
    page.locator("[data-filter=right]").select_option(label="PPO")
    assert one.locator(".chip.verdict").inner_text() == f"{100 * rate:.0f}%"
    page.locator("[data-filter=right]").select_option(label="SFT")
    page.locator("[data-filter=left]").select_option(label="PPO")
    assert one.locator(".chip.verdict").inner_text() == f"{100 * (1 - rate):.0f}%"
    page.locator("[data-filter=right]").select_option(label="MPO round 1")
    assert not one.locator(".chip.verdict").is_visible(), "nobody compared these two"


@pytest.mark.slow
def test_more_samples_come_ten_and_then_twenty_at_a_time_and_focus_goes_on(opened: Opener) -> None:
    page = opened("suite")
    assert page.locator("article.pair:visible").count() == 10
    page.locator("button.more").focus()
    page.keyboard.press("Enter")
    assert page.locator("article.pair:visible").count() == len(hostile_suite().samples)
    assert page.evaluate("[...document.querySelectorAll('article.pair')].indexOf(document.activeElement)") == 10


@pytest.mark.slow
def test_paper_is_white_and_holds_no_controls(opened: Opener) -> None:
    page = opened("suite", scheme="dark")
    dark = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    page.emulate_media(media="print")
    assert dark != "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("form.filters").is_visible() and not page.locator(".contents").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF-")


@pytest.mark.slow
def test_text_of_either_direction_begins_at_its_own_side(opened: Opener) -> None:
    page = opened("suite")
    directions = page.eval_on_selector_all(
        ".side .text",
        "all => Object.fromEntries(all.map((one) => [one.textContent.slice(0, 3), one.matches(':dir(rtl)')]))",
    )
    assert directions["אני"] is True and directions["I c"] is False and directions["抱歉,"[:3]] is False


@pytest.mark.slow
def test_a_very_long_answer_is_folded_and_opens_by_keyboard(opened: Opener) -> None:
    page = opened("suite")
    fold = page.locator(".side:visible details.fold").first
    assert fold.get_attribute("open") is None
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert fold.get_attribute("open") is not None


def _letters_too_small(page: Any) -> list[str]:
    """Words in drawings whose letters are smaller than nine pixels on the screen."""
    return page.evaluate(
        """() => [...document.querySelectorAll('svg.plot')].filter((svg) => svg.getBoundingClientRect().width)
            .flatMap((svg) => {
                const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
                return [...svg.querySelectorAll('text')]
                    .filter((text) => scale * parseFloat(getComputedStyle(text).fontSize) < 9)
                    .map((text) => `${svg.getAttribute('aria-label').slice(0, 60)}: ${text.textContent.slice(0, 30)}`);
            }).slice(0, 5)"""
    )
