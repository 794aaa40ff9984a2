"""Tests on a real vLLM; they need an environment in which it is installed (`make test-vllm`)."""

import os

import pytest

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
NEEDED = "vLLM is not installed here; `make test-vllm` has an environment with it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder takes minutes, and libraries that vLLM brings warn of their own."""
    for item in items:
        if "with_vllm" in str(item.path):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.filterwarnings("ignore"))
