"""Runs of a comparison leave no memory behind in the process that they share."""

import ctypes

import psutil
import pytest
import torch

from magnetar.cli.comparison.runs import free_memory

BLOCKS, FLOATS = 20_000, 4096  # 320 MB in blocks of 16 kB, which the C library keeps in its heap


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_a_run_freed_goes_back_to_the_system() -> None:
    process = psutil.Process()
    blocks = [torch.ones(FLOATS) for _ in range(BLOCKS)]
    last = blocks[-1]  # at the top of the heap, so that freeing the rest does not shrink it by itself
    full = process.memory_info().rss
    del blocks
    free_memory()
    assert full - process.memory_info().rss > BLOCKS * FLOATS * 4 * 0.8
    assert last.sum() == FLOATS
