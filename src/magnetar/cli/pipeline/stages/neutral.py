"""Settings of the stages that train, which change nothing of what they make."""

from magnetar.cli.comparison.plan import NEUTRAL as OF_RUNS

__all__ = ["CHECKPOINTS", "NEUTRAL"]

NEUTRAL = frozenset(
    OF_RUNS | {"output_dir", "report", "overwrite_output_dir", "resume_from_checkpoint", "dataset_num_proc"}
)
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 0.2, "save_total_limit": 1}
"""A fifth of a run is the most that a kill costs, unless the settings say otherwise."""
