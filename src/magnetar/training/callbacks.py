"""Callbacks of the trainer: files of the run, the console, and stopping on a signal."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from magnetar.data import prompt_text

if TYPE_CHECKING:
    from magnetar.training.trainer import NashTrainer

__all__ = ["ConsoleCallback", "RunFilesCallback", "StopSignals", "TrainingInterrupted"]


class TrainingInterrupted(KeyboardInterrupt):
    """Training stopped on a signal after a checkpoint was written.

    Attributes:
        signal_number: The signal.
        checkpoint: Where to resume from.
    """

    def __init__(self, signal_number: int, checkpoint: Path) -> None:
        self.signal_number = signal_number
        self.checkpoint = checkpoint
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}; everything is saved in {checkpoint}. Resume with the "
            f"same settings and resume_from_checkpoint={checkpoint}"
        )


class StopSignals(TrainerCallback):
    """Turns the first SIGINT or SIGTERM into "save after this step and stop"; a second one stops at once.

    Processes agree on the step, since a signal reaches them at different moments.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.received: int | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the block; outside the main thread, where Python forbids it, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.received = None
        previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt("second signal: stopped at once, without saving")
        self.received = number
        print(
            f"\n{signal.Signals(number).name}: finishing this step, then saving; send it again to stop at once",
            file=sys.stderr,
            flush=True,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ask for a checkpoint and the end of training when any process has received a signal."""
        flag = torch.tensor(float(self.received or 0), device=self._accelerator.device)
        if self._accelerator.num_processes > 1:
            flag = cast(torch.Tensor, self._accelerator.gather(flag)).max()
        if float(flag) > 0:
            self.received = int(flag)
            control.should_save = True
            control.should_training_stop = True
        # A checkpoint between two log lines would lose the metrics of the steps since the first.
        control.should_log = control.should_log or control.should_save


class RunFilesCallback(TrainerCallback):
    """Writes `magnetar_config.json`, `metrics.jsonl` and `samples.jsonl` into the output folder, line by line."""

    def __init__(self, trainer: "NashTrainer") -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the settings; a resumed run keeps the lines up to its checkpoint and drops the later ones."""
        if not state.is_world_process_zero:
            return
        folder = self._folder(args)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.jsonl", "samples.jsonl"):
            _keep_lines_until(folder / name, state.global_step)
        (folder / "magnetar_config.json").write_text(
            json.dumps(self._trainer.run_settings(), indent=2) + "\n", encoding="utf-8"
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append one line of metrics per logged step."""
        if state.is_world_process_zero and logs and ("loss" in logs or any(k.startswith("eval_") for k in logs)):
            _append(self._folder(args) / "metrics.jsonl", {"step": state.global_step, **logs})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Append samples every ``sample_steps`` optimiser steps, and after the first."""
        every = self._trainer.settings.sample_steps
        if not state.is_world_process_zero or not every:
            return
        if state.global_step != 1 and state.global_step % every:
            return
        experience = self._trainer.last_experience
        payoff_BG = experience.payoff_BG
        for b in range(min(self._trainer.settings.num_samples, len(experience.prompts))):
            sample = {
                "step": state.global_step,
                "update": -(-state.global_step // self._trainer.plan.inner_epochs),
                "prompt": experience.prompts[b],
                "responses": experience.texts[b],
                "win_prob": [
                    round(float(q), 4) if w > 0 else None  # the judge answered nothing about this response
                    for q, w in zip(payoff_BG[b], experience.response_weight_BG[b], strict=True)
                ],
            }
            _append(self._folder(args) / "samples.jsonl", sample)
            if self._trainer.settings.print_samples:
                _print_sample(sample)

    @staticmethod
    def _folder(args: TrainingArguments) -> Path:
        return Path(cast(str, args.output_dir))


class ConsoleCallback(TrainerCallback):
    """A progress bar and one tidy line per logged step; subclasses word the line."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def line(self, step: int, logs: dict[str, float]) -> str | None:
        """What is written about a log; None for nothing."""
        if "loss" in logs:
            return format_line(logs)
        if "eval_win_rate" not in logs:
            return None
        low, high = (logs.get(f"eval_win_rate_{end}", float("nan")) for end in ("low", "high"))
        return f"step {step}: win rate against the reference {logs['eval_win_rate']:.3f} [{low:.3f}, {high:.3f}]"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar."""
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line above the bar."""
        line = self.line(state.global_step, logs) if logs else None
        if self._bar is not None and line is not None:
            self._bar.write(line)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


LINE = (
    ("reward", "reward", "{:.3f}"),
    ("spread", "payoff_std", "{:.3f}"),
    ("cycles", "cyclic_triples", "{:.1%}"),
    ("KL magnet", "kl_magnet", "{:.3f}"),
    ("ref", "kl_reference", "{:.3f}"),
    ("value error", "value_error", "{:.3f}"),
    ("entropy", "entropy", "{:.2f}"),
    ("length", "response_tokens", "{:.0f}"),
    ("cut", "truncated", "{:.0%}"),
    ("grad", "grad_norm", "{:.2f}"),
    ("tok/s", "tokens_per_second", "{:.0f}"),
)


def format_line(logs: dict[str, float]) -> str:
    """One line for the console from a step's metrics; what was not measured is left out."""
    # Scores have no cycles, and the magnet of a method that maximises them is the reference.
    beside = ("cyclic_triples", "kl_magnet") if "reward" in logs else ()
    shown = [(label, key, form) for label, key, form in LINE if key in logs and key not in beside]
    parts = [f"{label} {form.format(logs[key])}" for label, key, form in shown]
    moved = "  magnet moved" if logs.get("magnet_moved") else ""
    return f"update {logs['update']:>4}  " + "  ".join(parts) + moved


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _keep_lines_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut short by a kill: the step is played again
            continue
        if step and row.get("step", 0) <= step:
            kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")


def _print_sample(sample: dict[str, Any]) -> None:
    tqdm.write(f"--- step {sample['step']}: {prompt_text(sample['prompt'])}")
    for response, win_prob in zip(sample["responses"], sample["win_prob"], strict=True):
        tqdm.write(f"    {'   –' if win_prob is None else f'{win_prob:.2f}'}  {response.strip()}")
