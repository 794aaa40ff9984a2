"""Bad input gives one clear error, before a model is loaded where that is possible."""

from pathlib import Path
from typing import Any

import pytest
from tiny_runs import GAME, make_trainer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import magnetar.modeling.loading as loading
from magnetar.cli.main import main
from magnetar.errors import DataError, JudgeError, ModelError

# flags added to a good command, and what the one error must say
BEFORE_LOADING: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "unknown method": (["--method", "mpoo"], ("unknown method 'mpoo'", "did you mean 'mpo'")),
    "unknown judge": (["--judge", "rewrad:x"], ("unknown judge 'rewrad'", "did you mean 'reward'")),
    "unknown flag": (["--lerning_rate", "1"], ("unknown field 'lerning_rate'", "did you mean 'learning_rate'")),
    "unknown schedule": (["--magnet_schedule", "rounds"], ("unknown magnet_schedule 'rounds'", "'round'")),
    "unknown opponent": (["--opponent", "self"], ("unknown opponent 'self'", "current")),
    "judge function missing": (["--judge", "python:tiny_run_judge:nobody"], ("has no 'nobody'",)),
    "judge module missing": (["--judge", "python:no_such:f"], ("no_such",)),
    "eval judge": (["--eval_judge", "matrix:no_file.csv"], ("no_file.csv",)),
    "dataset missing": (["--dataset", "nowhere.jsonl"], ("nowhere.jsonl",)),
    "dataset empty": (["--dataset", "empty.jsonl"], ("empty.jsonl",)),
    "dataset without prompts": (["--dataset", "no_prompts.jsonl"], ("no column 'prompt'", "question")),
    "held-out too large": (["--eval_holdout", "12"], ("eval_holdout is 12", "12 prompts")),
    "limit": (["--limit", "0"], ("limit is 0",)),
    "group of one": (["--num_generations", "1"], ("num_generations is 1", "at least 2")),
    "step size zero": (["--step_size", "0"], ("step_size is 0", "positive")),
    "step size negative": (["--step_size=-1"], ("step_size is -1", "positive")),
    "strength zero": (["--magnet_strength", "0"], ("magnet_strength is 0", "positive")),
    "strength nan": (["--magnet_strength", "nan"], ("magnet_strength is nan",)),
    "temperature": (["--temperature", "0"], ("temperature is 0",)),
    "not a number": (["--num_generations", "many"], ("num_generations", "many")),
    "magnet of a method without": (["--method", "mmd"], ("magnet_every is 2", "'mmd'")),
    "step size under clipping": (["--proximal", "clip", "--step_size", "1"], ("step_size is 1.0", "proximal='kl'")),
    "resume from nothing": (["--resume_from_checkpoint", "true"], ("no complete checkpoint",)),
    "resume from elsewhere": (["--resume_from_checkpoint", "model"], ("magnetar_state.json",)),
    "evaluation without prompts": (["--eval_holdout", "0", "--eval_strategy", "steps"], ("eval_strategy",)),
}


@pytest.fixture
def bad_files(at_work: Path) -> Path:
    (at_work / "empty.jsonl").write_text("")
    (at_work / "no_prompts.jsonl").write_text('{"question": "why"}\n')
    return at_work


def one_error(capsys: pytest.CaptureFixture[str], *phrases: str) -> None:
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("magnetar train: ")
    for phrase in phrases:
        assert phrase in lines[0]


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loading, "load_policy", refuse)


@pytest.mark.usefixtures("bad_files", "no_loading")
@pytest.mark.parametrize("case", BEFORE_LOADING)
def test_one_error_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    flags, phrases = BEFORE_LOADING[case]
    assert main(["train", "--config", "run.yaml", "--output_dir", str(tmp_path / "run"), *flags]) == 2
    one_error(capsys, *phrases)
    assert not (tmp_path / "run").exists()


YAMLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "broken": ("model: [unclosed\njudge: panel", ()),
    "a list": ("- model\n- judge", ("holds a list", "mapping")),
    "empty": ("", ("holds a NoneType", "mapping")),
    "unknown key": ("num_generation: 4", ("unknown field 'num_generation'", "did you mean 'num_generations'")),
    "unknown judge option": ("judge: {kind: reward, model: m, temprature: 2}", ("temprature", "temperature")),
    "judge without kind": ("model: m\ndataset: prompts.jsonl\njudge: {model: m}", ("'kind'",)),
    "model missing": ("judge: panel\ndataset: demo", ("model is missing", "--model")),
    "judge missing": ("model: m\ndataset: demo", ("judge is missing",)),
}


@pytest.mark.usefixtures("at_work", "no_loading")
@pytest.mark.parametrize("case", YAMLS)
def test_bad_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    text, phrases = YAMLS[case]
    if case == "unknown judge option":
        text += "\nmodel: m\ndataset: prompts.jsonl"
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert main(["train", "--config", str(file), "--output_dir", str(tmp_path / "run")]) == 2
    if case == "broken":  # the parser draws where the fault is
        err = capsys.readouterr().err
        assert err.startswith("magnetar train: ") and "line 2" in err and "Traceback" not in err
    else:
        one_error(capsys, *phrases)


