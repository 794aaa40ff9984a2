from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from magnetar.errors import DataError
from magnetar.evaluation import MatchupSummary
from magnetar.reports import write_model_card

ARGUMENTS: dict[str, Any] = {
    "base_model": "owner/model",
    "method": "mpo",
    "judge": "reward:owner/judge",
    "dataset": "owner/prompts",
    "settings": {"arguments": {"step_size": 0.5, "unset": None}, "text": "a | b\nc <i>"},
}


def test_the_hub_reads_the_card(tmp_path: Path, summary: MatchupSummary) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    card = ModelCard.load(write_model_card(tmp_path, summary=summary, **ARGUMENTS))
    front = card.data.to_dict()
    assert front["library_name"] == "peft" and front["base_model"] == "owner/model"
    assert front["datasets"] == ["owner/prompts"] and {"magnetar", "mpo"} <= set(front["tags"])


@pytest.mark.parametrize("place", ["demo", "data/p.jsonl.gz", "runs/old", "/abs/model", "./model"])
def test_a_full_model_is_a_finetune_and_paths_stay_out_of_the_front_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "old").mkdir(parents=True)
    path = write_model_card(tmp_path, summary=None, **{**ARGUMENTS, "base_model": place, "dataset": place})
    front = yaml.safe_load(path.read_text().split("---")[1])
    assert front["library_name"] == "transformers"
    assert "base_model" not in front and "datasets" not in front
    assert f"**{place}**" in path.read_text()


def test_without_an_evaluation_the_card_claims_nothing(tmp_path: Path) -> None:
    text = write_model_card(tmp_path, summary=None, **ARGUMENTS).read_text()
    assert "has not been evaluated" in text and "%" not in text


def test_figures_are_those_of_the_summary(tmp_path: Path, summary: MatchupSummary) -> None:
    text = write_model_card(tmp_path, summary=summary, **ARGUMENTS).read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for name, part in {"all": summary, **summary.categories}.items():
        rate = part.win_rate
        assert rate.low is not None and rate.high is not None
        assert f"| {name} | {part.prompts} | {rate.value:.1%} | {rate.low:.1%} to {rate.high:.1%} |" in rows


def test_settings_stay_inside_their_table_cells(tmp_path: Path) -> None:
    text = write_model_card(tmp_path, summary=None, **ARGUMENTS).read_text()
    assert "| arguments.step_size | 0.5 |" in text
    assert "| text | a \\| b c &lt;i> |" in text
    assert "unset" not in text


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot write the model card"):
        write_model_card(tmp_path / "absent", summary=None, **ARGUMENTS)
