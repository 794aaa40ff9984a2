"""Which frozen roles a method needs, before there is a model."""

from magnetar.methods import Method
from magnetar.types import Role

__all__ = ["needed_roles"]


def needed_roles(method: Method, inner_epochs: int = 1) -> tuple[Role, ...]:
    """The frozen roles that a run has: the reference always, for metrics and evaluation are against it.

    Args:
        method: What is trained.
        inner_epochs: Optimiser steps on each batch.

    Returns:
        In the order in which the trainer adds them.
    """
    objective = method.sampled_objective
    roles: list[Role] = ["reference"]
    if objective.needs_magnet:
        roles.append("magnet")
    predicts: dict[str, tuple[Role, ...]] = {"optimistic": ("previous",), "extragradient": ("behavior", "lookahead")}
    roles += predicts.get(method.prediction, ())
    steps = inner_epochs * (2 if method.prediction == "extragradient" else 1)
    keeps_behavior = objective.needs_behavior_distribution and steps > 1
    if (keeps_behavior or method.sample_from != "current") and "behavior" not in roles:
        roles.append("behavior")
    return tuple(roles)
