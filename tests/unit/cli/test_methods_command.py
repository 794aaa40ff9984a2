"""`magnetar methods` lists what the library has and says."""

import subprocess
import sys

import pytest

from magnetar.cli.main import main
from magnetar.methods import METHODS


def test_every_method_is_listed_with_what_it_reaches_and_where_it_runs(capsys):
    assert main(["methods"]) == 0
    table, names = capsys.readouterr().out.split("\n\n")
    lines = {line.split()[0]: line for line in table.splitlines()[2:]}
    assert names.startswith("Names of papers: spo is mirror_descent")
    assert set(lines) == set(METHODS)
    for name, make in METHODS.items():
        method = make()
        assert method.converges_to in lines[name] and method.source in lines[name]
        assert ("  yes  " in lines[name]) == (method.games_only_because is None)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_described_with_its_settings(name, capsys):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    method = METHODS[name]()
    assert all(f"  {key} " in text for key in method.settings)
    assert (f"magnetar train --method {name}" in text) == (method.games_only_because is None)


def test_an_unknown_method_is_named_with_the_nearest(capsys):
    assert main(["methods", "egp"]) == 2
    assert "did you mean 'egpo'?" in capsys.readouterr().err


def test_the_list_comes_without_loading_transformers():
    code = "import sys; from magnetar.cli.main import main; main(['methods']); sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
