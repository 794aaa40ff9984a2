"""Which steps ``--only``, ``--skip`` and ``--from`` leave out."""

from collections.abc import Sequence

from magnetar.errors import ConfigError, unknown_name
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import STAGES

__all__ = ["skipped_steps"]


def skipped_steps(
    steps: Sequence[Step], only: Sequence[str] | None, skip: Sequence[str] | None, start: str | None
) -> frozenset[str]:
    """Names of steps that are not to run.

    Args:
        steps: All of them.
        only: Stages, or steps, or the beginnings of their names up to a slash; None for all.
        skip: Likewise.
        start: Stage before which nothing runs.

    Raises:
        ConfigError: A name that no step has, with the nearest one; or nothing is left to run.
    """
    left_out: set[str] = set()
    if only:
        chosen = {name for pattern in only for name in _matching(steps, pattern, "--only")}
        left_out |= {step.name for step in steps} - chosen
    for pattern in skip or ():
        left_out |= _matching(steps, pattern, "--skip")
    if start is not None:
        first = min(STAGES.index(_stage(steps, name)) for name in _matching(steps, start, "--from"))
        left_out |= {step.name for step in steps if STAGES.index(step.stage) < first}
    if len(left_out) == len(steps):
        raise ConfigError("--only, --skip and --from together leave nothing to run; give fewer of them")
    return frozenset(left_out)


def _matching(steps: Sequence[Step], pattern: str, option: str) -> set[str]:
    wanted = pattern.rstrip("/")
    found = {step.name for step in steps if step.name == wanted or step.name.startswith(f"{wanted}/")}
    if not found:
        parts = [step.name.split("/") for step in steps]
        known = {"/".join(names[:depth]) for names in parts for depth in range(1, len(names) + 1)}
        raise ConfigError(f"{option}: {unknown_name('stage or step', pattern, known)}")
    return found


def _stage(steps: Sequence[Step], name: str) -> str:
    return next(step.stage for step in steps if step.name == name)
