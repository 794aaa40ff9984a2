"""What goes wrong between a judge and a real server: each is one clear error or a counted attempt more."""

import asyncio
import json
import logging
import math
import pickle
import time
import traceback

import numpy as np
import pytest
from llm_servers import free_port, with_logprobs

from magnetar.errors import JudgeError
from magnetar.judges import build_judge
from magnetar.judges.language_model import LanguageModelJudge
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.failures import retry_after_seconds
from magnetar.judges.language_model.backends.pacing import backoff_seconds
from magnetar.judges.language_model.backends.running import iterate
from magnetar.judges.language_model.backends.settings import EndpointSettings

PROMPTS = [f"prompt number {at}" for at in range(6)]
FIRST = [f"{at * at} apples" for at in range(6)]
SECOND = [f"a banana and {at} pears" for at in range(6)]
ONE = (PROMPTS[:1], FIRST[:1], SECOND[:1])
SECRET = "sk-very-secret-0123456789abcdef"


def error_body(message: str, **more: object) -> str:
    return json.dumps({"error": {"message": message, **more}})


@pytest.fixture
def plain(ask_proxy, proxy):
    """The verdicts when nothing goes wrong."""
    answer = ask_proxy().pair_win_prob(PROMPTS, FIRST, SECOND)
    proxy.reset()
    return answer


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "body": error_body("slow down")},
        {"status": 500, "body": "internal error", "content_type": "text/plain"},
        {"status": 503, "body": ""},
        {"status": 408, "body": ""},
        {"drop": True},
        {"status": 200, "body": '{"id": "x", "choi'},
        {"status": 200, "body": "<html>hello</html>", "content_type": "text/html"},
        {"status": 200, "body": "[]"},
        {"status": 200, "body": '{"choices": []}'},
        {"status": 200, "body": '{"choices": [{"message": null}]}'},
        {"status": 200, "body": '{"choices": [{"message": {"content": 7}}]}'},
        {"hang": 1.0},
    ],
    ids=lambda fault: str(next(iter(fault.items()))) + fault.get("body", "")[:16],
)
def test_what_may_pass_is_tried_again_and_counted(ask_proxy, proxy, plain, fault):
    proxy.faults.extend([fault, fault])
    judge = ask_proxy(timeout_seconds=0.5 if "hang" in fault else 30.0, concurrency=2)
    np.testing.assert_array_equal(judge.pair_win_prob(PROMPTS, FIRST, SECOND), plain)
    counters = judge.stats()
    assert counters["retries"] >= 2
    assert counters["calls"] == 6 + counters["retries"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 429, "body": error_body("slow down")}, "HTTP 429: slow down 3 times in a row; lower requests"),
        ({"status": 502, "body": "bad gateway"}, "HTTP 502.* 3 times in a row; look at the log"),
        ({"drop": True}, r"the connection failed \(\w+\) 3 times in a row; check that a server runs at http"),
        ({"status": 200, "body": '{"choi'}, r"the reply is malformed \(JSONDecodeError\) 3 times in a row"),
        ({"status": 200, "body": '{"choices": []}'}, "the reply has no choices 3 times in a row"),
        ({"hang": 0.6}, "the request timed out 3 times in a row; raise timeout_seconds"),
    ],
)
def test_what_does_not_pass_is_one_clear_error_after_the_last_attempt(ask_proxy, proxy, fault, message):
    proxy.always = fault
    judge = ask_proxy(timeout_seconds=0.3 if "hang" in fault else 30.0, max_retries=2)
    with pytest.raises(JudgeError, match=message):
        judge.pair_win_prob(*ONE)
    assert judge.stats()["retries"] == 2
    assert len(proxy.bodies) == 3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            {"status": 404, "body": error_body("no such model")},
            "HTTP 404: no such model; check that the model is called",
        ),
        ({"status": 429, "body": error_body("pay", code="insufficient_quota")}, "has no quota left"),
        (
            {"status": 400, "body": error_body("This model's maximum context length is 100 tokens")},
            "set max_length to less than the model's context",
        ),
        ({"status": 405, "body": ""}, "HTTP 405; check that"),
    ],
)
def test_what_cannot_pass_is_not_tried_again(ask_proxy, proxy, fault, message):
    proxy.always = fault
    judge = ask_proxy(judge={"logprobs": "never"})
    with pytest.raises(JudgeError, match=message):
        judge.pair_win_prob(*ONE)
    assert len(proxy.bodies) == 1


def test_a_model_that_the_server_does_not_know_is_its_own_error(ask_proxy):
    with pytest.raises(JudgeError, match=r"model 'other/model' at http.*HTTP 400.*pinned to"):
        ask_proxy(model="other/model").pair_win_prob(*ONE)


