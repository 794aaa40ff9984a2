"""How vLLM is run or reached."""

from dataclasses import dataclass

__all__ = ["WORKER_EXTENSION", "ColocatedSettings", "ServerSettings", "server_command"]

WORKER_EXTENSION = "magnetar.rollout.vllm.worker.WeightSync"


@dataclass(frozen=True)
class ColocatedSettings:
    """vLLM in the trainer's process.

    Attributes:
        max_model_len: Most tokens of a prompt and its response together.
        dtype: Precision of vLLM's weights: float32, bfloat16 or float16.
        gpu_memory_utilization: Share of the device's memory for weights and caches, in (0, 1].
        tensor_parallel_size: Devices of one engine.
        enforce_eager: Neither compile nor capture graphs: a faster start, slower tokens.
        enable_sleep_mode: Give the GPU's memory to the trainer between rollouts.
        max_num_seqs: Responses generated at a time; None for vLLM's own limit.
        block_size: Tokens of a block of the cache; what a group shares is encoded once in whole blocks. None for
            vLLM's own.
        sync_folder: Where weights are laid down for workers in processes of their own.
        world_size: Processes of the trainer, each with an engine of its own.
        rank: Which of them this one is.
        local_rank: Which device of its machine it uses.
    """

    max_model_len: int
    dtype: str
    gpu_memory_utilization: float = 0.3
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    enable_sleep_mode: bool = False
    max_num_seqs: int | None = None
    block_size: int | None = None
    sync_folder: str = "/dev/shm"
    world_size: int = 1
    rank: int = 0
    local_rank: int = 0

    @property
    def executor(self) -> str:
        """How vLLM runs its workers: here, in the trainer's processes, or in processes of its own."""
        if self.world_size > 1:
            return "external_launcher"
        return "uni" if self.tensor_parallel_size == 1 else "mp"


@dataclass(frozen=True)
class ServerSettings:
    """A vLLM server that somebody started.

    Attributes:
        base_url: Where it listens, without a path.
        timeout_seconds: How long to wait for it at the start, and for each answer.
        sync_folder: A folder that trainer and server both see, through which weights go.
        world_size: Processes of the trainer, which share the server.
        rank: Which of them this one is; the first sends the weights.
    """

    base_url: str = "http://localhost:8000"
    timeout_seconds: float = 240.0
    sync_folder: str = "/dev/shm"
    world_size: int = 1
    rank: int = 0


def server_command(model: str, *, logprobs_mode: str = "processed_logprobs") -> str:
    """The command that starts a server which `ServerBackend` can use.

    Args:
        model: Hub id or folder of the model that is trained.
        logprobs_mode: Which log-probabilities it returns.
    """
    return (
        f"VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model {model} "
        f"--worker-extension-cls {WORKER_EXTENSION} --logprobs-mode {logprobs_mode}"
    )
