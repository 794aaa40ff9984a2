"""A real OpenAI-compatible server in a process of its own, and a proxy in front of it that can go wrong."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextmanager
def running_server(
    command: list[str], port: int, log: Path, *, seconds: float, environment: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a server until the block ends; its URL once it answers."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
            start_new_session=True,
        )
    try:
        wait_until_healthy(process, port, log, seconds)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_healthy(process: subprocess.Popen, port: int, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(
                f"the server stopped with {process.returncode}: {log.read_text(errors='replace')[-3000:]}"
            )
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"no server after {seconds} seconds: {log.read_text(errors='replace')[-3000:]}")


def transformers_serve(model: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "transformers.cli.transformers", "serve", model),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "error"),
    ]


class FaultyProxy:
    """Passes requests on, except for those that are to fail.

    ``faults`` are taken one a request, first come first served; ``always`` holds for all that find none. A fault is a
    dictionary: `status`, `headers`, `body` and `content_type` to answer without the server; `hang` seconds and `drop`;
    `edit`, a function of the server's own reply; `refuse`, a word that no field of the request may be called.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.faults: deque[dict[str, Any]] = deque()
        self.always: dict[str, Any] = {}
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.open = self.most_open = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def reset(self) -> None:
        self.faults.clear()
        self.always = {}
        self.bodies.clear()
        self.headers.clear()
        self.times.clear()
        self.most_open = 0

    def __enter__(self) -> "FaultyProxy":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path: str, raw: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
        """What goes back: status, headers, body, content type; None to hang up."""
        body = json.loads(raw)
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            fault = self.faults.popleft() if self.faults else self.always
        time.sleep(fault.get("hang", 0.0))
        if fault.get("drop"):
            return None
        refused = fault.get("refuse")
        if refused is not None and refused in body:
            return {"status": 400, "body": json.dumps({"error": {"message": f"unknown field: {refused}"}})}
        if "status" in fault:
            return fault
        sent = {key: value for key, value in body.items() if key not in fault.get("strip", ())}
        reply = self._pass_on(path, json.dumps(sent).encode())
        return {**reply, "body": fault["edit"](reply["body"])} if "edit" in fault else reply

    def _pass_on(self, path: str, raw: bytes) -> dict[str, Any]:
        request = urllib.request.Request(
            self.upstream.removesuffix("/v1") + path, data=raw, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return {"status": response.status, "body": response.read().decode()}
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.code, "body": error.read().decode()}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with proxy.lock:
                    proxy.open += 1
                    proxy.most_open = max(proxy.most_open, proxy.open)
                try:
                    raw = self.rfile.read(int(self.headers["Content-Length"]))
                    reply = proxy.answer(self.path, raw, {key.lower(): value for key, value in self.headers.items()})
                finally:
                    with proxy.lock:
                        proxy.open -= 1
                if reply is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                body = reply.get("body", "")
                if "{authorization}" in body:
                    body = body.replace("{authorization}", self.headers.get("Authorization", ""))
                data = body.encode()
                try:
                    self.send_response(reply["status"])
                    self.send_header("Content-Type", reply.get("content_type", "application/json"))
                    self.send_header("Content-Length", str(len(data)))
                    for name, value in reply.get("headers", {}).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client did not wait

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


def with_logprobs(pairs: dict[str, Any]) -> dict[str, Any]:
    """A fault that is none: the server's reply with log-probabilities added."""

    def edit(body: str) -> str:
        reply = json.loads(body)
        top = [{"token": token, "logprob": value} for token, value in pairs.items()]
        reply["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": top}]}
        return json.dumps(reply)

    return {"edit": edit, "strip": ("logprobs", "top_logprobs")}
