"""The command as a module, which is how launchers of several processes start it."""

import subprocess
import sys

import magnetar


def test_the_command_can_be_launched_as_a_module() -> None:
    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "magnetar.cli.main", *words], capture_output=True, text=True)

    assert launch("--version").stdout.strip() == f"magnetar {magnetar.__version__}"
    unknown = launch("trian")
    assert unknown.returncode == 2
    assert "did you mean 'train'" in unknown.stderr
