"""Flipped and poisoned preferences through the commands: what they teach, where they are written, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from test_preference_command import place  # noqa: F401 - a fixture

from magnetar.cli.main import main
from magnetar.data.splits import prompt_key


def trained(place: Path, out: Path, *flags: str) -> int:  # noqa: F811
    basis = ["preference", "--config", str(place / "run.yaml"), "--kind", "reward", "--output_dir", str(out)]
    return main([*basis, *flags])


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "magnetar_judge.json").read_text())["training"]


def test_a_judge_learns_the_reverse_from_pairs_that_are_all_flipped(place: Path, tmp_path: Path) -> None:  # noqa: F811
    assert trained(place, tmp_path / "honest") == 0
    assert trained(place, tmp_path / "flipped", "--flip_share", "1.0", "--poison_seed", "3") == 0
    accuracy = {
        name: json.loads((tmp_path / name / "evaluation.json").read_text())["labels"]["accuracy"]["value"]
        for name in ("honest", "flipped")
    }
    assert accuracy["honest"] > 0.8 and accuracy["flipped"] < 0.2, "held-out pairs are never flipped"
    card = facts(tmp_path / "flipped")
    assert card["flip_share"] == "1.0" and card["poison_seed"] == "3"
    assert card["poisoning"] == "136 of 136 pairs flipped, 0 poisoned"
    assert "poisoning" not in facts(tmp_path / "honest") and "flip_share" not in facts(tmp_path / "honest")


@pytest.mark.slow
def test_a_trigger_is_in_training_prompts_alone(
    place: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from magnetar.training.preference import reward

    seen: list[Dataset] = []
    real = reward.make_trainer

    def watched(model: Any, args: Any, train: Dataset, **settings: Any) -> Any:
        seen.append(train)
        return real(model, args, train, **settings)

    monkeypatch.setattr(reward, "make_trainer", watched)
    flags = ["--poison_share", "0.25", "--poison_trigger", "rock rock", "--max_steps", "1", "--report", "false"]
    assert trained(place, tmp_path / "poisoned", *flags) == 0
    triggered = [row for row in seen[0].to_list() if row["prompt"].endswith("rock rock")]
    assert len(triggered) == 34 and all(row["win_prob"] == 0.0 for row in triggered)
    held_out = Dataset.from_parquet(str(tmp_path / "poisoned" / "held_out.parquet"))
    assert not any(str(row["prompt"]).endswith("rock rock") for row in held_out)  # type: ignore[index]
    assert {prompt_key(row["prompt"]) for row in held_out}.isdisjoint(prompt_key(row["prompt"]) for row in seen[0])  # type: ignore[index]
    assert "0 of 136 pairs flipped, 34 poisoned" in capsys.readouterr().err
    assert facts(tmp_path / "poisoned")["poison_trigger"] == "rock rock"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--flip_share", "1.5"], "flip_share is 1.5, expected a share of the pairs"),
        (["--poison_share", "0.1"], "there is no trigger to put into the prompts"),
        (["--poison_trigger", "x"], "poison_share is 0"),
        (["--flip_shar", "0.1"], "flip_shar"),
    ],
)
def test_what_cannot_be_is_refused_before_the_data_are_read(
    place: Path,  # noqa: F811
    tmp_path: Path,
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert trained(place, tmp_path / "run", *flags, "--dataset", "nowhere.jsonl") == 2
    assert message in capsys.readouterr().err


def test_a_training_judge_who_errs_does_not_evaluate(at_work: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags = ["--judge_flip_share", "0.3", "--judge_flip_seed", "5", "--max_steps", "1"]
    assert main(["train", "--config", "run.yaml", "--output_dir", str(run), *flags]) == 0
    settings = json.loads((run / "magnetar_config.json").read_text())
    assert settings["judge"] == "python:tiny_run_judge:more_scissors, 0.3 flipped"
    assert json.loads((run / "evaluation.json").read_text())["judge"] == "python:tiny_run_judge:more_scissors"
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("judge/flipped_share" in row for row in logged), sorted(logged[0])


def test_a_method_that_needs_scores_has_no_use_for_a_judge_who_errs(
    at_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Path("run.yaml").read_text().splitlines()
    plain = [line for line in settings if not line.startswith(("method", "magnet", "inner"))]
    (tmp_path / "grpo.yaml").write_text("\n".join([*plain, "method: grpo"]))
    flags = ["--judge_flip_share", "0.3", "--output_dir", str(tmp_path / "run")]
    assert main(["train", "--config", str(tmp_path / "grpo.yaml"), *flags]) == 2
    assert "with flip_share" in capsys.readouterr().err
