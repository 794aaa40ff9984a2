"""Which policies a run kept, and which of them the magnet moved to; and how they fare in the tournament."""

import json
from pathlib import Path
from typing import Any

import pytest

from magnetar.errors import DataError
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.path import read_path
from magnetar.evaluation.suite.run import evaluate_suite
from unit.evaluation.conftest import tiny_model, tiny_tokenizer


def make_run(folder: Path, updates: int, moves: set[int], magnet: str = "every 2 updates", logged: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "magnetar_config.json").write_text(json.dumps({"magnet": magnet}))
    lines = [
        {"update": update, "magnet_moved": int(any(m in moves for m in range(update - logged + 1, update + 1)))}
        for update in range(logged, updates + 1, logged)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def keep(folder: Path, name: str, update: int, state: dict[str, Any] | None = None) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}")
    record = {"updates": update} if state is None else {"update": update, **state}
    (path / ("ledger.json" if state is None else "magnetar_state.json")).write_text(json.dumps(record))
    return path


def steps(folder: Path) -> list[tuple[str, int | None, bool, bool]]:
    return [(step.folder.name, step.update, step.magnet, step.last) for step in read_path(folder)]


def test_policies_come_in_the_order_of_training_with_the_magnets_moves(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 12, {5, 10, 12})
    keep(run, "curve/update-10", 10)
    keep(run, "curve/update-3", 3)
    keep(run, "checkpoint-5", 5, {})
    keep(run, "checkpoint-10", 10, {})
    keep(run, "checkpoint-12", 12, {})
    (run / "checkpoint-7").mkdir()
    assert steps(run) == [
        ("update-3", 3, False, False),
        ("checkpoint-5", 5, True, False),
        ("update-10", 10, True, False),
        ("run", 12, True, True),
    ]


def test_a_log_with_gaps_leaves_the_moves_to_the_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 12, {5, 10}, logged=4)
    keep(run, "checkpoint-8", 8, {})
    assert steps(run) == [("checkpoint-8", 8, False, False), ("run", 12, False, True)], "5 moved, not 8"
    keep(run, "checkpoint-10", 10, {"magnet_moves": [5, 10]})
    assert steps(run)[1] == ("checkpoint-10", 10, True, False)


@pytest.mark.parametrize("magnet", ["fixed", "moving average, rate 0.1"])
def test_a_magnet_that_is_never_a_policy_is_none_of_them(tmp_path: Path, magnet: str) -> None:
    run = make_run(tmp_path / "run", 3, {1, 2, 3}, magnet)
    keep(run, "curve/update-2", 2)
    assert not any(step.magnet for step in read_path(run))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no policy"):
        read_path(tmp_path)
    run = make_run(tmp_path / "run", 3, set())
    (run / "metrics.jsonl").write_text('{"update": 1, "magnet_moved": 0}\n{"upd\n')
    with pytest.raises(DataError, match="line 2"):
        read_path(run)


def test_checkpoints_play_and_the_last_is_not_asked_twice(world: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 4, {2, 4})
    keep(run, "curve/update-2", 2)
    for seed, folder in enumerate((tmp_path / "start", run, run / "curve" / "update-2")):
        tiny_model(seed).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    (run / "curve" / "update-2" / "adapter_config.json").unlink()
    config = world | {
        "policies": {"start": "start", "final": "./run"},
        "reference": "start",
        "sampling": {"max_new_tokens": 4},
        "prompts": {"dataset": "prompts.jsonl", "limit": 6},
        "tournament": {"runs": {"M": "run"}},
    }
    result = evaluate_suite(SuiteConfig.from_dict(config), tell=lambda line: None, progress=False)
    (game,) = result.tournament
    assert game.names == ("start", "final", "M@2")
    assert [(step.name, step.run, step.update, step.magnet) for step in game.path] == [
        ("M@2", "M", 2, True),
        ("final", "M", 4, True),
    ]
    assert game.last == {"M": "final"} and sum(game.nash.values()) == pytest.approx(1.0)
    at = game.names.index("final")
    beaten = [name for i, name in enumerate(game.names) if (low := game.low[i][at]) is not None and low > 0.5]
    assert list(game.beaten_by["M"]) == beaten
    assert sorted(path.name for path in Path("out/answers").iterdir())[0].startswith("M-2")
    assert result.policies["M@2"].kind == "model" and result.policies["M@2"].spec == ("run/curve/update-2",)
