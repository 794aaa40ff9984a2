"""Small runs of TRL's trainers with a judge for a reward, which record what the reward function was asked and said."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # pyright: ignore[reportPrivateImportUsage]

from magnetar.evaluation.enumerable import EnumerableGame
from magnetar.interop import GroupReward

GAME = EnumerableGame.build(num_words=4, max_new_tokens=3)
WORDS = ("rock", "paper", "scissors", "well")
PROMPTS = [f"{a} {b}" for a in WORDS for b in WORDS if a != b]
SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "num_generations": 2,
    "per_device_train_batch_size": 6,
    "max_completion_length": 3,
    "learning_rate": 1e-3,
    "beta": 0.0,
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
    "report_to": "none",
    "bf16": False,
    "gradient_checkpointing": False,
}


class Recorded:
    """A reward function that remembers its calls."""

    def __init__(self, inner: GroupReward) -> None:
        self.inner = inner
        self.__name__ = inner.__name__
        self.calls: list[dict[str, Any]] = []

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        rewards = self.inner(prompts, completions, **columns)
        self.calls.append({"prompts": prompts, "completions": completions, "rewards": rewards})
        return rewards


def run(folder: Path, reward: Any, kind: str = "grpo", dataset: Dataset | None = None, **settings: Any) -> Any:
    config, trainer_class = {"grpo": (GRPOConfig, GRPOTrainer), "rloo": (RLOOConfig, RLOOTrainer)}[kind]
    trainer = trainer_class(
        model=GAME.model(0),
        reward_funcs=reward,
        args=config(output_dir=str(folder), **(SETTINGS | settings)),
        train_dataset=dataset or Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=GAME.tokenizer,
    )
    trainer.train()
    return trainer
