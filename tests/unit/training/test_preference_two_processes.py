"""Two processes train a preference model as one process with twice the batch does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_preferences import cyclic_pairs, make_trainer

from processes import run_two_processes

HERE = Path(__file__).parent
SCRIPT = """
from safetensors.torch import save_file
from tiny_preferences import cyclic_pairs, make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
trainer = make_trainer(folder / "run", cyclic_pairs(24, 0), per_device_train_batch_size=2, **settings)
assert trainer.args.world_size == 2
trainer.train()
rank = trainer.args.process_index
state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
save_file({name: tensor.clone() for name, tensor in state.items()}, folder / f"weights-{rank}.safetensors")
found = trainer.evaluate(cyclic_pairs(30, 1))
(folder / f"found-{rank}.json").write_text(json.dumps(found))
trainer.save_judge(folder / "judge")
"""

EARLY = """
from tiny_preferences import cyclic_pairs, make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
pairs = cyclic_pairs(24, 0)
twice = make_trainer(folder / "twice", pairs, held_out=pairs, eval_on_start=True, **settings)
twice.train()
twice.evaluate()
twice.args.output_dir = str(folder / "again")
twice.train()
early = make_trainer(folder / "early", pairs, **settings)
early.evaluate(pairs)
try:
    early.train()
    said = "nothing"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
(folder / f"said-{early.args.process_index}.txt").write_text(said)
"""

SETTINGS: dict[str, Any] = {
    "kind": "general",
    "optim": "sgd",  # Adam divides rounding noise by itself where a gradient vanishes
    "learning_rate": 0.2,
    "max_steps": 4,
    "train_sampling_strategy": "sequential",
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
}


@pytest.mark.parametrize("with_lora", [False, True])
def test_two_processes_train_the_model_of_one_with_twice_the_batch(with_lora: bool, tmp_path: Path) -> None:
    run_two_processes(tmp_path, SETTINGS | {"with_lora": with_lora}, SCRIPT, HERE)
    one = make_trainer(
        tmp_path / "one", cyclic_pairs(24, 0), per_device_train_batch_size=4, with_lora=with_lora, **SETTINGS
    )
    start = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}  # type: ignore[union-attr]
    one.train()
    expected: dict[str, torch.Tensor] = one.model.state_dict()  # type: ignore[union-attr]
    assert max(float((expected[name] - start[name]).abs().max()) for name in expected) > 1e-3
    two = [load_file(tmp_path / f"weights-{rank}.safetensors") for rank in range(2)]
    for name, tensor in expected.items():
        torch.testing.assert_close(two[0][name], two[1][name], atol=0, rtol=0)
        torch.testing.assert_close(two[0][name], tensor, atol=2e-5, rtol=0)
    measured = one.evaluate(cyclic_pairs(30, 1))
    for rank in range(2):
        found = json.loads((tmp_path / f"found-{rank}.json").read_text())
        assert found["eval_accuracy"] == pytest.approx(measured["eval_accuracy"])
        assert found["eval_loss"] == pytest.approx(measured["eval_loss"], abs=1e-4)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    alone = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    for a, b in zip(lines[:4], alone[:4], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        assert a["accuracy"] == pytest.approx(b["accuracy"])


def test_training_after_an_evaluation_is_refused_unless_gradients_are_exchanged(tmp_path: Path) -> None:
    run_two_processes(tmp_path, {"kind": "reward", "max_steps": 2}, EARLY, HERE)
    for rank in range(2):
        said = (tmp_path / f"said-{rank}.txt").read_text()
        assert re.match("ConfigError: the model was evaluated before.* on 2 processes.*eval_on_start=True", said), said
    assert not (tmp_path / "early" / "magnetar_config.json").exists()
