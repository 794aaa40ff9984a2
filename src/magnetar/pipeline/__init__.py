"""What a pipeline is made of: stages, what they depend on, and how to tell that nothing has changed.

Nothing here knows what a stage does; `magnetar.cli.pipeline` does.
"""

from magnetar.pipeline.manifest import MANIFEST_FILE, Manifest, OutputFile, read_manifest, write_manifest
from magnetar.pipeline.plan import Step, StepState, plan_states
from magnetar.pipeline.references import Reference, parse_reference

__all__ = [
    "MANIFEST_FILE",
    "Manifest",
    "OutputFile",
    "Reference",
    "Step",
    "StepState",
    "parse_reference",
    "plan_states",
    "read_manifest",
    "write_manifest",
]
