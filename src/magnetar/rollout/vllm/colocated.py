"""vLLM in the trainer's own process."""

import gc
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from magnetar.errors import RolloutError
from magnetar.rollout.vllm.backend import EngineFacts, Sample, Sampling
from magnetar.rollout.vllm.files import weight_files
from magnetar.rollout.vllm.settings import WORKER_EXTENSION, ColocatedSettings

__all__ = ["ColocatedBackend", "plain_config"]

CPU_BLOCK_SIZE = 32
"""Tokens of a block of vLLM's cache on the CPU: the smallest that its attention takes there. Of its own 128, a prompt
that is shorter has no whole block, and is read once for each response instead of once for the group."""


class ColocatedBackend:
    """A `vllm.LLM` that is made from the trainer's configuration and holds no weights until it is given some."""

    def __init__(self, model: Any, settings: ColocatedSettings, *, logprobs_mode: str) -> None:
        """Start vLLM; this takes a while.

        Args:
            model: A model of transformers; only its configuration is used.
            settings: Memory, precision and parallelism.
            logprobs_mode: Which log-probabilities vLLM returns.

        Raises:
            RolloutError: vLLM cannot run this model here.
        """
        self._settings = settings
        self._asleep = False
        with tempfile.TemporaryDirectory(prefix="magnetar-vllm-") as folder, _own_process_untouched():
            config = plain_config(model)
            config.save_pretrained(folder)
            _prepare_environment(settings)
            options = _options(settings, logprobs_mode)
            # Whose code the trainer runs already, vLLM may run as well.
            self._llm = _started(model=folder, trust_remote_code=hasattr(config, "auto_map"), **options)
        if settings.enable_sleep_mode:
            self.rest()

    def facts(self) -> EngineFacts:
        """See `Backend.facts`."""
        return EngineFacts.of_workers(self._llm.collective_rpc("magnetar_describe"))

    def wake(self) -> bool:
        """Take memory again; the weights are lost, since they were discarded rather than copied to the CPU."""
        if not self._asleep:
            return True
        gc.collect()
        torch.cuda.empty_cache()
        self._llm.wake_up()
        self._asleep = False
        return False

    def load(self, weights: Iterable[tuple[str, Tensor]], stamp: str, *, whole: bool) -> None:
        """See `Backend.load`."""
        if self._settings.tensor_parallel_size == 1 or self._settings.world_size > 1:
            answers = self._llm.collective_rpc("magnetar_load", args=(weights, stamp, whole))
        else:
            with weight_files(weights, self._settings.sync_folder) as paths:
                arguments = (paths, stamp, "true" if whole else "false")
                answers = self._llm.collective_rpc("magnetar_load_files", args=arguments)
        errors = [answer["error"] for answer in answers if "error" in answer]
        if errors:
            raise RolloutError(f"vLLM cannot take the trainer's weights: {errors[0]}")
        self._llm.reset_prefix_cache()

    def sample(self, prompt_ids: list[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[Sample]]:
        """See `Backend.sample`."""
        from vllm import SamplingParams  # type: ignore[import-not-found]  # an extra

        params = [SamplingParams(**sampling.options(seed), detokenize=False) for seed in seeds]
        prompts: Any = [{"prompt_token_ids": prompt} for prompt in prompt_ids]
        try:
            with _own_process_untouched():
                outputs = self._llm.generate(prompts, params, use_tqdm=False)
        except (RuntimeError, ValueError) as error:
            raise RolloutError(f"vLLM failed to generate: {type(error).__name__}: {error}") from error
        return [[_sample(completion) for completion in output.outputs] for output in outputs]

    def rest(self) -> None:
        """Give the GPU's memory back, if sleep mode is on."""
        if self._settings.enable_sleep_mode and not self._asleep:
            # Level 2 discards the weights: they come from the trainer again, within the same GPU.
            self._llm.sleep(level=2)
            self._asleep = True

    def close(self) -> None:
        """Stop vLLM and free its memory."""
        with _default_group_kept() if self._settings.world_size > 1 else nullcontext():
            self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def _default_group_kept() -> Iterator[None]:
    """Keep the trainer's process group, which vLLM would take down with its own."""
    destroy = torch.distributed.destroy_process_group

    def destroy_others(group: Any = None) -> None:
        if group is not None:
            destroy(group)

    torch.distributed.destroy_process_group = destroy_others
    try:
        yield
    finally:
        torch.distributed.destroy_process_group = destroy


def _sample(completion: Any) -> Sample:
    tokens = list(completion.token_ids)
    return Sample(tokens, [float(entry[t].logprob) for entry, t in zip(completion.logprobs, tokens, strict=True)])


def _started(**options: Any) -> Any:
    from vllm import LLM  # type: ignore[import-not-found]  # an extra

    try:
        return LLM(**options)
    except (OSError, ValueError, RuntimeError) as error:
        raise RolloutError(f"vLLM cannot start: {type(error).__name__}: {error}") from error


def _options(settings: ColocatedSettings, logprobs_mode: str) -> dict[str, Any]:
    """Arguments of `vllm.LLM`."""
    options: dict[str, Any] = {
        "load_format": "dummy",  # every weight comes from the trainer
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "distributed_executor_backend": settings.executor,
        "enforce_eager": settings.enforce_eager,
        "enable_sleep_mode": settings.enable_sleep_mode,
        "enable_prefix_caching": True,  # a prompt is encoded once for its group
        "logprobs_mode": logprobs_mode,
        "worker_extension_cls": WORKER_EXTENSION,
        "seed": 0,
    }
    block_size = settings.block_size
    if block_size is None and not torch.cuda.is_available():
        block_size = CPU_BLOCK_SIZE
    for name, value in (("max_num_seqs", settings.max_num_seqs), ("block_size", block_size)):
        if value is not None:
            options[name] = value
    return options


def plain_config(model: Any) -> Any:
    """The configuration of a model's architecture without quantisation: weights arrive de-quantised."""
    plain = deepcopy(model.config)
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(plain, name):
            delattr(plain, name)
    plain.architectures = [type(model).__name__.removeprefix("FSDP")]
    return plain


def _prepare_environment(settings: ColocatedSettings) -> None:
    # In this process, not in a child of it: weights are handed over without a copy.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # On the CPU vLLM would bind the threads of this process, which are the trainer's, to cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if settings.world_size > 1:
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(settings.rank), str(settings.world_size)
        os.environ["LOCAL_RANK"] = str(settings.local_rank)


@contextmanager
def _own_process_untouched() -> Iterator[None]:
    """Keep the trainer's random numbers and thread settings, which vLLM changes."""
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            torch.set_num_threads = set_num_threads
            torch.set_num_threads(threads)
