"""What is said to a vLLM server and what is understood of its answers, with a server of our own in its place."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from magnetar.errors import ConfigError, RolloutError
from magnetar.rollout import SamplingParams
from magnetar.rollout.vllm import ServerSettings
from magnetar.rollout.vllm.backend import Sampling
from magnetar.rollout.vllm.files import weight_files
from magnetar.rollout.vllm.server import ServerBackend

FACTS = {
    "vllm": "0.32.0",
    "dtype": "float32",
    "logprobs_mode": "processed_logprobs",
    "max_model_len": 64,
    "model_type": "llama",
    "sizes": {"vocab_size": 41, "hidden_size": 32, "num_hidden_layers": 2},
    "weights": None,
}


class Characters:
    """A tokenizer: one token for each character."""

    name_or_path = ""

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}


class FakeServer:
    """Answers as vLLM's server does; `replies` puts something else in place of an answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        self.replies: dict[str, Callable[[Any], tuple[int, Any]]] = {}
        self.workers = [dict(FACTS)]
        self.loaded: dict[str, torch.Tensor] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Any) -> None:
                server.asked.append((self.path, body, dict(self.headers)))
                status, reply = server.replies.get(self.path, lambda b: server.reply(self.path, b))(body)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def reply(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/health":
            return 200, b""
        if path == "/v1/models":
            return 200, {"data": [{"id": "some/model"}]}
        if path == "/tokenize":
            return 200, {"tokens": [ord(c) for c in body["prompt"]]}
        if path == "/reset_prefix_cache":
            return 200, {"success": True}
        if path == "/collective_rpc" and body["method"] == "magnetar_describe":
            return 200, {"results": self.workers}
        if path == "/collective_rpc" and body["method"] == "magnetar_load_files":
            for file in json.loads(body["kwargs"]["paths"]):
                self.loaded |= load_file(file)
            for worker in self.workers:
                worker["weights"] = body["kwargs"]["stamp"]
            return 200, {"results": [{"stamp": body["kwargs"]["stamp"]}] * len(self.workers)}
        if path == "/v1/completions":
            choices = [
                {"index": g, "token_ids": [body["seed"] + g, 2], "logprobs": {"token_logprobs": [-0.5, -1.5]}}
                for g in reversed(range(body["n"]))
            ]
            return 200, {"choices": choices}
        return 404, {"detail": "Not Found"}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


def reach(server: FakeServer, folder: Path, seconds: float = 5.0) -> ServerBackend:
    return ServerBackend(ServerSettings(server.url, seconds, str(folder)), Characters())


SAMPLING = Sampling(SamplingParams(8, temperature=0.7), 3, (2, 5))


def test_a_prompt_is_one_request_with_all_that_decides_the_distribution(server, tmp_path):
    samples = reach(server, tmp_path).sample([[7, 8], [9]], [100, 200], SAMPLING)
    assert [[sample.tokens for sample in group] for group in samples] == [
        [[100, 2], [101, 2], [102, 2]],
        [[200, 2], [201, 2], [202, 2]],
    ]
    assert samples[0][0].logp == [-0.5, -1.5]
    bodies = sorted((body for path, body, _ in server.asked if path == "/v1/completions"), key=lambda b: b["seed"])
    assert bodies[0] == {
        "model": "some/model",
        "prompt": [7, 8],
        "return_token_ids": True,
        "n": 3,
        "seed": 100,
        "max_tokens": 8,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": True,
        "stop_token_ids": [2, 5],
        "logprobs": 0,
    }


def test_weights_go_through_files_that_are_gone_afterwards(server, tmp_path, monkeypatch):
    monkeypatch.setattr("magnetar.rollout.vllm.files.FILE_BYTES", 100)
    weights = {f"layer.{n}": torch.full((10,), float(n), dtype=torch.bfloat16) for n in range(12)}
    weights["transposed"] = torch.arange(6.0).reshape(2, 3).T
    backend = reach(server, tmp_path)
    backend.load(iter(weights.items()), "run:1", whole=True)
    assert server.loaded.keys() == weights.keys()
    assert all(torch.equal(server.loaded[name], tensor) for name, tensor in weights.items())
    assert list(tmp_path.iterdir()) == []
    assert backend.facts().weights == "run:1"
    asked = [path for path, _, _ in server.asked]
    assert asked.index("/reset_prefix_cache") > asked.index("/collective_rpc")


def test_workers_that_hold_different_weights_hold_none(server, tmp_path):
    server.workers = [FACTS | {"weights": "a:1"}, FACTS | {"weights": "a:2"}]
    assert reach(server, tmp_path).facts().weights is None


def test_a_key_is_sent_where_the_server_wants_one(server, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    reach(server, tmp_path)
    assert {headers.get("Authorization") for _, _, headers in server.asked} == {"Bearer secret"}


def test_a_server_that_is_down_is_told_with_the_command_that_starts_one(tmp_path):
    settings = ServerSettings("http://127.0.0.1:9", 0.01, str(tmp_path))
    with pytest.raises(RolloutError, match=r"no vLLM server answered at http://127.0.0.1:9 within vllm_server_timeout"):
        ServerBackend(settings, Characters())
    trained = Characters()
    trained.name_or_path = "org/trained-model"
    with pytest.raises(RolloutError, match=r"start one with: .*--model org/trained-model "):
        ServerBackend(settings, trained)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/collective_rpc", 404, r"it was started without VLLM_SERVER_DEV_MODE=1; start it with: VLLM_SERVER_DEV_MODE"),
        ("/collective_rpc", 500, r"without --worker-extension-cls; start it with: .*magnetar.rollout.vllm.worker"),
    ],
)
def test_a_server_that_was_started_otherwise_is_told_how_to(server, tmp_path, path, status, message):
    server.replies[path] = lambda body: (status, {"detail": "no"})
    with pytest.raises(ConfigError, match=message):
        reach(server, tmp_path)


