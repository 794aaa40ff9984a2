"""A vLLM server that is given weights draws from the policy that the trainer computes; whole runs on the demo model."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NEEDED

pytest.importorskip("vllm", reason=NEEDED)

from peft import LoraConfig, get_peft_model
from real_models import SEEDS, gap, move

from magnetar.errors import ConfigError, MissingDependencyError, RolloutError
from magnetar.modeling.loading import demo_model_folder, load_policy
from magnetar.modeling.roles import make_roles
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import ServerSettings, server_command, vllm_engine
from processes import FSDP2, run_two_processes

EXACT = 1e-3
"""Float32 on both sides, thirty layers, nats a token."""
PORT = 8971
URL = f"http://127.0.0.1:{PORT}"
OPTIONS = "--host 127.0.0.1 --dtype float32 --max-model-len 1024 --enforce-eager --max-num-seqs 32"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def start(model: str, log: Path, port: int = PORT) -> subprocess.Popen:
    """Start a server with the documented command; back once it answers."""
    command = server_command(model).replace(" python ", f" {sys.executable} ") + f" --port {port} {OPTIONS}"
    with log.open("wb") as stream:
        environment = os.environ | ENVIRONMENT
        process = subprocess.Popen(
            ["bash", "-c", f"export {command.split()[0]}; exec {command.partition(' ')[2]}"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    end = time.monotonic() + 400
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return process
        except OSError:
            time.sleep(0.5)
    process.kill()
    raise RuntimeError(log.read_text(errors="replace")[-3000:])


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return demo_model_folder()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen]:
    process = start(str(folder), tmp_path_factory.mktemp("server") / "log")
    yield process
    process.terminate()
    process.wait(60)


def engine_at(tokenizer, seconds: float = 120.0, **sampling):
    return vllm_engine(tokenizer, SamplingParams(**({"max_new_tokens": 16} | sampling)), ServerSettings(URL, seconds))


@pytest.fixture
def policy(server):
    return load_policy("demo")


def prompts_of(tokenizer) -> list[list[int]]:
    texts = ["Tell me a story about a cat. " * 30, "Name a colour."]
    return [tokenizer(text)["input_ids"] for text in texts]


def test_full_fine_tuning_with_a_tied_head_is_followed(policy):
    model, tokenizer = policy
    engine, prompts = engine_at(tokenizer, temperature=0.7), prompts_of(tokenizer)
    for step in range(2):
        rollouts = engine.generate(model, prompts, 3, SEEDS)
        assert gap(model, rollouts, 0.7) < EXACT
        move(model, step, 0.01)
        assert gap(model, rollouts, 0.7) > 0.05
    assert engine.loads == 2


def test_an_adapter_and_its_roles_are_followed(policy):
    model, tokenizer = policy
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).eval()
    roles = make_roles(adapted)
    roles.add("magnet")
    engine, prompts = engine_at(tokenizer), prompts_of(tokenizer)
    for step in range(2):
        move(adapted, step, 0.02)
        for role in ("current", "magnet", "reference"):
            with roles.use(role) as played:
                rollouts = engine.generate(played, prompts, 3, SEEDS)
                assert gap(played, rollouts) < EXACT, (step, role)
        assert gap(adapted, rollouts) > 0.05, "the reference is another policy"
    again = engine.generate(adapted, prompts, 3, SEEDS)
    other = engine_at(tokenizer)
    with roles.use("reference") as reference:
        other.generate(reference, prompts, 3, SEEDS)
    assert engine.generate(adapted, prompts, 3, SEEDS).response_ids == again.response_ids, "another run was there"


def test_a_server_of_another_model_is_refused_at_once(policy):
    model, tokenizer = policy
    model.config.num_hidden_layers = 29
    with pytest.raises(ConfigError, match="num_hidden_layers 30, but the trained model has 29"):
        engine_at(tokenizer).start(model)


TWO_PROCESSES = """
import torch
from accelerate import PartialState
from magnetar.modeling.loading import load_policy
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import ServerSettings, vllm_engine
from real_models import gap, move

state = PartialState(cpu=True)
model, tokenizer = load_policy("demo")
url, seconds = json.loads(sys.argv[2])
rank = state.process_index
engine = vllm_engine(tokenizer, SamplingParams(8), ServerSettings(url, seconds, world_size=2, rank=rank))
prompt = tokenizer("Name a colour." if rank else "Name an animal.")["input_ids"]
gaps = []
for step in range(2):
    gaps.append(gap(model, engine.generate(model, [prompt], 2, [rank])))
    move(model, step, 0.01)
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps([gaps, engine.loads]))
"""


def test_two_processes_share_a_server(server, tmp_path):
    run_two_processes(tmp_path, [URL, 120.0], TWO_PROCESSES, Path(__file__).parent)
    for rank in range(2):
        gaps, loads = json.loads((tmp_path / f"{rank}.json").read_text())
        assert max(gaps) < EXACT and loads == 2


TWO_SHARES = """
import torch
from accelerate import Accelerator
from magnetar.modeling.loading import load_policy
from magnetar.modeling.roles import make_roles
from magnetar.modeling.sharding import whole_shape
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import ServerSettings, vllm_engine
from magnetar.training.sharding import shard_model, shard_roles
from real_models import gap