def test_a_server_that_is_down_is_one_clear_error(verdict_folder):
    url = f"http://127.0.0.1:{free_port()}/v1"
    judge = LanguageModelJudge(EndpointBackend(verdict_folder, EndpointSettings(base_url=url, max_retries=1)))
    with pytest.raises(
        JudgeError, match=f"the connection failed .* 2 times in a row; check that a server runs at {url}"
    ):
        judge.pair_win_prob(*ONE)


def test_retry_after_is_honoured_by_all_requests(ask_proxy, proxy):
    proxy.faults.append({"status": 429, "headers": {"Retry-After": "1.2"}, "body": error_body("slow down")})
    judge = ask_proxy(concurrency=1)
    judge.pair_win_prob(PROMPTS[:2], FIRST[:2], SECOND[:2])
    assert proxy.times[1] - proxy.times[0] >= 1.2
    proxy.reset()
    # With two at a time the other one waits too, unless it was out already.
    proxy.faults.append({"status": 429, "headers": {"Retry-After": "1.2"}, "body": error_body("slow down")})
    ask_proxy(concurrency=2).pair_win_prob(PROMPTS, FIRST, SECOND)
    early = [t for t in proxy.times if t < proxy.times[0] + 1.2]
    assert len(early) <= 4


def test_retry_after_is_read_as_seconds_and_as_a_date():
    assert retry_after_seconds({"retry-after": "7"}) == 7.0
    assert retry_after_seconds({}) is None
    assert retry_after_seconds({"retry-after": "soon"}) is None
    assert retry_after_seconds({"retry-after": "inf"}) is None
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    found = retry_after_seconds({"retry-after": date})
    assert found is not None and 27.0 < found <= 31.0
    assert retry_after_seconds({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0.0


def test_a_server_that_asks_for_too_long_a_wait_is_not_waited_for(ask_proxy, proxy):
    proxy.always = {"status": 429, "headers": {"Retry-After": "86400"}, "body": error_body("slow down")}
    since = time.monotonic()
    with pytest.raises(JudgeError, match="asks to wait 86400 seconds, which is too long"):
        ask_proxy().pair_win_prob(*ONE)
    assert time.monotonic() - since < 10.0


def test_waits_double_up_to_a_limit_and_are_drawn_at_random(monkeypatch):
    monkeypatch.setattr("magnetar.judges.language_model.backends.pacing.FIRST_WAIT_SECONDS", 0.5)
    assert [backoff_seconds(n, 0.0) for n in (1, 2, 3, 4, 20)] == [0.25, 0.5, 1.0, 2.0, 15.0]
    assert [backoff_seconds(n, 1.0) for n in (1, 2, 3, 4, 20)] == [0.5, 1.0, 2.0, 4.0, 30.0]
    assert len({backoff_seconds(3) for _ in range(20)}) > 10


def test_a_deadline_ends_the_whole_call_and_keeps_what_is_finished(ask_proxy, proxy):
    proxy.faults.extend([{}, {}, {"hang": 8.0}])
    judge = ask_proxy(deadline_seconds=4.0, concurrency=1)
    since, kept = time.monotonic(), []
    with pytest.raises(JudgeError, match=r"2 of 6 questions were answered within deadline_seconds = 4"):
        for index, _ in judge.iter_pair_win_prob(PROMPTS, FIRST, SECOND):
            kept.extend(index.tolist())
    assert kept == [0, 1]
    assert time.monotonic() - since < 7.0


def test_a_failing_call_keeps_what_was_answered_and_what_is_under_way(ask_proxy, proxy, plain):
    # The second request is slow and was paid for when the third fails for good.
    proxy.faults.extend([{}, {"hang": 1.0}, {"hang": 0.3, "status": 404, "body": error_body("gone")}])
    proxy.always = {"status": 404, "body": error_body("gone")}
    kept: dict[int, float] = {}
    with pytest.raises(JudgeError, match="HTTP 404: gone"):
        for index, answer in ask_proxy(concurrency=2).iter_pair_win_prob(PROMPTS, FIRST, SECOND):
            kept[int(index[0])] = float(answer[0])
    assert len(kept) == 2
    assert all(plain[at] == answer for at, answer in kept.items())


def test_a_reply_that_cannot_be_read_does_not_lose_those_that_are_there_or_under_way(ask_proxy, proxy, plain):
    unreadable = {"status": 200, "body": '{"choices": [{"message": {"content": "Neither."}}]}'}
    proxy.faults.extend([{"hang": 0.3}, unreadable, {"hang": 1.0}])
    kept: dict[int, float] = {}
    with pytest.raises(JudgeError, match="gave no verdict: the reply 'Neither"):
        for index, answer in ask_proxy(concurrency=3).iter_pair_win_prob(PROMPTS, FIRST, SECOND):
            kept[int(index[0])] = float(answer[0])
    assert len(kept) == len(proxy.bodies) - 1 < len(PROMPTS)  # all that was paid for, and nothing is asked in vain
    assert all(plain[at] == answer for at, answer in kept.items())


def test_an_event_loop_that_cannot_start_is_an_error_and_no_endless_wait(monkeypatch):
    def no_files(coroutine):
        coroutine.close()
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio, "run", no_files)

    async def produce(put):
        raise AssertionError("never called")

    with pytest.raises(OSError, match="too many open files"):
        next(iterate(produce))


def test_a_budget_of_calls_is_never_exceeded(ask_proxy, proxy):
    judge, kept = ask_proxy(max_calls=4, concurrency=3), []
    with pytest.raises(JudgeError, match="the budget of max_calls = 4 requests is used up"):
        for index, _ in judge.iter_pair_win_prob(PROMPTS, FIRST, SECOND):
            kept.extend(index.tolist())
    assert len(proxy.bodies) == len(kept) == 4
    with pytest.raises(JudgeError, match="max_calls = 4"):
        judge.pair_win_prob(*ONE)
    assert len(proxy.bodies) == 4


def test_retries_are_requests_of_the_budget_too(ask_proxy, proxy):
    proxy.always = {"status": 500, "body": ""}
    with pytest.raises(JudgeError, match="max_calls = 2"):
        ask_proxy(max_calls=2, max_retries=9).pair_win_prob(*ONE)
    assert len(proxy.bodies) == 2


def test_a_budget_of_tokens_is_never_exceeded_and_nearly_used(ask_proxy, proxy):
    whole = ask_proxy()
    whole.pair_win_prob(PROMPTS, FIRST, SECOND)
    one = (whole.stats()["tokens_in"] + 12) / 6
    limit = int(3.6 * one)
    judge = ask_proxy(max_tokens_total=limit, concurrency=4)
    with pytest.raises(JudgeError, match=f"the budget of max_tokens_total = {limit} tokens has .* left"):
        judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    counters = judge.stats()
    assert 2.5 * one < counters["tokens_in"] + counters["tokens_out"] <= limit


def test_a_server_that_does_not_say_what_was_used_is_charged_the_most(ask_proxy, proxy):
    def forget(body: str) -> str:
        return json.dumps({key: value for key, value in json.loads(body).items() if key != "usage"})

    proxy.always = {"edit": forget}
    judge = ask_proxy(max_tokens_total=3000, concurrency=1)
    with pytest.raises(JudgeError, match="max_tokens_total = 3000"):
        judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    assert judge.stats()["calls_without_usage"] == 2 == len(proxy.bodies)


def test_logprobs_give_the_renormalised_probability(ask_proxy, proxy):
    proxy.always = with_logprobs({"A": math.log(0.6), " A": math.log(0.1), "B": math.log(0.2), "Well": math.log(0.05)})
    judge = ask_proxy()
    assert judge.pair_win_prob(*ONE)[0] == pytest.approx(0.7 / 0.9)
    counters = judge.stats()
    assert counters["choice_mass_mean"] == pytest.approx(0.9)
    assert "text_answers" not in counters


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"A": math.nan, "B": -1.0}, "'A' has the log-probability nan, expected at most 0"),
        ({"A": 0.7, "B": -1.0}, "'A' has the log-probability 0.7"),
        ({"A": "high", "B": -1.0}, "'A' has the log-probability 'high'"),
        ({"A": None}, "'A' has the log-probability None"),
        ({"A": -0.1, "B": -0.1}, r"the tokens sum to 1\.81, expected at most 1"),
        ({"A": -9.0, "B": -9.5, "Sure": -0.01}, "only 0.000198 of the probability is on A, B, expected at least 0.1"),
    ],
)
def test_impossible_or_unclear_logprobs_are_unreadable(ask_proxy, proxy, pairs, message):
    proxy.always = with_logprobs(pairs)
    with pytest.raises(JudgeError, match=f"gave no verdict: .*{message}"):
        ask_proxy().pair_win_prob(*ONE)
    masking = ask_proxy(judge={"on_unreadable": "mask"})
    assert np.isnan(masking.pair_win_prob(*ONE)).all()
    assert masking.stats()["masked"] == 1