def test_another_tokenizer_is_refused_at_once(server, tmp_path):
    server.replies["/tokenize"] = lambda body: (200, {"tokens": [1, 2, 3]})
    with pytest.raises(
        ConfigError, match=r"whose tokenizer is not the trained model's: it cuts a text into \[1, 2, 3\]"
    ):
        reach(server, tmp_path)


def test_a_server_that_cannot_see_the_files_is_told_what_to_set(server, tmp_path):
    backend = reach(server, tmp_path)
    error = "FileNotFoundError: No such file or directory: /x"
    server.replies["/collective_rpc"] = lambda body: (200, {"results": [{"error": error}]})
    with pytest.raises(RolloutError, match=r"it does not see .*: set vllm_sync_folder to a folder that it sees"):
        backend.load(iter({"a": torch.ones(1)}.items()), "run:1", whole=True)


def test_a_server_that_answers_others_is_told(server, tmp_path):
    backend = reach(server, tmp_path)
    server.replies["/reset_prefix_cache"] = lambda body: (200, {"success": False})
    with pytest.raises(RolloutError, match="give each run a server of its own"):
        backend.load(iter({"a": torch.ones(1)}.items()), "run:1", whole=True)


def test_a_server_whose_engine_died_while_its_port_answers_is_a_failure_of_the_engine(server, tmp_path):
    backend = reach(server, tmp_path)
    server.replies["/collective_rpc"] = lambda body: (500, {"detail": "engine dead"})
    with pytest.raises(RolloutError):  # with which the run is saved
        backend.facts()


def test_a_server_that_dies_while_it_generates_is_one_clear_error(server, tmp_path):
    backend = reach(server, tmp_path)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(RolloutError, match=r"does not answer /v1/completions: .*; look at its log and start it again"):
        backend.sample([[7, 8]], [100], SAMPLING)


def test_what_the_server_refuses_is_quoted(server, tmp_path):
    backend = reach(server, tmp_path)
    server.replies["/v1/completions"] = lambda body: (400, {"error": "prompt too long"})
    with pytest.raises(RolloutError, match=r"refused /v1/completions: HTTP 400: .*prompt too long"):
        backend.sample([[7, 8]], [100], SAMPLING)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(RolloutError, match=r"cannot write weights for vLLM into .*set vllm_sync_folder"),
        weight_files(iter({"a": torch.ones(1)}.items()), str(tmp_path / "missing")),
    ):
        pass
