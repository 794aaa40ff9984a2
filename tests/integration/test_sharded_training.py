"""Two processes that share the weights between them train as one process that has them all."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_runs import PROMPTS, assert_close, make_trainer, metrics_without_times

from processes import FSDP2, run_two_processes

HERE = Path(__file__).parent
SCRIPT = """
from safetensors.torch import save_file
from sharded_runs import assert_shares, whole_snapshot
from tiny_runs import PROMPTS, make_trainer

folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, fields in settings.items():
    trainer = make_trainer(folder / name, per_device_train_batch_size=2, eval_prompts=PROMPTS[:5], **fields)
    trainer.train()
    assert_shares(trainer)
    tensors = whole_snapshot(trainer)
    save_file(tensors, folder / f"{name}-{trainer.args.process_index}.safetensors")
    trainer.evaluate()
    trainer.save_model(str(folder / name / "final"))
"""
SGD = {"optim": "sgd", "learning_rate": 0.5}
LORA = SGD | {"with_lora": True, "gradient_accumulation_steps": 2, "max_steps": 3, "magnet_every": 1}
FULL = SGD | {"inner_epochs": 2, "kl_estimator": "exact", "max_steps": 6, "max_tokens_per_pass": 16}


def test_try(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lora": LORA, "full": FULL}
    run_two_processes(tmp_path / "two", settings, SCRIPT, HERE, variables=FSDP2)
    from sharded_runs import whole_snapshot

    for name, fields in settings.items():
        one = make_trainer(tmp_path / name, per_device_train_batch_size=4, eval_prompts=PROMPTS[:5], **fields)
        start = {k: t.clone() for k, t in one.roles.current.state_dict().items()}
        one.train()
        one.evaluate()
        moved = max(float((t - start[n]).abs().max()) for n, t in one.roles.current.state_dict().items())
        assert moved > 1e-2
        two = [load_file(tmp_path / "two" / f"{name}-{rank}.safetensors") for rank in range(2)]
        assert_close(two[0], two[1], 0.0)
        assert_close(two[0], whole_snapshot(one), 1e-5)
        rows_one, rows_two = (metrics_without_times(folder / name) for folder in (tmp_path, tmp_path / "two"))
        for row_one, row_two in zip(rows_one, rows_two, strict=True):
            assert row_one.keys() == row_two.keys()
            for key, value in row_one.items():
                if not key.startswith("judge/"):
                    assert row_two[key] == pytest.approx(value, rel=1e-3, abs=2e-5), (name, key)
