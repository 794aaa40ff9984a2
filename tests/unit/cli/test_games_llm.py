"""`magnetar games llm`: methods by name or all, finished ones kept, figures in one panel or in several."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from magnetar.cli import games_llm_runs
from magnetar.cli.games_llm_runs import DEFAULT_METHODS, RunPlan, choose_methods, settings_of
from magnetar.cli.main import main
from magnetar.errors import ConfigError
from magnetar.methods import METHODS, build_method
from magnetar.reports.llm_gap_plot import LimitCurve, draw_limits_plot

TRAINABLE = [name for name, make in METHODS.items() if make().games_only_because is None]


def test_all_are_the_methods_that_language_models_can_be_trained_with() -> None:
    assert list(choose_methods("all")) == TRAINABLE
    assert choose_methods("mpo, egpo") == ("mpo", "egpo")
    assert all(name in TRAINABLE for name in DEFAULT_METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpo,egp", "unknown method 'egp'; did you mean 'egpo'"),
        ("ogda", "method 'ogda' runs on exact games only: its objective has no loss on sampled responses"),
        ("mpo,omd,mpo", "methods names 'mpo' 2 times"),
        ("", "unknown method ''"),
    ],
)
def test_a_method_that_cannot_be_run_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_methods(text)


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_method_is_given_the_common_settings_that_it_has(name: str) -> None:
    settings = settings_of(name)
    method = build_method(
        name, **{k: v for k, v in settings.items() if k not in ("num_rounds", "critic_learning_rate")}
    )
    for key in ("step_size", "magnet_strength", "kl_coef"):
        if hasattr(method.objective, key) and key in settings:
            assert getattr(method.objective, key) == games_llm_runs.COMMON[key]


def test_finished_methods_are_kept_and_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["games", "llm", "--updates", "2", "--out", str(tmp_path / "kept"), "--json"]
    assert main([*words, "--methods", "rloo,sppo"]) == 0
    first = capsys.readouterr()
    assert first.err.count("updates of the real trainer") == 2
    numbers = json.loads(first.out)
    assert list(numbers) == ["rloo", "sppo"]
    assert numbers["rloo"]["limit_gap"] > 0.1 and numbers["sppo"]["limit_gap"] is None

    assert main([*words, "--methods", "rloo,sppo,omd"]) == 0
    second = capsys.readouterr()
    assert second.err.split(":")[0] == "omd" and second.err.count("updates of the real trainer") == 1
    assert {name: json.loads(second.out)[name] for name in numbers} == numbers

    assert main([*words[:3], "3", *words[4:], "--methods", "sppo"]) == 0, "another length is another run"
    assert "sppo: 3 updates" in capsys.readouterr().err
    monkeypatch.setitem(games_llm_runs.COMMON, "step_size", 1.0)
    assert main([*words, "--methods", "sppo"]) == 0, "other settings are another run"
    assert "sppo: 2 updates" in capsys.readouterr().err

    [file] = [path for path in (tmp_path / "kept").glob("rloo--*.json")]
    file.write_text("{}")
    assert main([*words, "--methods", "rloo"]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_bad_input_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for words, message in (
        (["--updates", "0"], "updates is 0"),
        (["--out", str(file)], "is a file, expected a folder"),
        (["--plot", str(tmp_path / "gaps.gif")], "suffix '.gif'"),
        (["--methods", "spoo"], "unknown method 'spoo'"),
    ):
        assert main(["games", "llm", *words]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and "real trainer" not in captured.err


def test_few_methods_share_a_plot_and_many_have_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("magnetar.reports.gap_plot.draw_gap_plot", lambda curves, *args, **kwargs: drawn.append(curves))
    monkeypatch.setattr("magnetar.reports.llm_gap_plot.draw_limits_plot", lambda curves, *args: drawn.append(curves))
    made = RunPlan("mpo", 1, 0, False).run()
    from magnetar.cli.games_llm import draw

    draw({"mpo": made, "mmd": made, "mirror_descent": made}, tmp_path / "a.svg")
    draw(dict.fromkeys(TRAINABLE, made), tmp_path / "b.svg")
    assert [curve.label for curve in drawn[0]] == ["MPO", "fixed magnet (MMD)", "self-play, no magnet"]
    assert len(drawn[1]) == len(TRAINABLE)
    panels = list(dict.fromkeys(curve.panel for curve in drawn[1]))
    assert panels[0] == "original equilibrium" and len(panels) == 4
    assert {curve.label for curve in drawn[1] if curve.panel == panels[0]} == {
        name for name in TRAINABLE if METHODS[name]().converges_to == "original equilibrium"
    }


def curve(label: str, panel: str, limit: float | None = None, gap: float = 0.1) -> LimitCurve:
    return LimitCurve(label, panel, np.full(5, gap), limit=limit)


def test_panels_limits_and_labels_are_in_the_figure(tmp_path: Path) -> None:
    curves = [curve("one", "first"), curve("two", "second", 0.2), curve("three", "second", 0.4), curve("four", "third")]
    draw_limits_plot(curves, tmp_path / "a.svg", "a title")
    draw_limits_plot(curves, tmp_path / "b.svg", "a title")
    draw_limits_plot([*curves[:3], curve("four", "third", gap=0.5)], tmp_path / "c.svg", "a title")
    a, b, c = ((tmp_path / f"{name}.svg").read_bytes() for name in "abc")
    assert a == b and a != c, "the figure follows from the curves alone"
    draw_limits_plot([curve("zero", "first", gap=0.0)], tmp_path / "zero.png", "a gap of zero has no logarithm")
    with pytest.raises(ConfigError, match="no curves to draw"):
        draw_limits_plot([], tmp_path / "none.svg", "nothing")
