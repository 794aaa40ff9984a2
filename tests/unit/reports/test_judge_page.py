"""The page of a judge says what was measured, hides nothing, and is safe to open."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnetar.evaluation.judging import JudgeEvaluation, evaluate_judge
from magnetar.judges import FunctionJudge, ScoreFunctionJudge
from magnetar.reports import write_judge_page
from magnetar.reports.judge_page import judge_verdict

HOSTILE = '<script>alert("x")</script> & <b>bold</b>'


def longer(prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [float(len(response)) for response in responses]


def rows(count: int = 60, right: float = 0.7, **extra: Any) -> dict[str, Any]:
    """The longer response is right in a share of the pairs; three responses to each prompt."""
    rng = np.random.default_rng(0)
    first = [f"{HOSTILE} {'x' * (i % 7 + 1)}" for i in range(count)]
    second = [f"{HOSTILE} {'y' * (i % 5 + 8)}" for i in range(count)]
    return {
        "prompt": [f"{HOSTILE} {i // 2}" for i in range(count)],
        "first": first,
        "second": second,
        "win_prob": (rng.random(count) > right).astype(float).tolist(),
        **extra,
    }


def page(evaluation: JudgeEvaluation, folder: Path, **options: Any) -> str:
    return write_judge_page(evaluation, folder / "page.html", **options).read_text()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.bold = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.scripts += tag == "script"
        if tag not in ("meta", "link", "line", "circle", "rect", "path", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_texts_of_the_data_are_text_and_the_page_is_whole(tmp_path: Path) -> None:
    categories = [HOSTILE if i % 2 else "plain" for i in range(60)]
    found = evaluate_judge(
        ScoreFunctionJudge(longer, name=HOSTILE), rows(category=categories), baselines={HOSTILE: [0.4] * 60}
    )
    text = page(found, tmp_path, settings={"judge": HOSTILE}, title=HOSTILE)
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text  # also where a long name is cut
    tags = Tags()
    tags.feed(text)
    assert tags.scripts == 1 and tags.open == []  # the page's own script, and everything is closed
    assert not re.search(r"""(src|href)=["']?(http|//)""", text)


