"""Calls from several threads share an endpoint's slots, its budget and its pace."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from magnetar.errors import JudgeError
from magnetar.judges import Symmetrized
from magnetar.judges.language_model import LanguageModelJudge
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.pacing import Budget, Pace
from magnetar.judges.language_model.backends.settings import EndpointSettings
from magnetar.judges.language_model.backends.slots import Slots

PATIENCE_SECONDS = 60


def on_threads(works: list[Any]) -> list[Any]:
    """Run functions on a thread each; their results or exceptions."""
    results: list[Any] = [None] * len(works)

    def run(place: int) -> None:
        try:
            results[place] = works[place]()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_no_more_than_the_slots_are_taken_over_all_threads_and_all_of_them_are_used() -> None:
    slots, lock = Slots(3), threading.Lock()
    taken = [0, 0]

    async def worker() -> None:
        for _ in range(20):
            async with slots.one():
                with lock:
                    taken[0] += 1
                    taken[1] = max(taken)
                await asyncio.sleep(0.0005)
                with lock:
                    taken[0] -= 1

    async def call() -> None:
        await asyncio.gather(*(worker() for _ in range(4)))

    assert on_threads([lambda: asyncio.run(call())] * 4) == [None] * 4
    assert taken == [0, 3]
    assert slots._free == 3


def test_slots_go_to_who_came_first() -> None:
    slots, order, ready = Slots(1), [], [threading.Event() for _ in range(5)]

    def comer(number: int) -> Any:
        async def come() -> None:
            if number:
                ready[number - 1].wait(PATIENCE_SECONDS)
                while len(slots._waiting) < number - 1:  # until the one before is in line
                    await asyncio.sleep(0)
            ready[number].set() if number else None
            async with slots.one():
                if not number:
                    ready[0].set()
                    while len(slots._waiting) < 4:
                        await asyncio.sleep(0.001)
                order.append(number)

        return lambda: asyncio.run(come())

    assert on_threads([comer(number) for number in range(5)]) == [None] * 5
    assert order == [0, 1, 2, 3, 4]


def test_a_slot_is_not_lost_when_who_waits_for_it_is_sent_home() -> None:
    async def scenario() -> None:
        slots = Slots(1)
        async with slots.one():
            waiting = [asyncio.create_task(slots._take()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
            await asyncio.sleep(0)
        # The slot is now on its way to the first, who is sent home before it arrives.
        waiting[0].cancel()
        await asyncio.wait_for(waiting[2], PATIENCE_SECONDS)
        assert waiting[0].cancelled() and waiting[1].cancelled()
        slots._give_back()
        assert slots._free == 1 and not slots._waiting

    asyncio.run(scenario())


def test_a_budget_holds_over_all_threads() -> None:
    budget = Budget(max_calls=50, max_tokens=None)

    async def spend() -> int:
        done = 0
        for _ in range(20):
            await budget.reserve(1)
            await asyncio.sleep(0)
            budget.settle(1, 1)
            done += 1
        return done

    results = on_threads([lambda: asyncio.run(spend())] * 4)
    assert budget.calls == budget.tokens == 50
    assert any(isinstance(result, JudgeError) for result in results)


def test_a_pace_gives_each_slot_once_over_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magnetar.judges.language_model.backends.pacing.time.monotonic", lambda: 100.0)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("magnetar.judges.language_model.backends.pacing.asyncio.sleep", sleep)
    pace = Pace(60.0)

    async def take() -> None:
        for _ in range(25):
            await pace.turn()

    on_threads([lambda: asyncio.run(take())] * 4)
    assert sorted(slept) == [float(second) for second in range(100)]


class Server:
    """An endpoint that answers A, and calls a function with the number of open requests before it does."""

    def __init__(self) -> None:
        server = self
        self.lock, self.open, self.most_open, self.before = threading.Lock(), 0, 0, lambda: None

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with server.lock:
                    server.open += 1
                    server.most_open = max(server.most_open, server.open)
                server.before()
                with server.lock:
                    server.open -= 1
                message = {"role": "assistant", "content": "A"}
                usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
                choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
                body = json.dumps(
                    {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
                    | {"choices": choices, "usage": usage}
                ).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("openai", reason="the endpoint's client is an extra")
    server = Server()
    yield server
    server.close()


def judge_at(server: Server, concurrency: int) -> LanguageModelJudge:
    settings = EndpointSettings(base_url=server.url, concurrency=concurrency)
    return LanguageModelJudge(EndpointBackend("m", settings), logprobs="never")


def test_calls_of_several_threads_together_have_as_many_requests_open_as_allowed(server: Server) -> None:
    inner = judge_at(server, 3)
    judge = Symmetrized(inner)
    backend: Any = inner.backend
    all_there, end = threading.Event(), time.monotonic() + PATIENCE_SECONDS

    def before() -> None:
        while not all_there.is_set() and time.monotonic() < end:
            # Three requests are open, and the workers of the other nine wait for their slots.
            if server.open == 3 and len(backend._slots._waiting) == 9:
                all_there.set()
            time.sleep(0.001)

    server.before = before
    # Each call alone has two requests, so that three are open only if calls share the slots.
    calls = [lambda number=number: judge.pair_win_prob([f"p{number}"], ["one"], ["two"]) for number in range(6)]
    for answer in on_threads(calls):
        assert answer.tolist() == [0.5]  # always A: the order decides, and both orders together do not
    assert all_there.is_set() and server.most_open == 3
    counted = judge.stats()
    assert counted["comparisons"] == 6 and counted["inner_comparisons"] == 12
    assert counted["inner_calls"] == 12 and counted["inner_tokens_in"] == 60
    assert judge.calls_at_once == 3 and judge.leaves_free("cuda:0") and judge.leaves_free("cpu")


def test_a_call_that_fails_leaves_its_slots_to_the_others(server: Server) -> None:
    judge = judge_at(server, 2)
    backend: Any = judge.backend
    backend._budget = Budget(max_calls=7, max_tokens=None)
    calls = [lambda n=n: judge.pair_win_prob([f"p{n}"] * 3, ["one"] * 3, ["two"] * 3) for n in range(4)]
    results = on_threads(calls)
    assert sum(isinstance(result, JudgeError) for result in results) >= 1
    assert backend._slots._free == 2
    backend._budget = Budget(None, None)
    assert judge.pair_win_prob(["p"], ["one"], ["two"]).tolist() == [1.0]
