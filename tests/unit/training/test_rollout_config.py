"""Settings of vLLM that cannot work are refused in one sentence, before anything is loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from magnetar.errors import ConfigError, MissingDependencyError
from magnetar.rollout import TransformersEngine
from magnetar.rollout.vllm import ColocatedSettings, ServerSettings, VllmEngine
from magnetar.training import NashConfig
from magnetar.training.engines import make_engine


def config(folder: Path, **settings: Any) -> NashConfig:
    return NashConfig(**({"output_dir": str(folder), "report_to": "none", "use_cpu": True} | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vllm_mode": "server"}, r"vllm_mode is 'server', but use_vllm is False; set use_vllm=True, or remove"),
        ({"vllm_dtype": "bfloat16"}, r"vllm_dtype is 'bfloat16', but use_vllm is False"),
        ({"use_vllm": True, "vllm_mode": "sever"}, r"unknown vllm_mode 'sever'; did you mean 'server'\?"),
        ({"use_vllm": True, "vllm_dtype": "fp8"}, r"unknown vllm_dtype 'fp8'"),
        ({"use_vllm": True, "vllm_server_timeout": 5.0}, r"vllm_server_timeout is 5.0, but vllm_mode='colocate'"),
        (
            {"use_vllm": True, "vllm_mode": "server", "vllm_gpu_memory_utilization": 0.5},
            r"vllm_gpu_memory_utilization is 0.5, but vllm_mode='server': it is set where the server is started",
        ),
        ({"use_vllm": True, "vllm_gpu_memory_utilization": 1.5}, r"utilization is 1.5, expected a number in \(0, 1\]"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 0}, r"parallel_size is 0, expected an integer of at least 1"),
        (
            {"use_vllm": True, "vllm_mode": "server", "vllm_server_timeout": 0.0},
            r"vllm_server_timeout is 0.0, expected seconds above 0",
        ),
        (
            {"use_vllm": True, "vllm_max_model_length": 256},
            r"vllm_max_model_length is 256, which leaves no room for a prompt before max_completion_length=256",
        ),
        ({"use_vllm": True, "temperature": 0.7, "top_k": 5}, r"set temperature=1, or top_p=1 and top_k=0"),
        ({"use_vllm": True, "method": "nash_md_pg"}, r"draws its opponents from a mixture of two policies token by"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **settings)


def test_engines_of_several_gpus_and_several_processes_exclude_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(NashConfig, "world_size", property(lambda self: 2))
    with pytest.raises(ConfigError, match=r"parallel_size is 2 with 2 processes, .*start a server with --tensor-paral"):
        config(tmp_path, use_vllm=True, vllm_tensor_parallel_size=2)


def test_a_missing_vllm_is_told_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "magnetar\[vllm\]"'):
        config(tmp_path, use_vllm=True).check_engine()
    config(tmp_path, use_vllm=True, vllm_mode="server").check_engine()
    config(tmp_path).check_engine()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to give memory back")
def test_sleeping_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="vllm_enable_sleep_mode is set, but there is no GPU"):
        config(tmp_path, use_vllm=True, vllm_enable_sleep_mode=True).check_engine()


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return make_engine(config(folder, **settings), torch.nn.Linear(2, 2, dtype=dtype), SimpleNamespace())


def test_each_setting_reaches_the_engine_in_this_process(tmp_path, monkeypatch):
    built = engine(
        tmp_path,
        monkeypatch,
        use_vllm=True,
        vllm_gpu_memory_utilization=0.5,
        vllm_tensor_parallel_size=2,
        vllm_max_model_length=1000,
        vllm_enforce_eager=True,
        vllm_dtype="float16",
        vllm_sync_folder="/some/where",
        max_responses_per_pass=7,
        max_completion_length=30,
        top_k=4,
    )
    assert isinstance(built, VllmEngine)
    assert (built.sampling.max_new_tokens, built.sampling.top_k) == (30, 4)
    starter: Any = built.starter
    assert starter.logprobs_mode == "raw_logprobs"
    assert starter.settings == ColocatedSettings(
        max_model_len=1000,
        dtype="float16",
        gpu_memory_utilization=0.5,
        tensor_parallel_size=2,
        enforce_eager=True,
        max_num_seqs=7,
        sync_folder="/some/where",
    )
    assert starter.settings.executor == "mp"


def test_each_setting_reaches_the_server(tmp_path, monkeypatch):
    where = {"vllm_server_base_url": "http://host:1", "vllm_server_timeout": 9.0, "vllm_sync_folder": "/some/where"}
    built = engine(tmp_path, monkeypatch, use_vllm=True, vllm_mode="server", **where)
    assert built.starter.settings == ServerSettings("http://host:1", 9.0, "/some/where")


def test_by_default_transformers_generates_and_vllm_holds_what_a_run_needs(tmp_path, monkeypatch):
    assert isinstance(engine(tmp_path, monkeypatch), TransformersEngine)
    settings = engine(tmp_path, monkeypatch, use_vllm=True).starter.settings
    assert settings == ColocatedSettings(max_model_len=512 + 256, dtype="float32")
    assert settings.executor == "uni"
    half = engine(tmp_path, monkeypatch, torch.bfloat16, use_vllm=True).starter.settings
    mixed = engine(tmp_path, monkeypatch, use_vllm=True, bf16=True).starter.settings
    assert half.dtype == mixed.dtype == "bfloat16"