def test_the_figures_on_the_page_are_those_of_the_evaluation(tmp_path: Path) -> None:
    def first_mostly(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
        return [0.95 if len(a) > len(b) else 0.6 for a, b in zip(first, second, strict=True)]

    coin_answers = np.random.default_rng(1).random(60)
    found = evaluate_judge(FunctionJudge(first_mostly), rows(), baselines={"coin": coin_answers})
    text = page(found, tmp_path, settings={"limit": 60})
    assert found.labels is not None and found.cycles is not None and found.flips is not None
    coin = found.labels.baselines["coin"]
    for part in (
        f"{found.labels.accuracy.value:.1%}",
        f"{coin.accuracy.value:.1%}",
        f"{100 * coin.difference.value:+.1f} points",
        f"{found.labels.calibration.error.value:.3f}",
        f"by chance {found.labels.calibration.error_if_calibrated:.3f}",
        f"of {found.cycles.triples:,} triples",
        "both orders, each counted one half",
        "Exchanging the two responses changes the winner in 100% of the pairs.",
        "magnetar ",
    ):
        assert part in text, part
    assert text.count('<article class="card pair"') == len(found.labels.disagreements) == 12
    bins = found.labels.calibration.equal_width
    filled = sum(observed is not None for observed in bins.observed)
    assert text.count("of the answers") == len(bins.count) + filled  # a bar for every bin, a point for a filled one
    assert text.count("the longer wins with") == 2 * len(found.length_curve.pairs)


def test_without_labels_the_page_claims_nothing(tmp_path: Path) -> None:
    data = rows()
    del data["win_prob"]
    found = evaluate_judge(ScoreFunctionJudge(longer), data)
    text = page(found, tmp_path)
    assert "no labels" in text and "Accuracy" not in text and "Reliability" not in text
    assert "each response is read by itself" in text


@pytest.mark.parametrize(
    ("right", "count", "words"),
    [
        (0.5, 40, "not shown to be better than a coin"),
        (0.02, 60, "wrong more often"),
        (0.98, 60, "whether it is better than “longer wins” these pairs do not tell"),
    ],
)
def test_the_verdict_claims_no_more_than_the_intervals_show(right: float, count: int, words: str) -> None:
    found = evaluate_judge(ScoreFunctionJudge(longer), rows(count, right), max_group=0)
    assert words in judge_verdict(found)


def test_a_judge_of_brevity_is_not_called_better_than_a_rule_of_length(tmp_path: Path) -> None:
    brief = ScoreFunctionJudge(lambda prompts, responses: [-float(len(response)) for response in responses])
    found = evaluate_judge(brief, rows(60, 0.02), max_group=0)
    assert judge_verdict(found).endswith("better than “shorter wins” these pairs do not tell.")
    text = page(found, tmp_path)
    assert ">shorter wins<" in text and ">longer wins<" not in text


def test_the_verdict_names_the_better_baseline_and_the_worse() -> None:
    data = rows(80, 0.7)
    label = np.array(data["win_prob"])
    judge = ScoreFunctionJudge(longer)
    good = evaluate_judge(judge, data, baselines={"oracle": label}, max_group=0)
    assert "but worse than “oracle”" in judge_verdict(good)
    lost = rows(40, 0.5)
    found = evaluate_judge(judge, lost, baselines={"oracle": lost["win_prob"]}, max_group=0)
    assert "than a coin, and worse than “oracle”" in judge_verdict(found)
    other = {**data, "first": [f"a{i}" for i in range(80)], "second": [f"b{i}" + "x" * (i % 2) for i in range(80)]}
    answers = dict(zip(other["first"], label, strict=True)) | dict(zip(other["second"], 1 - label, strict=True))
    knowing = ScoreFunctionJudge(lambda prompts, responses: [answers[response] for response in responses])
    assert "the best of the simple ways" in judge_verdict(evaluate_judge(knowing, other, max_group=0))


def test_the_page_warns_of_inputs_that_were_cut_and_shows_a_divided_panel(tmp_path: Path) -> None:
    found = evaluate_judge(ScoreFunctionJudge(longer), rows(), max_group=0)
    counters = {"truncated_share": 0.5, "b/truncated_share": 0.001, "disagreement": 0.21, "split_share": 0.3}
    text = page(replace(found, counters=counters), tmp_path)
    warned = text[text.index("Know this before you trust it") :]
    warned = warned[: warned.index("</ul>")]
    assert "<li>50% of the inputs were longer than the judge reads and were cut.</li>" in warned
    assert "<li>b: Less than 1% of the inputs" in warned
    assert re.search("Judges apart.*0.210", text) and re.search("Judges on both sides.*30.0%", text)
    assert "were cut" not in page(replace(found, counters={"truncated_share": 0.0}), tmp_path)


def test_length_curve_by_hand() -> None:
    data = rows(40, 0.7)
    found = evaluate_judge(ScoreFunctionJudge(longer, temperature=4.0), data, max_group=0).length_curve
    apart = np.array([len(b) - len(a) for a, b in zip(data["first"], data["second"], strict=True)])
    assert (apart > 0).all() and sum(found.pairs) == 40 and max(found.pairs) - min(found.pairs) <= 1
    order = np.argsort(apart, kind="stable")
    for at, inside in enumerate(np.array_split(order, 5)):
        assert found.difference[at] == pytest.approx(apart[inside].mean())
        assert found.judge[at] == pytest.approx((1 / (1 + np.exp(-apart[inside] / 4))).mean())
        assert found.labels is not None
        assert found.labels[at] == pytest.approx(1 - np.array(data["win_prob"])[inside].mean())
