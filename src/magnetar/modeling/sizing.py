"""How much memory and time a run takes, from the shape of its model and constants that were measured.

Everything here is arithmetic on numbers: nothing is loaded. `benchmarks/sizing.py` measures the constants, checks what
is predicted against real runs, and writes `docs/scaling.md`.
"""

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["Constants", "Device", "Job", "Memory", "ModelShape", "Seconds", "measured_constants", "memory", "seconds"]


@dataclass(frozen=True)
class ModelShape:
    """A decoder as its configuration gives it.

    Attributes:
        layers: Number of decoder layers.
        hidden: Width of hidden states.
        intermediate: Width inside of a gated feed-forward layer.
        heads: Query heads.
        key_value_heads: Key and value heads.
        head_dim: Width of a head.
        vocabulary: Number of tokens.
        tied: Whether the output layer is the embedding.
        attention_bias: Whether query, key and value have biases.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    attention_bias: bool = False

    @classmethod
    def from_config(cls, config: Any) -> "ModelShape":
        """Read a transformers configuration of the Llama kind.

        Args:
            config: Of a decoder with gated feed-forward layers.

        Raises:
            AttributeError: It is of another kind, and lacks one of the widths.
        """
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            heads=heads,
            key_value_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            vocabulary=text.vocab_size,
            tied=bool(text.tie_word_embeddings),
            attention_bias=bool(getattr(text, "attention_bias", False)) or text.model_type == "qwen2",
        )

    @property
    def linear_widths(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the linear maps of a layer: q, k, v, o, gate, up, down."""
        query, key = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        attention = ((self.hidden, query), (self.hidden, key), (self.hidden, key), (query, self.hidden))
        wide, back = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        return (*attention, wide, wide, back)

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer, its two norms included."""
        query, key = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        biases = query + 2 * key if self.attention_bias else 0
        return sum(a * b for a, b in self.linear_widths) + 2 * self.hidden + biases

    @property
    def parameters(self) -> int:
        """All weights."""
        ends = self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden
        return self.layers * self.layer_parameters + ends

    def adapter_parameters(self, rank: int) -> int:
        """Weights of a LoRA adapter on all linear maps of all layers."""
        return self.layers * rank * sum(a + b for a, b in self.linear_widths)


@dataclass(frozen=True)
class Job:
    """What is run, on each device.

    Attributes:
        shape: Of the policy.
        lora_rank: Of the adapters; None trains all weights.
        frozen_roles: Frozen sets of weights beside the policy: in full fine-tuning copies of the model (the reference
            is one), with LoRA adapters (the reference is the base and is none).
        weight_bytes: Of a weight that is not trained: 2 for bfloat16, 4 for float32.
        compute_bytes: Of a number in a pass.
        trained_bytes: Of a trained weight between passes; its gradient and each average of Adam take the same.
        prompts: Prompts of a device in an update.
        group_size: Responses to each.
        prompt_tokens: Of a prompt.
        response_tokens: Of a response, at most.
        tokens_per_pass: Budget of one pass, `max_tokens_per_pass`.
        responses_at_once: Responses generated at a time, `max_responses_per_pass`; None for all.
        devices: That share the work.
        sharded: Whether they share the weights too (FSDP2 or ZeRO-3).
        checkpointing: Whether activations are computed again in the backward pass.
        exact_kl: Number of frozen roles with whose distributions the objective compares whole ones.
        critic: Whether a critic of the policy's size learns beside it, sharded where the policy is.
        chunk_logits: Logits that a pass holds at a time; None for those of all its response tokens.
        engine: "transformers", or "vllm" for a second copy of the weights beside the trained one.
        vllm_devices: Devices over which vLLM spreads its copy.
    """

    shape: ModelShape
    lora_rank: int | None = None
    frozen_roles: int = 2
    weight_bytes: int = 2
    compute_bytes: int = 2
    trained_bytes: int = 4
    prompts: int = 4
    group_size: int = 4
    prompt_tokens: int = 128
    response_tokens: int = 256
    tokens_per_pass: int = 4096
    responses_at_once: int | None = None
    devices: int = 1
    sharded: bool = False
    checkpointing: bool = False
    exact_kl: int = 0
    critic: bool = False
    chunk_logits: int | None = 2**25
    engine: str = "transformers"
    vllm_devices: int = 1

    @property
    def trained(self) -> int:
        """Number of trained weights."""
        return self.shape.parameters if self.lora_rank is None else self.shape.adapter_parameters(self.lora_rank)

    @property
    def row_tokens(self) -> int:
        """Tokens of a packed group: a prompt and all its responses."""
        return self.prompt_tokens + self.group_size * self.response_tokens

    @property
    def groups_per_pass(self) -> int:
        """Groups that a pass takes; one is never split."""
        return max(1, min(self.prompts, self.tokens_per_pass // self.row_tokens))

    @property
    def passes(self) -> int:
        """Passes over an update's groups."""
        return -(-self.prompts // self.groups_per_pass)

    @property
    def cached_responses(self) -> int:
        """Responses whose keys and values are kept at the same time."""
        everything = self.prompts * self.group_size
        if self.responses_at_once is None:
            return everything
        return min(everything, max(self.group_size, self.responses_at_once))


@dataclass(frozen=True)
class Constants:
    """What was measured; `benchmarks/sizing.py --measure` writes it.

    Attributes:
        full_hidden: Numbers kept for the backward pass for each token of a layer, in units of the hidden width.
        full_intermediate: The same in units of the intermediate width.
        full_row: The same in units of the tokens of a row.
        lora_hidden: As ``full_hidden``, with frozen weights beneath adapters.
        lora_intermediate: As ``full_intermediate``.
        lora_row: As ``full_row``.
        lora_rank: In units of the rank of the adapters.
        checkpoint_hidden: As ``full_hidden``, when activations are computed again.
        vocabulary_copies: Float32 numbers for each logit of a pass that holds those of all its response tokens, at its
            peak, when the probabilities of the sampled tokens alone are needed.
        exact_kl_copies: The same for a pass that compares whole distributions with another role's.
        chunk_copies: As ``vocabulary_copies``, of a pass that holds the logits of a few tokens at a time.
        chunk_exact_kl_copies: As ``exact_kl_copies``, of such a pass.
        head_gradient_copies: Float32 numbers for each weight of an output layer that learns, which such a pass needs to
            add up its gradient over chunks, the gradient itself left out.
        process_bytes: Of a process before anything is loaded.
    """

    full_hidden: float
    full_intermediate: float
    full_row: float
    lora_hidden: float
    lora_intermediate: float
    lora_row: float
    lora_rank: float
    checkpoint_hidden: float
    vocabulary_copies: float
    exact_kl_copies: float
    chunk_copies: float
    chunk_exact_kl_copies: float
    head_gradient_copies: float
    process_bytes: float


@cache
def measured_constants() -> Constants:
    """The constants that come with the package."""
    values = json.loads(files("magnetar.modeling").joinpath("sizing_constants.json").read_text(encoding="utf-8"))
    return Constants(**{field.name: float(values[field.name]) for field in fields(Constants)})


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        lasting: What is there all the time, by name.
        rollout: What generation adds.
        update: What a training pass adds.
    """

    lasting: dict[str, float]
    rollout: dict[str, float]
    update: dict[str, float]

    @property
    def peak(self) -> float:
        """The most that is there at any time."""
        return sum(self.lasting.values()) + max(sum(self.rollout.values()), sum(self.update.values()))

    @property
    def largest(self) -> str:
        """The name of the largest part of a device at the peak; the process itself is in main memory."""
        busy = max(self.rollout, self.update, key=lambda phase: sum(phase.values()))
        everything = {name: value for name, value in (self.lasting | busy).items() if name != "process"}
        return max(everything, key=lambda name: everything[name])


def activation_numbers(job: Job, constants: Constants) -> float:
    """Numbers that a token of a layer keeps for the backward pass."""
    shape = job.shape
    if job.lora_rank is None:
        hidden, intermediate, row = constants.full_hidden, constants.full_intermediate, constants.full_row
    else:
        hidden, intermediate, row = constants.lora_hidden, constants.lora_intermediate, constants.lora_row
    numbers = hidden * shape.hidden + intermediate * shape.intermediate + row * job.row_tokens
    return numbers + (constants.lora_rank * job.lora_rank if job.lora_rank is not None else 0.0)


def memory(job: Job, constants: Constants | None = None) -> Memory:
    """Predict the memory of one device.

    A trained weight costs itself, its gradient and the two averages of Adam. Beneath adapters the base is one for all
    roles. Where weights are sharded, a layer is gathered for a pass, and all of them for a generation.

    Args:
        job: What is run.
        constants: Other than the measured ones.

    Returns:
        Bytes by part.
    """
    c = constants or measured_constants()
    shape, share = job.shape, 1.0 / job.devices if job.sharded else 1.0
    full = job.lora_rank is None
    lasting = {
        "process": c.process_bytes,
        "policy": (shape.parameters * (job.trained_bytes if full else job.weight_bytes)) * share,
        "frozen roles": job.frozen_roles * job.trained * job.trained_bytes * share,
        "optimizer": job.trained * 2.0 * job.trained_bytes * share,
    }
    if job.critic:  # in shards it has frozen weights of its own beneath its adapter, else those of the policy
        base = 0.0 if full or not job.sharded else shape.parameters * float(job.weight_bytes)
        lasting["critic"] = (job.trained * 4.0 * job.trained_bytes + base) * share
    if not full:
        lasting["adapter"] = job.trained * job.trained_bytes * share
    if job.engine == "vllm":
        lasting["vLLM's weights"] = shape.parameters * job.compute_bytes / job.vllm_devices
    cache_bytes = 2.0 * shape.layers * shape.key_value_heads * shape.head_dim * job.compute_bytes
    length = job.prompt_tokens + job.response_tokens
    rollout = {"key-value cache": cache_bytes * job.cached_responses * length}
    rollout["logits of generation"] = 4.0 * job.cached_responses * shape.vocabulary
    gathers = job.sharded and job.engine == "transformers"
    if gathers:
        rollout["gathered weights"] = shape.parameters * float(job.compute_bytes)
    update = _update_parts(job, c)
    gradients = job.trained * job.trained_bytes * share
    # In a single pass, activations go as gradients come; with several, gradients are there from the first on.
    update["gradients"] = gradients if job.passes > 1 else max(0.0, gradients - sum(update.values()))
    if job.sharded:
        output_layer = float(shape.vocabulary * shape.hidden)
        # A frozen copy's own output layer is gathered for exact divergences; adapters share that of the base.
        compared = job.exact_kl * output_layer if full and job.chunk_logits is not None else 0.0
        update["gathered weights"] = (2.0 * max(shape.layer_parameters, output_layer) + compared) * job.compute_bytes
    return Memory(lasting, rollout, update)


def _update_parts(job: Job, c: Constants) -> dict[str, float]:
    """What a training pass keeps for its backward pass, in bytes."""
    shape, models = job.shape, 2.0 if job.critic else 1.0
    tokens = job.groups_per_pass * job.row_tokens
    one_layer = tokens * activation_numbers(job, c) * job.compute_bytes
    kept = models * tokens * c.checkpoint_hidden * shape.hidden * shape.layers * job.compute_bytes
    parts = {"activations": kept + one_layer if job.checkpointing else models * one_layer * shape.layers}
    stored = job.trained_bytes if job.lora_rank is None else job.weight_bytes
    if not job.sharded and job.compute_bytes < stored:  # shards are gathered in the precision of passes
        parts["weights in passes' precision"] = models * shape.parameters * float(job.compute_bytes)
    return parts | {"vocabulary": _vocabulary_bytes(job, c)}


def _vocabulary_bytes(job: Job, c: Constants) -> float:
    """What reading log-probabilities off the vocabulary takes in a training pass."""
    shape = job.shape
    responses = job.groups_per_pass * job.group_size * job.response_tokens
    logits = float(responses * shape.vocabulary)
    if job.chunk_logits is None:
        return (c.exact_kl_copies if job.exact_kl else c.vocabulary_copies) * 4.0 * logits
    at_once = min(logits, max(float(job.chunk_logits), float(shape.vocabulary)))
    chunk = (c.chunk_exact_kl_copies if job.exact_kl else c.chunk_copies) * 4.0 * at_once
    states = responses * shape.hidden * job.compute_bytes
    if job.lora_rank is not None:  # for each number that is asked of a token, its slope by the hidden state
        return chunk + (1.0 + job.exact_kl) * states
    return chunk + 2.0 * states + c.head_gradient_copies * 4.0 * shape.vocabulary * shape.hidden


@dataclass(frozen=True)
class Device:
    """What a device can do, as its vendor says, and how much of that is taken to be reached.

    Attributes:
        name: For tables.
        memory_bytes: Of its own.
        flops: Multiplications and additions a second, dense bfloat16.
        memory_bandwidth: Bytes a second from its own memory.
        link_bandwidth: Bytes a second from other devices of the node.
        node_bandwidth: Bytes a second from other nodes, for each device.
        compute_share: Of ``flops``, reached in training passes.
        memory_share: Of ``memory_bandwidth``, reached in generation.
        link_share: Of both bandwidths between devices.
    """

    name: str
    memory_bytes: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    node_bandwidth: float
    compute_share: float = 0.4
    memory_share: float = 0.6
    link_share: float = 0.7


@dataclass(frozen=True)
class Seconds:
    """Time of one update by stage, judge left out.

    Attributes:
        rollout: Generation.
        frozen: Log-probabilities under the frozen roles.
        update: Forward and backward passes and the optimiser.
    """

    rollout: float
    frozen: float
    update: float

    @property
    def total(self) -> float:
        """All stages."""
        return self.rollout + self.frozen + self.update


def seconds(job: Job, device: Device, *, frozen_passes: int, nodes: int = 1) -> Seconds:
    """Predict the time of one update.

    A weight costs 2 floating-point operations a token forward, and 4 backward (2 beneath adapters, whose own are few).
    Generation reads all weights and the cache for each token of all responses; sharded weights are gathered once
    before, and for each pass.

    Args:
        job: What is run.
        device: Where.
        frozen_passes: Roles whose log-probabilities are computed: 0 to 2.
        nodes: Over which the devices are spread.

    Returns:
        Seconds by stage.
    """
    shape = job.shape
    tokens = job.prompts * job.row_tokens
    compute = device.flops * device.compute_share
    attention = 4.0 * shape.layers * shape.heads * shape.head_dim * job.row_tokens  # scores and values, per token
    forward = tokens * (2.0 * shape.parameters + attention) / compute
    backward = forward * (2.0 if job.lora_rank is None else 1.0) + (forward if job.checkpointing else 0.0)
    read = shape.parameters * float(job.compute_bytes) / (job.vllm_devices if job.engine == "vllm" else 1)
    cached = 2.0 * shape.layers * shape.key_value_heads * shape.head_dim * job.compute_bytes
    batches = -(-job.prompts * job.group_size // job.cached_responses)
    length = job.prompt_tokens + job.response_tokens / 2.0
    step = (read + cached * job.cached_responses * length) / (device.memory_bandwidth * device.memory_share)
    step = max(step, job.cached_responses * 2.0 * shape.parameters / compute)
    rollout = batches * job.response_tokens * step
    gather = 0.0
    if job.sharded:
        link = (device.link_bandwidth if nodes == 1 else device.node_bandwidth) * device.link_share
        gather = shape.parameters * job.compute_bytes * (1.0 - 1.0 / job.devices) / link
    if job.engine == "transformers":
        rollout += gather
    exchanged = 3.0 if job.lora_rank is None else 2.0  # gathered forward and backward; gradients of all weights
    return Seconds(
        rollout=rollout,
        frozen=frozen_passes * max(forward, job.passes * gather),
        update=max(forward + backward, job.passes * exchanged * gather),
    )