@pytest.mark.usefixtures("at_work", "no_loading")
def test_an_output_dir_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config", "run.yaml"]) == 2
    one_error(capsys, "output_dir is missing", "--output_dir")
    assert main(["train", "--config", "no_such.yaml"]) == 2
    one_error(capsys, "no_such.yaml does not exist")
    assert main(["train", "--config"]) == 2
    one_error(capsys, "--config needs a file")


@pytest.fixture
def finished_run(at_work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    run = tmp_path / "run"
    flags = ["--eval_holdout", "0", "--report", "false", "--max_steps", "2", "--save_steps", "1"]
    assert main(["train", "--config", "run.yaml", "--output_dir", str(run), *flags]) == 0
    capsys.readouterr()
    return run


def test_folders_and_checkpoints_of_other_runs(
    finished_run: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("no_loading")  # from here on: the run itself needed its model
    command = ["train", "--config", "run.yaml", "--output_dir", str(finished_run)]
    assert main(command) == 2
    one_error(capsys, "already holds a run", "resume_from_checkpoint", "overwrite_output_dir")
    before = sorted(finished_run.rglob("*"))

    assert main([*command, "--resume_from_checkpoint", "true", "--method", "mpo_rt"]) == 2
    one_error(capsys, "method='mpo'", "method='mpo_rt'")
    assert main([*command, "--resume_from_checkpoint", "true", "--num_generations", "5"]) == 2
    one_error(capsys, "num_generations=8", "num_generations=5")
    state = finished_run / "checkpoint-2" / "magnetar_state.json"
    state.write_text(state.read_text()[:40])
    assert main([*command, "--resume_from_checkpoint", "true"]) == 2
    one_error(capsys, "is damaged", "older checkpoint")
    state.unlink()
    assert main([*command, "--resume_from_checkpoint", str(finished_run / "checkpoint-2")]) == 2
    one_error(capsys, "cut short", str(finished_run / "checkpoint-1"))
    assert set(before) - set(finished_run.rglob("*")) == {state}


JUDGES = {"too_sure": "1.5", "broken": "nan", "short": "shape"}


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("judge", JUDGES)
def test_a_judge_that_answers_nonsense_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], judge: str
) -> None:
    flags = ["--judge", f"python:tiny_run_judge:{judge}", "--disable_tqdm", "true"]
    assert main(["train", "--config", "run.yaml", "--output_dir", str(tmp_path / "run"), *flags]) == 2
    one_error(capsys, judge, JUDGES[judge])


def test_a_group_answer_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    class Square(type(GAME.judge())):
        def group_win_prob(self, prompts: Any, responses: Any) -> Any:
            return super().group_win_prob(prompts, responses)[:, :-1]

    with pytest.raises(JudgeError, match=r"shape \(2, 3, 4\), expected \(2, 4, 4\)"):
        make_trainer(tmp_path, judge=Square(GAME.texts, GAME.game.P)).train()


def test_prompts_longer_than_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["rock", "rock paper scissors", "paper", "scissors scissors scissors scissors"]
    trainer = make_trainer(tmp_path, prompts=prompts, max_prompt_length=2, per_device_train_batch_size=1)
    assert trainer.dropped_prompts == 2 and "dropped 2 prompts" in capsys.readouterr().out
    stream: Any = trainer.train_dataset
    assert {stream[i]["prompt"] for i in range(4)} == {"rock", "paper"}
    with pytest.raises(DataError, match=r"row 1 has a prompt of 3 tokens, the limit is 2 \(2 of 4"):
        make_trainer(tmp_path, prompts=prompts, max_prompt_length=2, on_long_prompt="error")
    with pytest.raises(DataError, match="all 2 prompts are longer than 2 tokens"):
        make_trainer(tmp_path, prompts=prompts[1::2], max_prompt_length=2)


def test_tokenizers_that_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template"):
        make_trainer(tmp_path, prompts=[[{"role": "user", "content": "rock"}], [{"role": "user", "content": "well"}]])
    backend = Tokenizer(models.WordLevel({"rock": 0, "paper": 1}, unk_token="rock"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    from datasets import Dataset
    from tiny_runs import make_config

    from magnetar.training import NashTrainer

    parts: dict[str, Any] = {
        "model": GAME.model(),
        "judge": GAME.judge(),
        "args": make_config(tmp_path),
        "train_dataset": Dataset.from_dict({"prompt": ["rock", "paper"]}),
    }
    with pytest.raises(ModelError, match="pad"):
        NashTrainer(**parts, processing_class=PreTrainedTokenizerFast(tokenizer_object=backend))
    with pytest.raises(ModelError, match="processing_class is None"):
        NashTrainer(**parts)


def test_four_bits_are_not_trained_on_the_cpu(tmp_path: Path) -> None:
    model = GAME.model(0)
    model.__dict__["is_loaded_in_4bit"] = True  # as transformers marks it; bitsandbytes itself is not needed to refuse
    with pytest.raises(ModelError, match="passes no gradient through its layers; load it in bfloat16"):
        make_trainer(tmp_path, model=model)


def test_errors_name_a_command_and_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert main([]) == 0
    usage = capsys.readouterr().out
    assert all(command in usage for command in ("train", "eval", "games", "demo"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("magnetar ")