accelerator = Accelerator()
rank = accelerator.process_index
model, tokenizer = load_policy("demo")
roles = make_roles(model, will_be_sharded=True)
shard_model(accelerator, model, holds_weights=True)
shard_roles(roles, accelerator)
url, seconds = json.loads(sys.argv[2])
engine = vllm_engine(tokenizer, SamplingParams(8), ServerSettings(url, seconds, world_size=2, rank=rank))
prompt = tokenizer("Name a colour." if rank else "Name an animal.")["input_ids"]
gaps = []
for step in range(2):
    with roles.lend("current") as policy:
        rollouts = engine.generate(policy, [prompt], 2, [rank])
    with roles.use("current") as policy:
        gaps.append(gap(policy, rollouts))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            noise = torch.randn(whole_shape(parameter), generator=generator) * 0.01
            roles.sharding.fill(parameter, roles.sharding.whole(parameter) + noise)
    with roles.use("current") as policy:
        gaps.append(gap(policy, rollouts))
(Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps([gaps, engine.loads]))
"""


def test_two_processes_that_share_the_weights_too_send_them_to_one_server(server, tmp_path):
    run_two_processes(tmp_path, [URL, 120.0], TWO_SHARES, Path(__file__).parent, variables=FSDP2)
    for rank in range(2):
        gaps, loads = json.loads((tmp_path / f"{rank}.json").read_text())
        assert max(gaps[::2]) < EXACT < 0.01 < min(gaps[1::2]) and loads == 2


JUDGE = """
import numpy as np

def longer(prompts, first, second):
    return np.array([0.5 + 0.5 * np.sign(len(a) - len(b)) for a, b in zip(first, second)])
"""
RUN = (
    "--model demo --dataset demo --judge python:length_judge:longer --method mpo --magnet_every 1 --opponent magnet "
    "--use_peft --lora_r 4 --per_device_train_batch_size 2 --num_generations 3 --max_completion_length 8 "
    "--learning_rate 1e-3 --no_report --report_to none --save_steps 2 --max_steps 3 --use_cpu --use_vllm"
)


def train(folder: Path, options: str) -> None:
    """`magnetar train`, as a user calls it."""
    folder.mkdir(exist_ok=True)
    (folder / "length_judge.py").write_text(JUDGE)
    command = [sys.executable, "-c", "import sys; from magnetar.cli.main import main; sys.exit(main())", "train"]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    arguments = [*RUN.split(), "--output_dir", str(folder / "run"), *options.split()]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=540, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("mode", ["--vllm_enforce_eager", f"--vllm_mode server --vllm_server_base_url {URL}"])
def test_a_whole_run_and_one_that_is_resumed_end_in_the_same_weights(request, folder, tmp_path, mode):
    if "server" in mode:
        request.getfixturevalue("server")
    train(tmp_path / "a", mode)
    train(tmp_path / "b", f"{mode} --max_steps 2")
    train(tmp_path / "b", f"{mode} --resume_from_checkpoint true")
    ends = [(tmp_path / name / "run" / "adapter_model.safetensors").read_bytes() for name in "ab"]
    assert ends[0] == ends[1]
    rows = [json.loads(line) for line in (tmp_path / "b" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if "update" in row] == [1, 2, 3]


def test_a_server_that_is_killed_is_one_clear_error_and_a_new_one_is_given_the_weights(folder, tmp_path):
    port, url = PORT + 1, f"http://127.0.0.1:{PORT + 1}"
    model, tokenizer = load_policy("demo")
    process = start(str(folder), tmp_path / "log", port)
    engine = vllm_engine(tokenizer, SamplingParams(max_new_tokens=8), ServerSettings(url, 120.0))
    prompts = prompts_of(tokenizer)
    engine.generate(model, prompts, 2, SEEDS)
    process.terminate()
    process.wait(60)
    with pytest.raises(RolloutError, match=re.escape(f"the vLLM server at {url} does not answer")):
        engine.generate(model, prompts, 2, SEEDS)
    process = start(str(folder), tmp_path / "log", port)
    try:
        assert gap(model, engine.generate(model, prompts, 2, SEEDS)) < EXACT
    finally:
        process.terminate()
        process.wait(60)
