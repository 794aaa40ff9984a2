"""Stage `attack`: adversarial prompts, measured as `magnetar eval --config` does with the key ``attacks``."""

from typing import Any

from magnetar.cli.pipeline.stages.evaluate import run_suite, suite_step
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Step

__all__ = ["run", "steps"]

FIXED = {"matchups": "none", "length_control": False}
"""What the stage `evaluate` is there for."""


def steps(work: Work) -> list[Step]:
    """The one step of the stage."""
    if not work.config.stages["attack"].get("attacks"):
        raise ConfigError("attack: attacks is missing; name some, such as 'role_play,base64', or 'all'")
    return [suite_step(work, "attack", "attack", work.config.stages["attack"], FIXED)]


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """Attack, and write the section ``attacks`` of a ``suite.json`` of its own."""
    del resume  # answers are kept in any case
    return run_suite(step, work)
