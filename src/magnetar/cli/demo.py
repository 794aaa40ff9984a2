"""`magnetar demo`: align the embedded model on the embedded prompts with the embedded judge, start to finish."""

from magnetar.cli.run_options import parse_run
from magnetar.cli.train import run

__all__ = ["DEMO", "main"]

DEMO = {
    "model": "demo",
    "dataset": "demo",
    "judge": "panel",
    "output_dir": "runs/demo",
    "method": "mpo",
    "magnet_strength": 0.02,
    "magnet_every": 10,
    "use_peft": True,
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "lora_target_modules": ["all-linear"],
    "learning_rate": 3e-4,
    "max_steps": 28,
    "per_device_train_batch_size": 4,
    "num_generations": 6,
    "max_completion_length": 64,
    "temperature": 0.7,
    "eval_responses": 3,
    "save_strategy": "no",
    "sample_steps": 10,
    "use_cpu": False,
    "seed": 0,
}
"""Settings of the demo; every flag of `magnetar train` overrides its own."""


def main(argv: list[str]) -> int:
    """Run the demo: train, evaluate on held-out prompts, print the result and write the report.

    Args:
        argv: Flags of `magnetar train`.

    Returns:
        Exit status.
    """
    options, args, model_config = parse_run(argv, {**DEMO, "dtype": best_dtype()}, command="demo")
    run(options, args, model_config)
    return 0


def best_dtype() -> str:
    """bfloat16 where the machine computes in it (adapters stay in float32), float32 elsewhere."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # The only question that PyTorch answers about bfloat16 on CPUs is a private one.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bfloat16" if supported is not None and supported() else "float32"
