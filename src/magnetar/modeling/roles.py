"""The parts a policy plays: one set of weights for each role, and how weights move between them.

With PEFT every role is an adapter on one shared base, so that policy, magnet and reference cost one base model. In full
fine-tuning the roles that do not train are frozen copies.
"""

from peft import PeftModel
from torch import nn

from magnetar.modeling.roles_adapters import AdapterRoles
from magnetar.modeling.roles_base import Roles
from magnetar.modeling.roles_copies import FrozenCopyRoles

__all__ = ["AdapterRoles", "FrozenCopyRoles", "Roles", "make_roles"]


def make_roles(model: nn.Module, *, keep_on_cpu: bool = False, will_be_sharded: bool = False) -> Roles:
    """Choose how the roles are kept: adapters for a PEFT model, frozen copies for any other.

    Args:
        model: The model to train, not yet wrapped for distributed training.
        keep_on_cpu: Keep frozen copies in main memory; without effect on adapters, which share the base.
        will_be_sharded: Make frozen copies only when the policy has been sharded, so that no process holds whole ones.

    Raises:
        ModelError: The PEFT model cannot have several adapters side by side, or one bears a role's name.
    """
    if isinstance(model, PeftModel):
        return AdapterRoles(model)
    return FrozenCopyRoles(model, keep_on_cpu=keep_on_cpu, will_be_sharded=will_be_sharded)
