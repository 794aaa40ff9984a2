"""The command as a module, which is how launchers of several processes start it, and names that TRL users know."""

import subprocess
import sys
from pathlib import Path

import pytest

import magnetar
from magnetar.cli.run_options import parse_run
from magnetar.errors import ConfigError


def test_the_command_can_be_launched_as_a_module() -> None:
    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "magnetar.cli.main", *words], capture_output=True, text=True)

    assert launch("--version").stdout.strip() == f"magnetar {magnetar.__version__}"
    unknown = launch("trian")
    assert unknown.returncode == 2
    assert "did you mean 'train'" in unknown.stderr


def flags(folder: Path, *more: str) -> list[str]:
    return ["--dataset", "demo", "--judge", "panel", "--output_dir", str(folder), "--use_cpu", *more]


def test_the_model_goes_by_trls_name_too(tmp_path: Path) -> None:
    for name in ("model", "model_name_or_path"):
        options, _, model_config = parse_run(flags(tmp_path, f"--{name}", "org/some-model"))
        assert options.model == model_config.model_name_or_path == "org/some-model"
    with pytest.raises(ConfigError, match="two names of one setting"):
        parse_run(flags(tmp_path, "--model", "demo", "--model_name_or_path", "org/some-model"))
    with pytest.raises(ConfigError, match="model is missing"):
        parse_run(flags(tmp_path))


@pytest.mark.parametrize("name", ["load_in_4bit", "load_in_8bit"])
def test_quantised_models_are_refused_rather_than_loaded_whole(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is set, but quantised"):
        parse_run(flags(tmp_path, "--model", "demo", f"--{name}"))
