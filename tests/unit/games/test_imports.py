import subprocess
import sys

import pytest

HEAVY = ("transformers", "peft", "trl", "datasets", "accelerate", "matplotlib")


@pytest.mark.parametrize("module", ["magnetar.games", "magnetar.cli.games"])
def test_importing_games_loads_neither_transformers_nor_matplotlib(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_running_a_game_loads_none_of_them_either() -> None:
    code = (
        "import sys; from magnetar.cli.games import main; main(['run', '--updates', '3', '--json']); "
        f"print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
