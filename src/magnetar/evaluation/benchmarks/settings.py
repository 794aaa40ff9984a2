"""What is measured by general benchmarks, checked before a model is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnetar.errors import ConfigError, checked_integer

__all__ = ["BenchmarkSettings"]


@dataclass(frozen=True)
class BenchmarkSettings:
    """Tasks of the LM Evaluation Harness, and how they are put to a model.

    Attributes:
        tasks: Names of tasks, groups or tags, patterns such as ``arc_*``, or YAML files of tasks; at least one.
        include_path: Folder with tasks of your own; they win over the harness's of the same name.
        shots: Solved examples before each item, at least 0; None for what each task says.
        limit: Items of each task: a number of at least 1, or their share below 1; None for all. For trying out.
        chat_template: Put items as chat turns through the model's template.
        system: Instruction in the system's turn; None for none.
        batch_size: Items at a time.
        seed: Of the choice of examples, and of sampling.
        bootstrap: Resamples for standard errors of metrics that are no means.
        unsafe_code: Run tasks that execute what the model writes, on this machine.

    Raises:
        ConfigError: A value that cannot be.
    """

    tasks: tuple[str, ...]
    include_path: str | None = None
    shots: int | None = None
    limit: float | None = None
    chat_template: bool = False
    system: str | None = None
    batch_size: int = 8
    seed: int = 0
    bootstrap: int = 1000
    unsafe_code: bool = False

    def __post_init__(self) -> None:
        """Check everything that needs no package."""
        if not self.tasks or not all(self.tasks):
            raise ConfigError(f"tasks is {self.tasks!r}, expected at least one name, such as 'arc_easy'")
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise ConfigError(f"include_path {self.include_path!r} is no folder, expected one with YAML files of tasks")
        if self.shots is not None:
            checked_integer("shots", self.shots, 0)
        if self.limit is not None and not (0 < self.limit < 1 or (self.limit >= 1 and float(self.limit).is_integer())):
            raise ConfigError(f"limit is {self.limit}, expected a number of items of at least 1, or a share below 1")
        if self.system is not None and not self.chat_template:
            raise ConfigError("system is set, but without chat_template there is no system's turn; set both")
        checked_integer("batch_size", self.batch_size, 1)
        checked_integer("seed", self.seed, 0)
        checked_integer("bootstrap", self.bootstrap, 0)

    def of_record(self) -> dict[str, Any]:
        """What tells two figures of the same task apart, besides the policy."""
        return {
            "limit": self.limit,
            "chat_template": self.chat_template,
            "system": self.system,
            "seed": self.seed,
        }
