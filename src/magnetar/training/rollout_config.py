"""Settings of `NashConfig` that say which engine generates the responses, under TRL's names where it has them."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast, get_args

import torch

from magnetar.errors import ConfigError, unknown_name
from magnetar.modeling.decoding_weights import MergeChoice
from magnetar.rollout.base import SamplingParams

if TYPE_CHECKING:
    from magnetar.training.config import NashConfig

__all__ = ["VLLM_MODES", "RolloutFields", "setting"]

VLLM_MODES = ("colocate", "server")
DTYPES = ("auto", "float32", "bfloat16", "float16")
CORRECTIONS = ("auto", "off", "token", "sequence")
SHARED_MEMORY = "/dev/shm"
OF_SERVER = ("vllm_server_base_url", "vllm_server_timeout")
OF_COLOCATED = (
    "vllm_gpu_memory_utilization",
    "vllm_tensor_parallel_size",
    "vllm_max_model_length",
    "vllm_enable_sleep_mode",
    "vllm_enforce_eager",
    "vllm_dtype",
)


def setting(default: Any, text: str) -> Any:
    """A field whose help text the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass
class RolloutFields:
    """Fields of `NashConfig` about how responses are generated."""

    merge_for_rollouts: str = setting(
        "auto", "Merge adapters into copies of the weights while generating: auto (where they are small), on or off."
    )
    importance_correction: str = setting(
        "auto",
        "Correct for an engine whose probabilities differ from the trainer's: token (each token's gradient by its "
        "ratio), sequence (each response by its ratio), off; auto: token with vLLM, else off.",
    )
    importance_cap: float = setting(2.0, "Largest importance ratio of a token or a response.")
    use_vllm: bool = setting(False, "Generate with vLLM instead of transformers.")
    vllm_mode: str = setting("colocate", "colocate: vLLM in this process; server: one that you started.")
    vllm_server_base_url: str = setting("http://localhost:8000", "Where the vLLM server listens; with mode 'server'.")
    vllm_server_timeout: float = setting(240.0, "Seconds to wait for the vLLM server, and for each of its answers.")
    vllm_sync_folder: str = setting(
        SHARED_MEMORY, "Folder through which weights go to vLLM where it runs in another process; both must see it."
    )
    vllm_gpu_memory_utilization: float = setting(
        0.3, "Share of the device's memory for vLLM's weights and caches (of main memory, on the CPU)."
    )
    vllm_tensor_parallel_size: int = setting(1, "GPUs of one colocated engine; above 1 with a single process only.")
    vllm_max_model_length: int | None = setting(
        None, "Longest prompt and response together; max_prompt_length + max_completion_length by default."
    )
    vllm_enable_sleep_mode: bool = setting(False, "Give vLLM's GPU memory to training between rollouts.")
    vllm_enforce_eager: bool = setting(False, "Neither compile nor capture graphs: a faster start, slower tokens.")
    vllm_dtype: str = setting("auto", "Precision of vLLM's weights; auto: as the policy is trained.")

    def in_effect(self) -> dict[str, Any]:
        """All settings by name, without those of an engine that is not used."""
        values = cast("NashConfig", self).to_dict()
        return {name: value for name, value in values.items() if self.use_vllm or not name.startswith("vllm_")}

    @property
    def correction(self) -> str:
        """Which importance correction is meant: off, token or sequence."""
        if self.importance_correction != "auto":
            return self.importance_correction
        return "token" if self.use_vllm else "off"

    @property
    def sampling(self) -> SamplingParams:
        """How responses are drawn."""
        args = cast("NashConfig", self)
        return SamplingParams(args.max_completion_length, args.temperature, args.top_p, args.top_k)

    def check_engine(self) -> None:
        """Check what an engine needs of this machine, before a model is loaded.

        Raises:
            MissingDependencyError: vLLM is to run here and is not installed.
            ConfigError: Sleep mode without a GPU.
        """
        if not self.use_vllm or self.vllm_mode != "colocate":
            return
        from magnetar.rollout.vllm.start import check_vllm_installed

        check_vllm_installed()
        if self.vllm_enable_sleep_mode and not torch.cuda.is_available():
            raise ConfigError(
                "vllm_enable_sleep_mode is set, but there is no GPU whose memory vLLM could give back; remove it"
            )

    def _check_rollout(self) -> None:
        """Refuse values and combinations that cannot work."""
        for name, known in (("importance_correction", CORRECTIONS), ("merge_for_rollouts", get_args(MergeChoice))):
            if getattr(self, name) not in known:
                raise ConfigError(unknown_name(name, getattr(self, name), known))
        if not self.importance_cap > 0.0:
            raise ConfigError(f"importance_cap is {self.importance_cap}, expected a number above 0; 2 is usual")
        if self.correction == "off":
            self._refuse_changed(["importance_cap"], "importance ratios are not used; set importance_correction")
        if self.use_vllm:
            self._refuse_changed(["merge_for_rollouts"], "use_vllm is True, and vLLM is always given merged weights")
        if not self.use_vllm:
            of_vllm = [field.name for field in fields(RolloutFields) if field.name.startswith("vllm_")]
            self._refuse_changed(of_vllm, "use_vllm is False; set use_vllm=True")
            return
        for name, known in (("vllm_mode", VLLM_MODES), ("vllm_dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ConfigError(unknown_name(name, getattr(self, name), known))
        if self.vllm_mode == "server":
            self._refuse_changed(OF_COLOCATED, "vllm_mode='server': it is set where the server is started")
        else:
            self._refuse_changed(OF_SERVER, "vllm_mode='colocate', which has no server; set vllm_mode='server'")
        self._check_vllm_numbers()
        self._check_vllm_method()

    def _refuse_changed(self, names: Any, why: str) -> None:
        for entry in fields(RolloutFields):
            value = getattr(self, entry.name)
            if entry.name in names and value != entry.default:
                raise ConfigError(f"{entry.name} is {value!r}, but {why}, or remove {entry.name}")

    def _check_vllm_numbers(self) -> None:
        args = cast("NashConfig", self)
        if not 0.0 < self.vllm_gpu_memory_utilization <= 1.0:
            raise ConfigError(
                f"vllm_gpu_memory_utilization is {self.vllm_gpu_memory_utilization}, expected a number in (0, 1]"
            )
        if self.vllm_tensor_parallel_size < 1:
            raise ConfigError(
                f"vllm_tensor_parallel_size is {self.vllm_tensor_parallel_size}, expected an integer of at least 1"
            )
        if self.vllm_tensor_parallel_size > 1 and args.world_size > 1:
            raise ConfigError(
                f"vllm_tensor_parallel_size is {self.vllm_tensor_parallel_size} with {args.world_size} processes, each "
                "of which has an engine on its own GPU; set it to 1, or start a server with --tensor-parallel-size and "
                "set vllm_mode='server'"
            )
        if not self.vllm_server_timeout > 0:
            raise ConfigError(f"vllm_server_timeout is {self.vllm_server_timeout}, expected seconds above 0")
        longest = self.vllm_max_model_length
        if longest is not None and longest <= args.max_completion_length:
            raise ConfigError(
                f"vllm_max_model_length is {longest}, which leaves no room for a prompt before "
                f"max_completion_length={args.max_completion_length} tokens; raise it"
            )

    def _check_vllm_method(self) -> None:
        from magnetar.rollout.vllm.engine import logprobs_mode

        args = cast("NashConfig", self)
        logprobs_mode(self.sampling)
        method = args.build_method()
        if method.opponent.role == "mixture":
            raise ConfigError(
                f"use_vllm is set, but method {method.name!r} draws its opponents from a mixture of two policies token "
                "by token, which vLLM cannot; set use_vllm=False"
            )
