import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from magnetar.cli.games_poker import main
from magnetar.games import extensive

pytest.importorskip("pyspiel", reason="OpenSpiel is not installed")

SHORT = ["--updates", "40", "--sampled_updates", "2", "--seeds", "2", "--episodes", "64"]


def test_both_feedbacks_are_run_printed_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot, record = tmp_path / "kuhn.svg", tmp_path / "kuhn.json"
    assert main([*SHORT, "--plot", str(plot), "--json", str(record)]) == 0
    printed = capsys.readouterr().out
    written = json.loads(record.read_text())
    assert [(c["feedback"], c["method"]) for c in written["curves"]] == [
        ("exact", "mpo"), ("exact", "mmd"), ("exact", "mirror_descent"), ("exact", "cfr"),
        ("sampled", "mpo"), ("sampled", "mmd"), ("sampled", "mirror_descent"),
    ]  # fmt: skip
    for curve in written["curves"]:
        assert len(curve["exploitability"]) == (2 if curve["feedback"] == "sampled" else 1)
        assert all(len(row) == len(curve["updates"]) for row in curve["exploitability"])
        assert f"{np.median([row[-1] for row in curve['exploitability']]):.2e}" in printed
    assert written["curves"][-1]["settings"]["proximal"] == "clip"
    picture = plot.read_text()
    assert "<svg" in picture
    assert main([*SHORT, "--plot", str(tmp_path / "again.svg")]) == 0
    assert (tmp_path / "again.svg").read_text() == picture


def test_settings_reach_the_methods(tmp_path: Path) -> None:
    record = tmp_path / "r.json"
    words = ["--feedback", "exact", "--methods", "mpo", "--updates", "7", "--step_size", "0.7", "--magnet_strength",
             "0.3", "--magnet_every", "3", "--tremble", "0.25", "--json", str(record)]  # fmt: skip
    assert main(words) == 0
    plain, trembling, cfr = json.loads(record.read_text())["curves"]
    assert plain["settings"]["step_size"] == 0.7
    assert plain["settings"]["magnet_strength"] == 0.3
    assert plain["settings"]["magnet"] == "every 3 updates"
    assert "tremble" not in plain["settings"] and trembling["settings"]["tremble"] == 0.25
    assert plain["exploitability"] != trembling["exploitability"]
    assert cfr["average_exploitability"][-1] > 0


def test_an_interruption_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, calls = extensive.run_sampled, []

    def interrupted(*args: object, **kwargs: object) -> extensive.ExtensiveTrace:
        calls.append(kwargs["seed"])
        if len(calls) == 4:  # the second method's second seed
            raise KeyboardInterrupt
        return run(*args, **kwargs)  # type: ignore[arg-type] - passed on

    monkeypatch.setattr(extensive, "run_sampled", interrupted)
    record = tmp_path / "r.json"
    assert main([*SHORT, "--json", str(record), "--plot", str(tmp_path / "p.png")]) == 130
    curves = json.loads(record.read_text())["curves"]
    assert [len(c["exploitability"]) for c in curves if c["feedback"] == "sampled"] == [2, 1]
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert "6 finished curves kept" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_finished(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(extensive, "run_cfr", stopped)
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:  # a command that does not take it would end the tests without a word
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    record = tmp_path / "r.json"
    try:
        handler = signal.getsignal(signal.SIGTERM)
        assert main(["--feedback", "exact", "--methods", "mpo", "--updates", "3", "--json", str(record)]) == status
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [curve["method"] for curve in json.loads(record.read_text())["curves"]] == ["mpo"]
    assert "1 finished curves kept" in capsys.readouterr().err


def test_the_limits_of_size_can_be_moved_as_the_messages_advise(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--feedback", "exact", "--methods", "mmd", "--updates", "1"]
    for option, limit in (("max_infostates", 12), ("max_histories", 58)):
        assert main([*words, f"--{option}", str(limit - 1)]) == 2
        assert f"raise {option}" in capsys.readouterr().err
        assert main([*words, f"--{option}", str(limit)]) == 0
        capsys.readouterr()


@pytest.mark.slow
def test_sigint_on_the_real_command(tmp_path: Path) -> None:
    record = tmp_path / "r.json"
    code = "import sys; from magnetar.cli.games_poker import main; sys.exit(main(sys.argv[1:]))"
    words = ["--updates", "500", "--sampled_updates", "100000", "--json", str(record)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True)
    time.sleep(25)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len(json.loads(record.read_text())["curves"]) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--game", "leduk_poker"], "did you mean 'leduc_poker'"),
        (["--updates", "-1"], "--updates is -1"),
        (["--sampled_updates", "-1"], "--sampled_updates is -1"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--episodes", "1"], "episodes is 1"),
        (["--learning_rate", "0"], "learning_rate is 0.0"),
        (["--methods", "mpoo"], "did you mean 'mpo'"),
        (["--methods", "hamiltonian"], "'hamiltonian' has no behavioural form"),
        (["--methods", "omwu"], "'omwu' has no sampled form"),
        (["--step_size", "0"], "step_size is 0.0"),
        (["--tremble", "1.5"], "tremble is 1.5"),
        (["--plot", "x.gif"], "suffix '.gif'"),
        (["--json", "nowhere/x.json"], "no folder nowhere"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("ran")

    monkeypatch.setattr(extensive, "run_exact", never)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert re.search(re.escape(message), captured.err)
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
