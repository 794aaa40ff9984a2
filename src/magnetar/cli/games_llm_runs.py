"""The runs of `magnetar games llm`: settings of each method, and finished runs kept in a folder."""

import hashlib
import inspect
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import magnetar
from magnetar.cli.games.cell_files import atomic_file
from magnetar.errors import ConfigError, unknown_name
from magnetar.methods import METHODS, PUBLISHED_NAMES, build_method

__all__ = ["DEFAULT_METHODS", "FinishedRun", "RunFolder", "RunPlan", "choose_methods", "settings_of"]

DEFAULT_METHODS = ("mirror_descent", "mmd", "mpo")

# What a method has of these it is given: one magnet strength and one step size for all, so that differences between
# curves are the methods'.
COMMON: dict[str, Any] = {"step_size": 2.0, "magnet_strength": 0.1, "magnet_every": 10, "kl_coef": 1.0}
# With every response listed, the best and the worst of a group would be the same two responses for ever.
ALL_PAIRS = {"pairs": "all", "hard_labels": False}
PARTICULAR: dict[str, dict[str, Any]] = {
    "online_dpo": ALL_PAIRS,
    "iterative_dpo": {**ALL_PAIRS, "num_rounds": 5},
    "ppo": {"critic_learning_rate": 1e-3},  # the policy's: the preset is for a pretrained model
}


def settings_of(method: str) -> dict[str, Any]:
    """Settings of a method on the enumerable model: the common ones that it has, and its own.

    Args:
        method: A key of `METHODS`.

    Returns:
        Fields of `NashConfig` beside the method.
    """
    accepted = inspect.signature(METHODS[method]).parameters
    return {name: value for name, value in COMMON.items() if name in accepted} | PARTICULAR.get(method, {})


def choose_methods(text: str) -> tuple[str, ...]:
    """Read ``NAME,NAME`` or ``all``.

    Raises:
        ConfigError: An unknown name, a method that language models cannot be trained with, or one named twice.
    """
    trainable = [name for name, make in METHODS.items() if make().games_only_because is None]
    if text == "all":
        return tuple(trainable)
    names = [PUBLISHED_NAMES.get(name.strip(), name.strip()) for name in text.split(",")]
    for name in names:
        if name not in METHODS:
            raise ConfigError(unknown_name("method", name, [*METHODS, *PUBLISHED_NAMES, "all"]))
        reason = METHODS[name]().games_only_because
        if reason is not None:
            raise ConfigError(
                f"method {name!r} runs on exact games only: {reason}; expected some of {', '.join(trainable)}, or all"
            )
        if names.count(name) > 1:
            raise ConfigError(f"methods names {name!r} {names.count(name)} times; name each method once")
    return tuple(names)


@dataclass(frozen=True)
class RunPlan:
    """One run that is to be done.

    Attributes:
        method: A key of `METHODS`.
        updates: At least 1.
        seed: Of the model's weights and of the sampling.
        sampled: Whether responses are sampled instead of listed.
        inner_epochs: Optimiser steps on each batch.
    """

    method: str
    updates: int
    seed: int
    sampled: bool
    inner_epochs: int = 8

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the run's result."""
        return {**asdict(self), "settings": settings_of(self.method), "version": magnetar.__version__}

    @property
    def file_name(self) -> str:
        """Another identity has another name."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.method}--{digest}.json"

    def run(self) -> "FinishedRun":
        """Train the enumerable model, and compare it with the matrix game and with where the method should stop."""
        from magnetar import games
        from magnetar.evaluation.enumerable import EnumerableGame
        from magnetar.evaluation.enumerable_limits import limit_of
        from magnetar.training.enumerable import run_enumerable

        game, settings = EnumerableGame.build(), settings_of(self.method)
        started = time.perf_counter()
        trace = run_enumerable(
            game,
            updates=self.updates,
            seed=self.seed,
            sampled=self.sampled,
            inner_epochs=self.inner_epochs,
            method=self.method,
            **settings,
        )
        seconds = time.perf_counter() - started
        accepted = inspect.signature(METHODS[self.method]).parameters
        method = build_method(self.method, **{name: v for name, v in settings.items() if name in accepted})
        start = trace.policies[0]
        exact = games.run(method, game.game, self.updates, initial=start, reference=start, magnet=start)
        limit = limit_of(method, game.game, game.responses, start, trace.score_A)
        limit_gap = kl = None
        if limit is not None:
            limit_gap = game.game.duality_gap(limit)
            kl = float(trace.policy @ np.log(trace.policy / limit))
        return FinishedRun(
            duality_gap=trace.duality_gap.tolist(),
            average_gap=trace.average_gap.tolist(),
            matrix_gap=exact.duality_gap.tolist(),
            magnet_moves=list(trace.magnet_moves),
            limit_gap=limit_gap,
            kl_to_limit=kl,
            seconds=seconds,
        )


@dataclass(frozen=True)
class FinishedRun:
    """What a run gave.

    Attributes:
        duality_gap: Before training and after each update.
        average_gap: Of the average of the policies so far.
        matrix_gap: Of the last iterate of the same method on the same game as a matrix, from the same policy.
        magnet_moves: Updates after which the magnet was copied.
        limit_gap: Exact gap of the policy at which the method stands still; None without a fixed reference.
        kl_to_limit: KL(last policy‖that policy), nats; None likewise.
        seconds: Training took.
    """

    duality_gap: list[float]
    average_gap: list[float]
    matrix_gap: list[float]
    magnet_moves: list[int]
    limit_gap: float | None
    kl_to_limit: float | None
    seconds: float

    def last_fifth(self, values: Sequence[float] | None = None) -> tuple[float, float]:
        """Lowest and highest gap in the last fifth of the updates."""
        tail = np.array(self.duality_gap if values is None else values)[-max(1, (len(self.duality_gap) - 1) // 5) :]
        return float(tail.min()), float(tail.max())


class RunFolder:
    """A folder in which a finished run is one file, so that repeating a command does what is missing.

    Args:
        path: Created if it does not exist.

    Raises:
        ConfigError: It is a file or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file, expected a folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {self.path} cannot be written ({error}); choose another folder") from error
        if not os.access(self.path, os.W_OK):
            raise ConfigError(f"--out {self.path} is not writable; choose another folder")

    def load(self, plan: RunPlan) -> FinishedRun | None:
        """The finished run of a plan; None if there is none.

        Raises:
            ConfigError: Its file is damaged.
        """
        file = self.path / plan.file_name
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            run = FinishedRun(**found["run"])
            complete = found["identity"] == plan.identity and len(run.duality_gap) == plan.updates + 1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file} is damaged ({type(error).__name__}: {error}); delete it to run again") from error
        if not complete:
            raise ConfigError(f"{file} holds another run than its name says; delete it to run again")
        return run

    def save(self, plan: RunPlan, run: FinishedRun) -> None:
        """Keep a finished run; the file appears whole or not at all."""
        with atomic_file(self.path / plan.file_name) as file:
            json.dump({"identity": plan.identity, "run": asdict(run)}, file)
