"""A critic: a model of the policy's kind whose output layer gives one value for each state instead of logits.

Everything else is as in the policy: the same layouts of prompts and responses, and with an adapter the same frozen base
weights, of which there is one copy in memory.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from magnetar.errors import CheckpointError, ModelError
from magnetar.modeling.logprobs import response_outputs
from magnetar.modeling.packing import LayoutName
from magnetar.modeling.sharding import Sharding, WholeWeights, plain_name, whole_shape

__all__ = ["Critic", "make_critic"]

# Settings of models whose forward pass changes what the output layer gave, as if these were logits.
CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")


class ValueHead(nn.Module):
    """One number from a hidden state, in float32; zero until it learns, so that the first baseline is zero."""

    def __init__(self, hidden_size: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1, device=device, dtype=torch.promote_types(dtype, torch.float32))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values, shape (..., 1)."""
        with torch.autocast(hidden.device.type, enabled=False):  # mixed precision would round them to three digits
            return self.linear(hidden.to(self.linear.weight.dtype))


class Critic(nn.Module):
    """Values of the states in which response tokens are drawn."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self.sharding: Sharding = WholeWeights()

    def values(
        self,
        prompt_ids: Sequence[Sequence[int]],
        response_ids: Sequence[Sequence[Sequence[int]]],
        *,
        layout: LayoutName,
        pad_token_id: int,
    ) -> Tensor:
        """Value of the state before each response token.

        Args:
            prompt_ids: B prompts, at least one token each.
            response_ids: B groups of G responses.
            layout: As for log-probabilities.
            pad_token_id: Fills rows up.

        Returns:
            Shape (B, G, T), in units of the reward, differentiable; 0 at padding.
        """
        value_N1, rows = response_outputs(
            self.model, prompt_ids, response_ids, layout=layout, pad_token_id=pad_token_id
        )
        zeros = torch.zeros(rows.mask_BGT.shape, dtype=value_N1.dtype, device=value_N1.device)
        return zeros.masked_scatter(rows.mask_BGT, value_N1.squeeze(-1))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name; where weights are in shards, this process's share of each."""
        self.sharding.settle(self.model)
        return {plain_name(name): value for name, value in self.model.named_parameters() if value.requires_grad}

    def shard(self, sharding: Sharding, prepare: Callable[[nn.Module], nn.Module], device: torch.device) -> None:
        """Spread the weights over processes, in place; the value head, which is small, stays whole on every one.

        Args:
            sharding: That of the policy.
            prepare: Shards a model as the policy was sharded.
            device: Of this process.
        """
        base = cast(Any, self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model)
        head = base.get_output_embeddings()
        owner, _, last = next(name for name, module in base.named_modules() if module is head).rpartition(".")
        # Within the shards it would be gathered in the precision of passes, and values have more digits than that.
        setattr(base.get_submodule(owner), last, None)
        prepare(self.model)
        # It is zero until it learns, also where another process alone has read the weights.
        fresh = ValueHead(head.linear.in_features, device, head.linear.weight.dtype)
        setattr(base.get_submodule(owner), last, fresh)
        self.sharding = sharding

    @torch.no_grad()
    def save(self, path: Path, *, writes: bool = True) -> None:
        """Write what learns; the rest is the policy's base.

        Args:
            path: File to write.
            writes: False on a process that only takes part because weights are in shards.
        """
        whole = {}
        for name, value in self.trained().items():
            tensor = self.sharding.whole(value).detach()
            if writes:
                whole[name] = tensor.cpu().contiguous()
        if writes:
            safetensors.torch.save_file(whole, path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Inverse of `save`.

        Raises:
            CheckpointError: The file is missing, damaged, or of another critic.
        """
        try:
            saved = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path}, the critic, cannot be read ({error}); resume from an older checkpoint"
            ) from error
        own = self.trained()
        if own.keys() != saved.keys() or any(whole_shape(own[name]) != saved[name].shape for name in own):
            raise CheckpointError(
                f"{path} holds a critic of another model or adapter; resume with the settings that the run began with"
            )
        for name, parameter in own.items():
            self.sharding.fill(parameter, saved[name])


def make_critic(model: nn.Module) -> Critic:
    """A critic that starts as a copy of a policy with a value head of zeros in place of its output layer.

    The copy shares all weights that do not learn with the original: those beneath an adapter.

    Args:
        model: A causal language model or PEFT model, unwrapped, before roles are added to it.

    Returns:
        The critic; it learns what the policy learns, and the head.

    Raises:
        ModelError: The class of the model has no output layer that could be replaced, or changes what it gives.
    """
    base = cast(Any, model.get_base_model() if isinstance(model, PeftModel) else model)
    name = type(base).__name__
    instead = "use a method without a critic, such as 'rloo' or 'grpo', or name a critic_model of another class"
    config: Any = getattr(base, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if head is None or text_config is None or not hasattr(base, "set_output_embeddings"):
        raise ModelError(f"{name} has no output layer that a critic's value head could replace; {instead}")
    for setting in CHANGED_LOGITS:
        if getattr(text_config, setting, None) not in (None, 1, 1.0):
            raise ModelError(
                f"{name} rescales what its output layer gives ({setting}), which would bend values; {instead}"
            )
    frozen = [p for p in (*model.parameters(), *model.buffers()) if not p.requires_grad]
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    shared = {id(p): p for p in frozen if id(p) not in trained}
    critic = cast(Any, deepcopy(model, {**shared}))
    critic_base = cast(Any, critic.get_base_model() if isinstance(critic, PeftModel) else critic)
    critic_base.config.tie_word_embeddings = False  # its output layer is no embedding
    weight = next(base.parameters())
    # What the layer reads may be narrower than the hidden states (OPT-350m projects them first).
    width = int(getattr(head, "in_features", text_config.hidden_size))
    critic_base.set_output_embeddings(ValueHead(width, weight.device, weight.dtype))
    return Critic(critic)
