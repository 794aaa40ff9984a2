"""Flags, YAML and defaults of a run, in this order of precedence."""

from pathlib import Path

import pytest

from magnetar.cli.demo import main as demo
from magnetar.cli.run_options import parse_run
from magnetar.errors import ConfigError
from magnetar.judges.kinds import JUDGE_KINDS

YAML = """
model: some/model
dataset: some.jsonl
judge: {kind: reward, model: my/reward, temperature: 2.0}
output_dir: from_file
use_cpu: true
report_to: none
learning_rate: 1e-4
num_generations: 6
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(YAML)
    return str(path)


def test_flags_win_over_the_file_and_the_file_over_defaults(file: str) -> None:
    defaults = {"num_generations": 3, "max_completion_length": 7, "learning_rate": 1.0}
    options, args, model = parse_run(["--config", file, "--num_generations", "9", "--lora_r=5"], defaults)
    assert (args.num_generations, args.max_completion_length, args.learning_rate) == (9, 7, 1e-4)
    assert options.model == model.model_name_or_path == "some/model"
    assert model.lora_r == 5
    assert args.output_dir == "from_file"


def test_a_judge_may_be_a_mapping_and_a_flag_replaces_it(file: str) -> None:
    assert parse_run(["--config", file])[0].judge == {"kind": "reward", "model": "my/reward", "temperature": 2.0}
    assert parse_run([f"--config={file}", "--judge", "panel"])[0].judge == "panel"


def test_dashes_and_negations_are_taken(file: str) -> None:
    options, args, _ = parse_run(["--config", file, "--num-generations", "4", "--no_report", "--no_disable_dropout"])
    assert args.num_generations == 4
    assert options.report is False and args.disable_dropout is False


def test_the_file_need_not_name_what_flags_name(file: str, tmp_path: Path) -> None:
    flags = ["--model", "m", "--dataset", "d", "--judge", "panel", "--use_cpu", "true", "--report_to", "none"]
    assert parse_run([*flags, "--output_dir", str(tmp_path)])[1].output_dir == str(tmp_path)
    with pytest.raises(ConfigError, match="output_dir is missing"):
        parse_run(flags)
    with pytest.raises(ConfigError, match=r"^num_generations is 'six', expected a whole number"):
        parse_run(["--config", file, "--num_generations", "six"])
    with pytest.raises(ConfigError, match=r"^judge_in_background is 'maybe', expected true or false"):
        parse_run(["--config", file, "--judge_in_background", "maybe"])
    with pytest.raises(ConfigError, match=r"^learning_rate is 'fast', expected a number"):
        parse_run(["--config", file, "--learning-rate", "fast"])
    with pytest.raises(ConfigError, match="did you mean 'num_generations'"):
        parse_run(["--config", file, "--num_generation", "6"])


def test_help_names_the_command_and_every_kind_of_judge(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_run(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("usage: magnetar train [-h]")
    for kind in JUDGE_KINDS.values():
        assert kind.form.split(",")[0] in text, kind.form


def test_help_and_messages_name_the_command_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo(["--help"])
    assert capsys.readouterr().out.startswith("usage: magnetar demo ")
    with pytest.raises(ConfigError, match="magnetar demo --help"):
        demo(["--colour", "red"])
