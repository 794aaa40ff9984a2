"""`magnetar demo`: align the embedded model on the embedded prompts with the embedded judge, start to finish."""

import json
import sys
from pathlib import Path

from magnetar.cli.run_options import parse_run
from magnetar.cli.train import run

__all__ = ["DEMO", "main"]

DEMO = {
    "model": "demo",
    "dataset": "demo",
    "judge": "panel",
    "output_dir": "runs/demo",
    "method": "mpo",
    "step_size": 1.0,
    "magnet_strength": 0.02,
    "magnet_every": 10,
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": ["all-linear"],
    "learning_rate": 2e-4,
    "max_steps": 30,
    "per_device_train_batch_size": 4,
    "num_generations": 8,
    "max_completion_length": 64,
    "temperature": 0.7,
    "eval_responses": 2,
    "save_strategy": "no",
    "sample_steps": 10,
    "use_cpu": False,
    "seed": 0,
}
"""Settings of the demo; every flag of `magnetar train` overrides its own."""


def main(argv: list[str]) -> int:
    """Run the demo and print what came out.

    Args:
        argv: Flags of `magnetar train`.

    Returns:
        Exit status.
    """
    options, args, model_config = parse_run(argv, DEMO)
    folder = run(options, args, model_config)
    evaluation = Path(folder) / "evaluation.json"
    if evaluation.exists() and args.process_index == 0:
        print(json.dumps(json.loads(evaluation.read_text(encoding="utf-8"))["win_rate"]), file=sys.stdout)
    return 0