def test_a_server_that_refuses_logprobs_is_asked_for_text_from_then_on(ask_proxy, proxy, plain, caplog):
    proxy.always = {"refuse": "logprobs"}
    judge = ask_proxy(concurrency=1)
    with caplog.at_level(logging.WARNING, logger="magnetar"):
        np.testing.assert_array_equal(judge.pair_win_prob(PROMPTS, FIRST, SECOND), plain)
    assert sum("logprobs" in body for body in proxy.bodies) == 1
    assert judge.stats()["logprobs_refused"] == 1
    assert sum("refuses log-probabilities" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(JudgeError, match="HTTP 400: unknown field: logprobs"):
        ask_proxy(judge={"logprobs": "require"}).pair_win_prob(*ONE)


def test_a_server_that_knows_the_newer_name_of_the_limit_only_is_asked_with_it(ask_proxy, proxy, plain):
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    proxy.faults.append({"status": 400, "body": error_body(message)})
    judge = ask_proxy(concurrency=1)
    np.testing.assert_array_equal(judge.pair_win_prob(PROMPTS, FIRST, SECOND), plain)
    assert ["max_tokens" in body for body in proxy.bodies] == [True] + [False] * 6
    assert proxy.bodies[1]["max_completion_tokens"] == 8


def test_a_content_filter_is_no_verdict(ask_proxy, proxy):
    body = {"choices": [{"finish_reason": "content_filter", "message": {"content": "A"}}]}
    proxy.always = {"status": 200, "body": json.dumps(body)}
    with pytest.raises(JudgeError, match="gave no verdict: the server's content filter"):
        ask_proxy().pair_win_prob(*ONE)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_key_is_sent_and_appears_nowhere_else(ask_proxy, proxy, monkeypatch, caplog, status):
    """Also where the server repeats it in its error."""
    monkeypatch.setenv("MY_JUDGE_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    judge = ask_proxy(api_key_env="MY_JUDGE_KEY", max_retries=1)
    judge.pair_win_prob(*ONE)
    assert proxy.headers[0]["authorization"] == f"Bearer {SECRET}"
    proxy.always = {"status": status, "body": error_body("wrong key: {authorization} " + SECRET[:12])}
    with pytest.raises(JudgeError) as caught:
        judge.pair_win_prob(*ONE)
    if status in (401, 403):
        assert "does not accept the key in the environment variable MY_JUDGE_KEY" in str(caught.value)
        assert SECRET[:12] not in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in "".join(traceback.format_exception(error, chain=True))
        assert SECRET not in repr(error.args)
        error = error.__cause__ or error.__context__
    assert SECRET not in caplog.text
    assert SECRET not in json.dumps(judge._identity())
    assert SECRET not in repr(vars(judge)) + repr(vars(judge.backend)) + repr(judge.backend.settings) + judge.name
    assert SECRET.encode() not in pickle.dumps(judge.backend.settings)


def test_no_key_is_sent_to_a_server_on_this_machine_unless_one_is_named(ask_proxy, proxy, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    ask_proxy().pair_win_prob(*ONE)
    assert SECRET not in str(proxy.headers)


def test_a_key_that_goes_missing_is_one_clear_error(ask_proxy, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", SECRET)
    judge = ask_proxy(api_key_env="MY_JUDGE_KEY")
    monkeypatch.setenv("MY_JUDGE_KEY", "two words")
    with pytest.raises(JudgeError, match="MY_JUDGE_KEY holds blanks or letters that no key has"):
        judge.pair_win_prob(*ONE)
    monkeypatch.delenv("MY_JUDGE_KEY")
    with pytest.raises(JudgeError, match=r"MY_JUDGE_KEY, which is to hold the key for http.*, is not set"):
        judge.pair_win_prob(*ONE)


def test_a_run_that_fails_midway_is_taken_up_where_it_stopped(proxy, verdict_folder, tmp_path, plain):
    """With a cache around both orders, nothing that was answered is asked again."""
    spec = {"kind": "llm", "model": verdict_folder, "base_url": proxy.url, "concurrency": 2}
    cache = str(tmp_path / "answers.sqlite")
    proxy.faults.extend([{}] * 7)
    proxy.always = {"status": 404, "body": error_body("gone")}
    with pytest.raises(JudgeError, match="HTTP 404"):
        build_judge(spec, cache=cache).pair_win_prob(PROMPTS, FIRST, SECOND)
    proxy.reset()
    judge = build_judge(spec, cache=cache)
    assert isinstance(judge.pair_win_prob(PROMPTS, FIRST, SECOND), np.ndarray)
    # Six pairs are twelve questions; seven were answered, so at least three whole pairs and all but one of the rest.
    assert 12 - 7 <= len(proxy.bodies) <= 12 - 6
    proxy.reset()
    judge.pair_win_prob(PROMPTS, FIRST, SECOND)
    assert not proxy.bodies
