"""A pipeline of all stages on models of two layers, for tests that interrupt, change and damage it."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import GAME, WORDS

from magnetar.cli.main import main
from magnetar.training.callbacks import StopSignals

STEPS = (
    *("data/pairs", "sft", "preference/judge", "preference/cost"),
    *("train/mpo/seed-0", "train/ppo/seed-0", "evaluate", "report"),
)
CONFIG: dict[str, Any] = {
    "output_dir": "out",
    "model": "model",
    "settings": {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "use_peft": True,
        "lora_r": 4,
        "lora_target_modules": ["q_proj", "v_proj"],
    },
    "data": {
        "pairs": {
            "source": "pairs.jsonl",
            "parts": {"held_out": 6, "learn": 0.5, "evaluate": "rest", "prompts": ["learn", "evaluate"]},
            "signs": "preferred",
        }
    },
    "sft": {
        "dataset": "data:pairs/learn",
        "learning_rate": "1e-2",
        "max_steps": 6,
        "max_length": 16,
        "save_steps": 2,
        "logging_steps": 2,
    },
    "preference": {
        "judge": {
            **{"kind": "reward", "dataset": "data:pairs/learn", "eval_pairs": "data:pairs/held_out"},
            **{"learning_rate": "3e-3", "max_steps": 6, "max_length": 32, "save_steps": 2, "report": False},
        },
        "cost": {
            **{"kind": "cost", "dataset": "data:pairs/evaluate", "eval_holdout": 0},
            **{"learning_rate": "3e-3", "max_steps": 4, "max_length": 32, "report": False},
        },
    },
    "train": {
        "dataset": "data:pairs/prompts",
        "judge": "preference:judge",
        "budget": {"updates": 4},
        "seeds": [0],
        "settings": {
            **{"learning_rate": "1e-2", "per_device_train_batch_size": 2, "num_generations": 4},
            **{"max_completion_length": 3, "sample_steps": 0, "save_steps": 2},
        },
        "methods": {
            "MPO": {"method": "mpo", "num_rounds": 2, "magnet_schedule": "round"},
            "PPO": {"method": "ppo"},
        },
    },
    "evaluate": {
        "judges": {"judge": "preference:judge", "cost": "preference:cost"},
        "prompts": {"dataset": "data:pairs/held_out"},
        "sampling": {"max_new_tokens": 3, "batch_size": 2},
        "intervals": {"bootstrap": 100},
    },
    "report": True,
}


class Killed(BaseException):
    """As a kill does, it leaves nothing time to save."""


def write_place(folder: Path) -> Path:
    """A model and pairs; "rock" is what people like."""
    GAME.model(0).save_pretrained(folder / "model")
    GAME.tokenizer.save_pretrained(folder / "model")
    rng = random.Random(0)
    rows = []
    for index in range(80):
        first, second = (" ".join(rng.choices(WORDS, k=2)) for _ in range(2))
        if first.count("rock") < second.count("rock"):
            first, second = second, first
        prompt = " ".join(rng.choices(WORDS, k=3)) + " "
        rows.append({"prompt": prompt, "chosen": first, "rejected": second, "category": f"kind {index % 2}"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_config(path: Path, changes: Mapping[str, Any] | None = None, **keys: Any) -> Path:
    """The configuration, with entries changed ("sft.learning_rate": 1) and keys replaced; None leaves one out."""
    values = json.loads(json.dumps(CONFIG)) | keys
    for name, value in (changes or {}).items():
        place = values
        *above, last = name.split(".")
        for key in above:
            place = place[key]
        place[last] = value
    path.write_text(
        yaml.safe_dump({name: value for name, value in values.items() if value is not None}, sort_keys=False)
    )
    return path


def pipeline(config: Path, *flags: str) -> int:
    return main(["pipeline", "--config", str(config), *flags])


def ran(console: str) -> list[str]:
    """Steps that ran, by what the command said."""
    return [
        line.split("] ")[1].split(":")[0] for line in console.splitlines() if ": runs (" in line or ": goes on" in line
    ]


def products(out: Path) -> dict[str, bytes]:
    """Weights and data of all steps, earlier ones left out."""
    found = [*out.rglob("*.safetensors"), *out.glob("data/*/*.jsonl")]
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(found)
        if "earlier" not in path.parts and not any(part.startswith("checkpoint-") for part in path.parts)
    }


def manifests(out: Path) -> dict[str, dict[str, Any]]:
    found = [path for path in out.rglob("manifest.json") if "earlier" not in path.parts]
    return {str(path.parent.relative_to(out)): json.loads(path.read_text()) for path in found}


@contextmanager
def killed_at(folder: Path, step: int) -> Iterator[None]:
    """Kill training in a folder at the end of an optimiser step, before anything of it is saved."""
    wanted = folder.resolve()
    original = StopSignals.on_step_end

    def end(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        original(self, args, state, control, **kwargs)
        if Path(args.output_dir).resolve() == wanted and state.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "on_step_end", end)
        yield
