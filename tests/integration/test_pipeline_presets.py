"""The presets' data stages, on a few rows with the columns and folders that their datasets have on the Hub."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import GAME

from magnetar.cli.main import main


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(contents)]


def safe_rlhf(prompt: str) -> dict[str, Any]:
    """A row of PKU-SafeRLHF."""
    signs = {"is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 1, "safer_response_id": 0}
    return {"prompt": prompt, "response_0": "no", "response_1": "yes", **signs}


def transcript(prompt: str, kind: str = "harm") -> dict[str, str]:
    """A row of HH, whose prompt stands at the beginning of both transcripts."""
    asked = f"\n\nHuman: {kind} {prompt}\n\nAssistant:"
    return {"chosen": f"{asked} no", "rejected": f"{asked} yes"}


def of_safety(place: Path) -> None:
    names = [f"how {index}" for index in range(6)]
    for split in ("train", "test"):
        write(place / "PKU-Alignment" / "PKU-SafeRLHF" / f"{split}.jsonl", [safe_rlhf(f"{split} {n}") for n in names])
    for folder, kind in (("harmless-base", "harm"), ("helpful-base", "help")):
        for split in ("train", "test"):
            rows = [transcript(f"{split} {name}", kind) for name in names]
            write(place / "Anthropic" / "hh-rlhf" / folder / f"{split}.jsonl", rows)
    pairs = [{"chosen": turns("a", "b"), "rejected": turns("a", "c")}]
    write(place / "weqweasdas" / "preference_dataset_mixture2_and_safe_pku" / "train.jsonl", pairs)
    GAME.model(0).save_pretrained(place / "PKU-Alignment" / "alpaca-7b-reproduced")


def of_general(place: Path) -> None:
    rows = [{"dataset": "x", "context": "y", "context_messages": turns(f"ask {i}"), "id": str(i)} for i in range(6)]
    write(place / "OpenRLHF" / "prompt-collection-v0.1" / "train.jsonl", rows)
    write(place / "RLHFlow" / "SFT-OpenHermes-2.5-Standard" / "train.jsonl", [{"conversations": turns("a", "b")}])
    write(place / "hendrydong" / "preference_700K" / "train.jsonl", [{"chosen": turns("a"), "rejected": turns("b")}])
    for name in ("Meta-Llama-3-8B", "Meta-Llama-3-8B-Instruct"):
        GAME.model(0).save_pretrained(place / "meta-llama" / name)


CASES: dict[str, tuple[Callable[[Path], None], dict[str, str], set[str]]] = {
    "paper_safety": (
        of_safety,
        {"pku": "{held_out: 2, learn: rest}", "prompts": "{play: 8, rest: rest}", "evaluate": "{all: 3, rest: rest}"},
        # Prompts to play with: of training rows, and of the harmless half of HH alone.
        {"train how", "\n\nHuman: harm train how"},
    ),
    "paper_general": (of_general, {"prompts": "{evaluate: 2, play: 3, rest: rest}"}, {"ask"}),
}


@pytest.mark.parametrize("preset", CASES)
def test_a_preset_reads_its_datasets_as_they_are(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, parts, expected = CASES[preset]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    smaller = [word for name, sizes in parts.items() for word in ("--set", f"data.{name}.parts={sizes}")]
    assert main(["pipeline", "--preset", preset, "--output_dir", "out", "--only", "data", *smaller]) == 0
    rows = [
        json.loads(line)["prompt"]
        for part in ("play", "rest")
        for line in (tmp_path / "out" / "data" / "prompts" / f"{part}.jsonl").read_text().splitlines()
    ]
    said = {prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in rows}
    assert {text.split("\n\nAssistant:")[0].rstrip("0123456789 ") for text in said} == expected


def test_a_folder_and_a_column_of_a_source_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_safety(tmp_path)
    monkeypatch.chdir(tmp_path)
    source = "data.prompts.source={dataset: Anthropic/hh-rlhf, folder: harmles-base}"
    assert main(["pipeline", "--preset", "paper_safety", "--dry_run", "--set", source]) == 2
    assert "no file or folder 'Anthropic/hh-rlhf/harmles-base'; did you mean" in capsys.readouterr().err
    assert main(["pipeline", "--preset", "paper_safety", "--dry_run", "--set", "data.pku.column=text"]) == 2
    assert "column is 'text', which is for prompts; give kind: prompts too" in capsys.readouterr().err
