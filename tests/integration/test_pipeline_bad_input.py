"""What a pipeline refuses before anything runs: one sentence, with the nearest name."""

from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import pipeline, write_config, write_place

from magnetar.cli.main import main


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_place(tmp_path_factory.mktemp("refused"))


CASES: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "stage": ({"evaluat": {}}, [], "unknown stage or key 'evaluat'; did you mean 'evaluate'"),
    "stage of an option": ({}, ["--only", "trian"], "unknown stage or step 'trian'; did you mean 'train'"),
    "step": ({}, ["--skip", "preference/costs"], "did you mean 'preference/cost'"),
    "nothing left": ({}, ["--only", "sft", "--skip", "sft"], "leave nothing to run"),
    "field of sft": ({"sft.learning_rat": 1}, [], "did you mean 'learning_rate'"),
    "field of preference": ({"preference.cost.kid": "cost"}, [], "preference: cost: unknown field 'kid'"),
    "field of train": ({"train.jugde": "panel"}, [], "did you mean 'judge'"),
    "field of a method": ({"train.methods.PPO.kl_coeff": 1}, [], "did you mean 'kl_coef'"),
    "field of evaluate": ({"evaluate.promts": {}}, [], "did you mean 'prompts'"),
    "field of data": ({"data.pairs.sorce": "x"}, [], "did you mean 'source'"),
    "kind": ({"preference.cost.kind": "costs"}, [], "did you mean 'cost'"),
    "reference": ({"train.judge": "preference:jugde"}, [], "did you mean 'preference:judge'"),
    "reference to a part": ({"sft.dataset": "data:pairs/lern"}, [], "did you mean 'data:pairs/learn'"),
    "reference to a round": ({"evaluate.policies": {"a": "train:MPO/round-3"}}, [], "did you mean 'train:MPO/round-2'"),
    "reference of another form": ({"train.judge": "data:pairs/learn"}, [], "which is a dataset, expected a judge"),
    "a judge as a model": ({"evaluate.policies": {"a": "preference:judge"}}, [], "expected model"),
    "a stage that is not there": ({"sft": False}, ["--set", "train.model=sft:model"], "has no stage 'sft'"),
    "what is made later": ({"sft.model": "train:MPO"}, [], "used before it is made"),
    "a dataset of a dataset": ({"data.more": {"source": "data:pairs/learn"}}, [], "not made of one another"),
    "name of a log": ({"data.pairs.parts": {"samples": 6}}, [], "a part cannot be called 'samples'"),
    "chat template": ({"sft.chat_template_path": "./none.jinja"}, [], "no such folder"),
    "critic": ({"train.methods.PPO.critic_model": "./modle"}, [], "no such folder; did you mean 'model'"),
    "comparing in training": ({"train.settings.eval_judge": "preference:cost"}, [], "the stage 'evaluate' compares"),
    "its own product": ({"train.model": "train:MPO/seed-0"}, [], "which this stage makes itself"),
    "file": ({"data.pairs.source": "pears.jsonl"}, [], "no file or folder 'pears.jsonl'; did you mean 'pairs.jsonl'"),
    "no file": ({"data.pairs.source": None}, [], "--set data.pairs.source=FILE"),
    "model": ({"model": "./modle"}, [], "no such folder; did you mean 'model'"),
    "parts": ({"data.pairs.parts": {"a": "rest", "b": "rest"}}, [], "has taken all that is left"),
    "size of a part": ({"data.pairs.parts": {"a": -1}}, [], "expected rows (1 or more) or a share"),
    "signs": ({"data.pairs.signs": "yes"}, [], "expected 'preferred'"),
    "reward of a pairwise judge": ({"preference.judge.kind": "pairwise"}, [], "gives a response no score"),
    "own key": ({"sft.output_dir": "x"}, [], "output_dir is set by the pipeline"),
    "judges": ({"evaluate.judges": None}, [], "judges is None"),
    "reference policy": ({"evaluate.reference": "SFTT"}, [], "did you mean 'SFT'"),
    "exploit": ({"exploit": {"judge": "preference:judge", "dataset": "data:pairs/held_out", "m": 2}}, [], "exploit: "),
    "set": ({}, ["--set", "train.seeds"], "has no value"),
    "set of an unknown key": ({}, ["--set", "trian=1"], "did you mean 'train'"),
    "both": ({}, ["--preset", "small_safety"], "are both given"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_work_is_refused_before_anything_runs(
    case: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    changes, flags, message = CASES[case]
    nested = {name: value for name, value in changes.items() if "." in name}
    whole = {name: value for name, value in changes.items() if "." not in name}
    config = write_config(tmp_path / "p.yaml", nested, **whole)
    assert pipeline(config, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1  # one sentence
    assert not (workplace / "out").exists()


OF_DATA: dict[str, tuple[dict[str, Any], str]] = {
    "pairs for responses": (
        {"preference.judge.dataset": "data:asked"},
        "preference: judge: dataset is 'data:asked', which holds prompts, expected pairs",
    ),
    "signs of safety": ({"data.pairs.signs": None}, "'data:pairs/evaluate', whose pairs do not say which responses"),
    "categories": (
        {"evaluate.prompts": {"dataset": "data:asked", "categories": "required"}},
        "data:asked has no column 'category'",
    ),
    "a category": (
        {"evaluate.prompts": {"dataset": "data:pairs/held_out", "categories": ["kind 0", "knid 1"]}},
        "did you mean 'kind 1'",
    ),
}


@pytest.mark.parametrize("case", OF_DATA)
def test_what_data_lack_is_told_before_anything_trains(
    case: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    changes, message = OF_DATA[case]
    (tmp_path / "asked.jsonl").write_text('{"prompt": "rock or paper "}\n{"prompt": "paper or rock "}\n')
    asked = {"data.asked": {"source": str(tmp_path / "asked.jsonl")}}
    config = write_config(tmp_path / "p.yaml", asked | changes, output_dir=str(tmp_path / "out"), train=None)
    assert pipeline(config) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["data"]


def test_presets_are_listed_printed_and_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "--presets"]) == 0
    assert "paper_safety" in capsys.readouterr().out
    assert main(["pipeline", "--preset", "small_safety", "--print_config"]) == 0
    assert capsys.readouterr().out.startswith("# The stages of the paper's safety experiment")
    assert main(["pipeline", "--preset", "small_safty"]) == 2
    assert "did you mean 'small_safety'" in capsys.readouterr().err


def test_the_preset_for_files_of_ones_own_is_complete_but_for_them(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    files = ["--set", "data.harmless=pairs.jsonl", "--set", "data.safety=pairs.jsonl", "--set", "model=model"]
    command = ["pipeline", "--preset", "small_safety", "--output_dir", str(tmp_path / "out"), "--dry_run", *files]
    assert main(command) == 0
    plan = capsys.readouterr().out
    assert plan.count("would run") == len(plan.splitlines()) == 15
