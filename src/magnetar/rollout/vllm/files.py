"""Weights on their way to another process: safetensors files in a folder that both see."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from magnetar.errors import RolloutError

__all__ = ["weight_files"]

FILE_BYTES = 2**30
"""Weights that are gathered before a file is written; also what the trainer holds on the CPU at a time."""


@contextmanager
def weight_files(weights: Iterable[tuple[str, Tensor]], folder: str) -> Iterator[str]:
    """Write weights; the files exist for the length of a `with` block.

    Args:
        weights: By name.
        folder: Where; in memory (``/dev/shm``) if both processes are on one machine.

    Returns:
        The files' paths in order, as a JSON list.

    Raises:
        RolloutError: They cannot be written there.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="magnetar-weights-", dir=folder)
    except OSError as error:
        raise RolloutError(_unwritable(folder, error)) from error
    with temporary as name:
        Path(name).chmod(0o755)  # the server may run as another user
        try:
            paths = [str(_written(Path(name) / f"{n}.safetensors", part)) for n, part in enumerate(_parts(weights))]
        except (OSError, SafetensorError) as error:
            raise RolloutError(_unwritable(folder, error)) from error
        yield json.dumps(paths)


def _unwritable(folder: str, error: Exception) -> str:
    return (
        f"cannot write weights for vLLM into {folder!r}: {error}; free space there or set vllm_sync_folder to a folder "
        "with more, which vLLM sees too"
    )


def _written(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    return path


def _parts(weights: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        part[name] = tensor.detach().cpu().contiguous()
        size += tensor.nbytes
        if size >= FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part
