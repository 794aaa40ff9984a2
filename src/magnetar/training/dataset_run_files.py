"""Callbacks of a run on a fixed dataset: its files and its lines on the console."""

import json
from pathlib import Path
from typing import Any, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from magnetar.training.callbacks import ConsoleCallback

__all__ = ["DatasetRunConsole", "DatasetRunFiles", "format_line"]


class DatasetRunFiles(TrainerCallback):
    """Writes `magnetar_config.json` and `metrics.jsonl` into the output folder, line by line."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the settings; a resumed run keeps the lines up to its checkpoint and drops the later ones."""
        if not state.is_world_process_zero:
            return
        folder = Path(cast(str, args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        metrics = folder / "metrics.jsonl"
        if metrics.exists():
            lines = metrics.read_text(encoding="utf-8").splitlines()
            kept = [line + "\n" for line in lines if 0 < _step_of(line) <= state.global_step]
            metrics.write_text("".join(kept), encoding="utf-8")
        settings = json.dumps(self._trainer.run_settings(), indent=2)
        (folder / "magnetar_config.json").write_text(settings + "\n", encoding="utf-8")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line of metrics per logged step."""
        if state.is_world_process_zero and logs and ("loss" in logs or "eval_loss" in logs):
            with (Path(cast(str, args.output_dir)) / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class DatasetRunConsole(ConsoleCallback):
    """A progress bar and one tidy line per log."""

    def line(self, step: int, logs: dict[str, float]) -> str | None:
        """What is written about a log; None for nothing."""
        return f"step {step:>5}  {format_line(logs)}" if "loss" in logs or "eval_loss" in logs else None


LINE = (
    ("loss", "loss", "{:.4f}"),
    ("accuracy", "accuracy", "{:.1%}"),
    ("signs", "sign_accuracy", "{:.1%}"),
    ("held-out loss", "eval_loss", "{:.4f}"),
    ("accuracy", "eval_accuracy", "{:.1%}"),
    ("grad", "grad_norm", "{:.2f}"),
    ("rate", "learning_rate", "{:.1e}"),
)


def format_line(logs: dict[str, float]) -> str:
    """One line for the console from a log's metrics; what was not measured is left out."""
    return "  ".join(f"{label} {form.format(float(logs[key]))}" for label, key, form in LINE if key in logs)


def _step_of(line: str) -> int:
    """The step of a line; -1 for one cut short by a kill, whose step is played again."""
    try:
        return int(json.loads(line).get("step", -1))
    except (ValueError, AttributeError):
        return -1
