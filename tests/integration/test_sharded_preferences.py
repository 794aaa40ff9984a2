"""A preference model whose weights two processes share is the one that a single process trains."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from processes import FSDP2, run_two_processes

TINY = Path(__file__).parents[1] / "unit" / "training"
SCRIPT = """
from tiny_preferences import cyclic_pairs, make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
trainer = make_trainer(
    folder / "run", cyclic_pairs(24, seed=0), held_out=cyclic_pairs(16, seed=1), kind="general", embedding_dim=4,
    num_train_epochs=1, learning_rate=1e-2, adam_epsilon=1e-2, warmup_steps=0, save_strategy="steps", save_steps=2,
    **settings,
)
trainer.train()
found = trainer.evaluate()
trainer.save_judge(folder / "judge")
if trainer.is_world_process_zero():
    (folder / "evaluation.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_a_judge_trained_with_sharded_weights_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    run_two_processes(two, {"with_lora": lora, **sizes}, SCRIPT, TINY, variables=FSDP2)
    one.mkdir()
    sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 8}
    monkeypatch.setattr(sys, "argv", ["one", str(one), json.dumps({"with_lora": lora, **sizes})])
    monkeypatch.setattr(sys, "path", [*sys.path, str(TINY)])
    exec(compile(SCRIPT, "script.py", "exec"), {"Path": Path, "json": json, "sys": sys})
    expected, found = (load_file(folder / "judge" / "model.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    assert max(float((expected[name] - found[name]).abs().max()) for name in expected) < 1e-5
    measured = [json.loads((folder / "evaluation.json").read_text()) for folder in (one, two)]
    for name in ("eval_loss", "eval_accuracy"):
        assert measured[1][name] == pytest.approx(measured[0][name], abs=1e-4)
