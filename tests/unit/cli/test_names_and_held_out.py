"""Names of papers are known everywhere; held-out prompts are not trained on."""

import json
from pathlib import Path

import pytest

from magnetar.cli.games_llm_runs import choose_methods
from magnetar.cli.main import main
from magnetar.methods import METHODS, PUBLISHED_NAMES
from magnetar.training.callbacks import format_line


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_a_name_of_a_paper_is_the_method_everywhere(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_methods(name) == (PUBLISHED_NAMES[name],)
    assert main(["methods", name]) == 0
    assert capsys.readouterr().out.startswith(f"{PUBLISHED_NAMES[name]}: ")
    assert main(["methods"]) == 0
    assert f"{name} is {PUBLISHED_NAMES[name]}" in capsys.readouterr().out
    assert name not in METHODS


def test_training_refuses_held_out_prompts_that_are_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").write_text("".join(json.dumps({"prompt": f"prompt {k}"}) + "\n" for k in range(4)))
    (tmp_path / "e.jsonl").write_text("".join(json.dumps({"prompt": f"prompt {k}"}) + "\n" for k in range(3, 6)))
    command = ["train", "--model", "demo", "--judge", "panel", "--output_dir", str(tmp_path / "out")]
    given = ["--dataset", str(tmp_path / "p.jsonl"), "--eval_prompts", str(tmp_path / "e.jsonl")]
    assert main([*command, *given]) == 2
    assert "1 of 3 prompts of eval_prompts are in the dataset that is trained on, the first: 'prompt 3'" in (
        capsys.readouterr().err
    )


def test_a_line_about_rewards_shows_them_and_no_cycles() -> None:
    logs = {"update": 3, "reward": 0.5, "kl_magnet": 0.1, "kl_reference": 0.2, "value_error": 0.7}
    logs["cyclic_triples"] = 0.0
    line = format_line(logs)
    assert "reward 0.500" in line and "value error 0.700" in line and "ref 0.200" in line
    assert "cycles" not in line and "magnet" not in line
    assert "cycles 0.0%" in format_line({name: value for name, value in logs.items() if name != "reward"})
