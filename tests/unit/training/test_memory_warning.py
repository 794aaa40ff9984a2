"""What will not fit on a GPU is said in one line before anything is loaded; the tests state its memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, LlamaConfig

from magnetar.cli import train
from magnetar.cli.run_options import parse_run
from magnetar.cli.size import main as size
from magnetar.modeling.sizing import Job, ModelShape, memory
from magnetar.training import sizing
from magnetar.training.config import NashConfig

GIGA = 1e9
LLAMA_8B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
)


def settings(folder: Path, **given: Any) -> NashConfig:
    common: dict[str, Any] = {"use_cpu": True, "report_to": "none", "per_device_train_batch_size": 2}
    return NashConfig(output_dir=str(folder), **(common | given))


def warn(args: NashConfig, gigabytes: float, config: Any = LLAMA_8B, **given: Any) -> str | None:
    given = {"lora_rank": None, "dtype": "bfloat16"} | given
    return sizing.warning_of_memory(args, config, "a model", device_bytes=gigabytes * GIGA, **given)


def test_a_run_that_fits_is_not_spoken_of(tmp_path: Path) -> None:
    args = settings(tmp_path)
    assert warn(args, 1000) is None
    job = sizing.job_of_settings(
        ModelShape.from_config(LLAMA_8B), args, lora_rank=None, weight_bytes=2, chunk_logits=2**25
    )
    need = memory(job)
    exactly = (need.peak - need.lasting["process"]) / GIGA / (1.0 - sizing.RESERVE)
    assert warn(args, exactly * 1.001) is None
    assert warn(args, exactly * 0.999) is not None


def test_one_that_does_not_is_told_with_what_is_largest_and_what_helps(tmp_path: Path) -> None:
    text = warn(settings(tmp_path), 80)
    assert text is not None and "\n" not in text
    assert text.startswith("warning: this run will probably not fit: about ")
    assert "of 80 GB less 10% in reserve; the largest part is frozen roles" in text
    assert "it would fit with use_peft: true (lora_r: 16)" in text and "activation_checkpointing" not in text
    hopeless = warn(settings(tmp_path), 8)
    assert hopeless is not None and "no single change is enough; shard the weights over several GPUs" in hopeless


def test_each_change_that_is_proposed_is_enough_and_no_other_is() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    job = Job(shape, lora_rank=16, frozen_roles=1, devices=8, tokens_per_pass=32768, response_tokens=1024, prompts=8)
    changed = {
        "activation_checkpointing": replace(job, checkpointing=True),
        "sharded": replace(job, sharded=True),
        "max_tokens_per_pass": replace(job, tokens_per_pass=1),
    }
    for room in (30e9, 45e9, 60e9, 120e9, 200e9):
        found = sizing.changes_that_fit(job, room, lora_frozen_roles=1)
        brute = {n for n, j in changed.items() if memory(j).peak - memory(j).lasting["process"] <= room}
        assert set(found) == brute, room


def test_settings_reach_the_prediction(tmp_path: Path) -> None:
    def predicted(**given: Any) -> Job:
        args = settings(tmp_path, **given)
        shape = ModelShape.from_config(LLAMA_8B)
        return sizing.job_of_settings(shape, args, lora_rank=None, weight_bytes=4, chunk_logits=None)

    assert predicted(bf16=True).compute_bytes == 2 and predicted().compute_bytes == 4
    assert predicted(activation_checkpointing=True).checkpointing and not predicted().checkpointing
    assert predicted().frozen_roles == 2 and predicted(frozen_roles_on_cpu=True).frozen_roles == 1
    assert predicted(method="ppo").critic and not predicted().critic
    exact: dict[str, Any] = {"kl_estimator": "exact"}
    assert predicted(**exact).exact_kl == 1 and predicted(**exact, inner_epochs=2).exact_kl == 2
    assert predicted().exact_kl == 0
    assert predicted(max_responses_per_pass=8).responses_at_once == 8


def test_vllm_on_the_same_gpu_leaves_less_room(tmp_path: Path) -> None:
    def pool(share: float, asleep: bool = False, mode: str = "colocate") -> NashConfig:
        args = settings(tmp_path)
        args.use_vllm, args.vllm_mode = True, mode
        args.vllm_gpu_memory_utilization, args.vllm_enable_sleep_mode = share, asleep
        return args

    adapters: dict[str, Any] = {"lora_rank": 16}
    assert warn(pool(0.3), 80, **adapters) is None
    assert warn(pool(0.8), 80, **adapters) is not None
    assert warn(pool(0.8, mode="server"), 80, **adapters) is None
    assert warn(pool(0.6), 60, **adapters) is not None and warn(pool(0.5, asleep=True), 60, **adapters) is None


def test_nothing_is_guessed_where_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizing.device_bytes_of(settings(tmp_path)) is None, "a CPU's memory is not the run's alone"
    assert warn(settings(tmp_path), 0.001, GPT2Config()) is None, "its sizes go by other names"
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    assert warn(settings(tmp_path), 0.001) is None, "shards are in main memory"


class Loading(Exception):
    """Something large was about to be loaded."""


@pytest.mark.parametrize("gigabytes", [0.5, None], ids=["a GPU that is too small", "no GPU"])
def test_train_says_it_before_it_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gigabytes: float | None
) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        raise Loading

    monkeypatch.setattr(sizing, "device_bytes_of", lambda args: None if gigabytes is None else gigabytes * GIGA)
    monkeypatch.setattr("magnetar.judges.build_judge", load)
    flags = ["--model", "demo", "--dataset", "demo", "--judge", "panel", "--output_dir", str(tmp_path / "run")]
    with pytest.raises(Loading):
        train.run(*parse_run([*flags, "--use_cpu", "--report_to", "none"]))
    lines = [line for line in capsys.readouterr().err.splitlines() if "probably not fit" in line]
    assert len(lines) == (0 if gigabytes is None else 1)


def test_size_reads_the_file_of_a_run_and_flags_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: demo\ndataset: demo\njudge: panel\nmethod: ppo\nuse_peft: true\nlora_r: 8\nbf16: true\n"
        "num_generations: 2\nmax_completion_length: 32\ngradient_checkpointing: true\n"
    )
    file = ["--config", str(tmp_path / "run.yaml")]
    flags = ["--model", "demo", "--method", "ppo", "--lora_r", "8", "--dtype", "float32", "--bf16"]
    flags += ["--num_generations", "2", "--max_completion_length", "32", "--per_device_train_batch_size", "8"]
    flags += ["--max_prompt_length", "512", "--activation_checkpointing"]

    def printed(*argv: str) -> str:
        assert size(list(argv)) == 0
        return capsys.readouterr().out

    by_file = printed(*file)
    assert by_file == printed(*flags) == printed(*flags[:-1], "--gradient_checkpointing")
    assert by_file != printed(*flags[:-1])
    assert printed(*file, "--num_generations", "16") != by_file
