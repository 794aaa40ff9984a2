"""Policies behind an OpenAI-compatible endpoint: what is sent, what is read, what is kept, and what may go wrong."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from magnetar.errors import DataError, MagnetarError, ModelError
from magnetar.evaluation.players import EndpointPlayer, GenerationRequest, kept_answers, make_player, player_kind
from magnetar.rollout import SamplingParams

pytest.importorskip("openai")

REQUEST = GenerationRequest(SamplingParams(max_new_tokens=5, temperature=0.7, top_p=0.9, top_k=40), 2)
PROMPTS: list[Any] = ["one", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "two"}], "three"]


class Server:
    """Answers chat completions; `reply` makes the choice of a request from its body and its number."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.status = 200

    def reply(self, body: dict[str, Any], number: int) -> dict[str, Any]:
        text = f"answer {number} to {body['messages'][-1]['content']}"
        return {"message": {"role": "assistant", "content": text}, "finish_reason": "length" if number % 2 else "stop"}


@pytest.fixture
def server() -> Iterator[Any]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                choice = {"index": 0, **state.reply(body, len(state.bodies) - 1)}
            reply = {
                **{"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]},
                "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            }
            raw = json.dumps(reply).encode()
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}/v1"  # type: ignore[attr-defined]
    yield state
    http.shutdown()
    http.server_close()


def test_each_response_is_a_request_with_the_suites_sampling(server: Any) -> None:
    player = make_player(f"endpoint:{server.url}#model=org/m+1&concurrency=1")
    found = player.respond(PROMPTS, REQUEST)
    assert found.texts == [
        ["answer 0 to one", "answer 1 to one"],
        ["answer 2 to two", "answer 3 to two"],
        ["answer 4 to three", "answer 5 to three"],
    ]
    assert found.tokens_BG is not None and (found.tokens_BG == 4).all()
    assert found.truncated_BG is not None and found.truncated_BG.tolist() == [[False, True]] * 3
    assert len(server.bodies) == 6
    for body in server.bodies:
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("org/m+1", 5, 0.7)
        assert (body["top_p"], body["top_k"]) == (0.9, 40) and "logprobs" not in body
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "one"}]
    assert server.bodies[2]["messages"] == PROMPTS[1], "chat turns are sent as they are"


def test_answers_are_kept_as_they_come_and_asked_for_once(server: Any, tmp_path: Path) -> None:
    player = make_player({"kind": "endpoint", "model": "m", "base_url": server.url, "concurrency": 1, "max_calls": 4})
    with pytest.raises(ModelError, match="max_calls"):
        kept_answers(player, "M", PROMPTS, REQUEST, tmp_path / "m.jsonl")
    assert len(server.bodies) == 4
    player = make_player({"kind": "endpoint", "model": "m", "base_url": server.url, "concurrency": 1})
    found = kept_answers(player, "M", PROMPTS, REQUEST, tmp_path / "m.jsonl")
    assert len(server.bodies) == 6, "only the last prompt was asked again"
    again = kept_answers(player, "M", PROMPTS[::-1], REQUEST, tmp_path / "m.jsonl")
    assert len(server.bodies) == 6 and again == found[::-1]
    other = GenerationRequest(SamplingParams(max_new_tokens=6), 2)
    kept_answers(player, "M", PROMPTS, other, tmp_path / "m.jsonl")
    assert len(server.bodies) == 12, "whoever is sampled otherwise answers again"


def test_a_filtered_response_is_no_answer_and_a_refusal_is_one(server: Any, tmp_path: Path) -> None:
    def reply(body: dict[str, Any], number: int) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        if asked == "one":
            return {"message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
        if asked == "two":
            return {"message": {"role": "assistant", "content": None, "refusal": "I won't."}, "finish_reason": "stop"}
        return {"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}

    server.reply = reply
    player = make_player(f"endpoint:{server.url}#model=m")
    found = kept_answers(player, "M", PROMPTS, REQUEST, tmp_path / "m.jsonl")
    assert found[0] is None
    assert [None if one is None else list(one.texts) for one in found[1:]] == [["I won't."] * 2, ["fine"] * 2]
    with pytest.raises(DataError, match="no answer to 1 of 3 prompts"):
        player.respond(PROMPTS, REQUEST)


def test_the_temperature_can_be_left_to_the_server(server: Any) -> None:
    make_player(f"endpoint:{server.url}#model=m&temperature=null").respond(["one"], REQUEST)
    assert all("temperature" not in body for body in server.bodies)


def test_a_begun_response_cannot_be_sent(server: Any) -> None:
    begun = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Sure"}]
    with pytest.raises(DataError, match="cannot be asked to continue"):
        make_player(f"endpoint:{server.url}#model=m").respond([begun], REQUEST)
    assert not server.bodies


def test_a_server_that_refuses_is_told_with_the_policys_name(server: Any) -> None:
    server.status = 404
    with pytest.raises(ModelError, match=r"policy m at http://127\.0\.0\.1.*HTTP 404"):
        make_player(f"endpoint:{server.url}#model=m").respond(["one"], REQUEST)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("endpoint:http://localhost:1/v1", "names no model"),
        ("endpoint:localhost#model=m", "base_url = 'localhost', expected a URL"),
        (
            "endpoint:http://localhost:1/v1#model=m&concurency=3",
            "unknown option 'concurency'; did you mean 'concurrency'",
        ),
        ("endpoint:http://localhost:1/v1#model=m&concurrency=zero", "concurrency = 'zero'"),
        ({"kind": "endpoint", "model": "m", "base_url": "http://h/v1", "temperature": 9}, "temperature = 9"),
        ({"kind": "endpont", "model": "m"}, "unknown kind 'endpont'; did you mean 'endpoint'"),
        ({"model": "demo", "dytpe": "float32"}, "unknown key 'dytpe'; did you mean 'dtype'"),
        ({"dtype": "float32"}, "names no model"),
    ],
)
def test_mistakes_are_known_before_anything_is_sent(spec: Any, message: str) -> None:
    with pytest.raises(MagnetarError) as error:
        make_player(spec)
    assert message in str(error.value)


def test_a_missing_key_is_told_by_the_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ModelError, match="environment variable NO_SUCH_KEY"):
        make_player("endpoint:https://example.com/v1#model=m&api_key_env=NO_SUCH_KEY")


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    kinds = {
        "demo": "model",
        str(tmp_path): "adapter",
        "file:a.jsonl": "file",
        "endpoint:http://h/v1#model=m": "endpoint",
    }
    assert {spec: player_kind(spec) for spec in kinds} == kinds
    assert player_kind({"model": str(tmp_path)}) == "adapter"
    assert isinstance(make_player("endpoint:http://localhost:1/v1#model=m"), EndpointPlayer)
