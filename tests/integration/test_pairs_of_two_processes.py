"""Where pairs are counted by each process alone, two processes still train what one with twice the batch does."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from processes import run_two_processes

TINY = Path(__file__).parents[1] / "unit" / "training"
SCRIPT = """
from safetensors.torch import save_file
from tiny_preferences import cyclic_pairs, make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
trainer = make_trainer(
    folder / "run", cyclic_pairs(24, seed=0), held_out=cyclic_pairs(16, seed=1), kind="general", embedding_dim=4,
    num_train_epochs=1, optim="sgd", learning_rate=1e-2, warmup_steps=0, **settings,
)
trainer.train()
found = trainer.evaluate()
if trainer.is_world_process_zero():
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, folder / "weights.safetensors")
    (folder / "evaluation.json").write_text(json.dumps(found))
"""


def test_pairs_counted_by_each_process_alone_give_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"average_tokens_across_devices": False}
    one, two = tmp_path / "one", tmp_path / "two"
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    run_two_processes(two, {**shared, **sizes}, SCRIPT, TINY)
    one.mkdir()
    sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    monkeypatch.setattr(sys, "argv", ["one", str(one), json.dumps({**shared, **sizes})])
    monkeypatch.setattr(sys, "path", [*sys.path, str(TINY)])
    exec(compile(SCRIPT, "script.py", "exec"), {"Path": Path, "json": json, "sys": sys})
    expected, found = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) < 1e-6
    measured = [json.loads((folder / "evaluation.json").read_text()) for folder in (one, two)]
    for name in ("eval_loss", "eval_accuracy"):
        assert measured[1][name] == pytest.approx(measured[0][name], abs=1e-5)
