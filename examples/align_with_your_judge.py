"""Align a language model with a judge of your own: ten lines of Python, a minute on a laptop.

A judge is anything that says how likely the first response is to be better than the second. Here: shorter is better,
as long as there is an answer at all. Replace `win_prob` by yours, `model` by any Hub id, `train_dataset` by any
prompts.
"""

from collections.abc import Sequence

from peft import LoraConfig

from magnetar import NashConfig, NashTrainer
from magnetar.data import demo_prompts
from magnetar.types import Prompt


def win_prob(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[float]:
    """P(first beats second) for each pair."""

    def badness(text: str) -> float:
        words = len(text.split())
        return float(words) if words >= 5 else 1000.0

    def chance(a: str, b: str) -> float:
        return 0.5 + 0.5 * ((badness(a) < badness(b)) - (badness(a) > badness(b)))

    return [chance(a, b) for a, b in zip(first, second, strict=True)]


def main() -> None:
    trainer = NashTrainer(
        model="demo",  # the embedded SmolLM2-135M-Instruct
        judge=win_prob,
        args=NashConfig(
            output_dir="runs/shorter",
            method="mpo",
            magnet_every=2,
            max_steps=4,
            per_device_train_batch_size=2,
            num_generations=4,
            max_completion_length=32,
            learning_rate=3e-4,
            save_strategy="no",
            overwrite_output_dir=True,
        ),
        train_dataset=demo_prompts("train"),
        eval_dataset=demo_prompts("test").select(range(8)),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
