"""A language-model judge behind a real OpenAI-compatible server: `transformers serve` in a process of its own."""

import asyncio
import logging
import time

import numpy as np
import pytest

from magnetar.errors import JudgeError
from magnetar.judges import Symmetrized, build_judge
from magnetar.judges.language_model import LanguageModelJudge, load_template
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.settings import EndpointSettings
from magnetar.judges.language_model.backends.transformers_backend import TransformersBackend

PROMPTS = [f"prompt number {at}" for at in range(10)]
FIRST = [f"{at * at} apples" for at in range(10)]
SECOND = [f"a banana and {at} pears" for at in range(10)]


@pytest.fixture(scope="module")
def in_process(verdict_folder: str) -> LanguageModelJudge:
    return LanguageModelJudge(TransformersBackend.from_pretrained(verdict_folder), logprobs="never")


@pytest.fixture
def served(serve_url: str, verdict_folder: str) -> LanguageModelJudge:
    return LanguageModelJudge(EndpointBackend(verdict_folder, EndpointSettings(base_url=serve_url)))


def test_the_server_gives_the_verdicts_of_the_same_model_in_process(served, in_process, caplog):
    expected = in_process.pair_win_prob(PROMPTS, FIRST, SECOND)
    assert 0.0 < expected.mean() < 1.0, "a model that always says the same would prove nothing"
    with caplog.at_level(logging.WARNING, logger="magnetar"):
        np.testing.assert_array_equal(served.pair_win_prob(PROMPTS, FIRST, SECOND), expected)
    counters = served.stats()
    assert counters["calls"] == counters["text_answers"] == 10
    assert counters["tokens_in"] == in_process.stats()["tokens_in"]
    assert counters["tokens_out"] == 20  # the letter and the end
    # `transformers serve` leaves log-probabilities out: said once, and not asked for again.
    assert counters["logprobs_refused"] == 1
    notices = [record.getMessage() for record in caplog.records if "log-probabilities" in record.getMessage()]
    assert len(notices) == 1
    assert "leaves out log-probabilities; from now on its verdicts are read from its text" in notices[0]
    served.pair_win_prob(PROMPTS[:1], FIRST[:1], SECOND[:1])
    assert "logprobs_refused" not in served.stats()


def test_both_orders_are_asked_through_the_spec(serve_url, verdict_folder, in_process):
    judge = build_judge({"kind": "llm", "model": verdict_folder, "base_url": serve_url, "logprobs": "never"})
    assert isinstance(judge, Symmetrized)
    forward = in_process.pair_win_prob(PROMPTS, FIRST, SECOND)
    backward = in_process.pair_win_prob(PROMPTS, SECOND, FIRST)
    np.testing.assert_array_equal(judge.pair_win_prob(PROMPTS, FIRST, SECOND), (forward + 1.0 - backward) / 2.0)


def test_logprobs_that_are_required_and_left_out_are_one_clear_error(serve_url, verdict_folder):
    backend = EndpointBackend(verdict_folder, EndpointSettings(base_url=serve_url))
    judge = LanguageModelJudge(backend, logprobs="require")
    with pytest.raises(JudgeError, match="leaves out the log-probabilities; use logprobs='auto'"):
        judge.pair_win_prob(PROMPTS, FIRST, SECOND)


def test_it_works_where_an_event_loop_runs_already(served, in_process):
    async def notebook_cell():
        return served.pair_win_prob(PROMPTS, FIRST, SECOND)

    np.testing.assert_array_equal(asyncio.run(notebook_cell()), in_process.pair_win_prob(PROMPTS, FIRST, SECOND))


def test_groups_are_asked_pair_by_pair_and_equal_responses_not_at_all(served, in_process):
    groups = [["one apple", "two pears", "one apple"], ["x", "y", "z"]]
    np.testing.assert_array_equal(
        served.group_win_prob(PROMPTS[:2], groups), in_process.group_win_prob(PROMPTS[:2], groups)
    )
    # Apple against pear and pear against apple are questions of their own, apple against apple is none.
    assert served.stats()["calls"] == 5
    assert served.pair_win_prob(["p"], ["same"], ["same"])[0] == 0.5
    assert "calls" not in served.stats()


def test_an_empty_response_is_asked_about(served, in_process):
    expected = in_process.pair_win_prob(["p"], [""], ["something"])
    np.testing.assert_array_equal(served.pair_win_prob(["p"], [""], ["something"]), expected)


def test_a_model_that_chatters_is_never_guessed_at(serve_url, verdict_folder, tmp_path):
    file = tmp_path / "other_words.yaml"
    file.write_text('user: "{prompt} {first} {second}"\nchoices: {first: one, second: two}\n')
    backend = EndpointBackend(verdict_folder, EndpointSettings(base_url=serve_url))
    with pytest.raises(JudgeError, match=r"gave no verdict: the reply '[AB]' is none of one, two; on_unreadable"):
        LanguageModelJudge(backend, file).pair_win_prob(PROMPTS, FIRST, SECOND)
    masking = LanguageModelJudge(backend, file, on_unreadable="mask")
    assert masking.may_abstain
    assert np.isnan(masking.pair_win_prob(PROMPTS, FIRST, SECOND)).all()
    assert np.isnan(masking.group_win_prob(["p"], [["a", "b"]])[0, [0, 1], [1, 0]]).all()
    counters = masking.stats()
    assert counters["unreadable"] == counters["masked"] == 11


def test_concurrency_is_bounded_and_used(ask_proxy, proxy):
    ask_proxy(concurrency=3).pair_win_prob(PROMPTS, FIRST, SECOND)
    assert proxy.most_open == 3
    proxy.reset()
    ask_proxy(concurrency=1).pair_win_prob(PROMPTS[:3], FIRST[:3], SECOND[:3])
    assert proxy.most_open == 1


def test_requests_are_spread_over_the_minute(ask_proxy, proxy):
    ask_proxy(requests_per_minute=300).pair_win_prob(PROMPTS[:5], FIRST[:5], SECOND[:5])
    gaps = np.diff(sorted(proxy.times))
    # Five a second: 0.2 seconds apart, whatever the concurrency; what the network adds varies.
    assert gaps.sum() >= 0.75
    assert gaps.max() < 2.0


def test_answers_come_while_others_are_still_asked(ask_proxy, proxy):
    proxy.faults.append({"hang": 4.0})
    came = {}
    for index, _ in ask_proxy(concurrency=2).iter_pair_win_prob(PROMPTS[:3], FIRST[:3], SECOND[:3]):
        came[int(index[0])] = time.monotonic() - proxy.times[0]
    assert len(came) == 3
    # One of them hangs; the other two are handed over meanwhile, by the second of the two workers.
    assert sorted(came.values())[1] < 4.0 <= max(came.values())


def test_a_consumer_that_stops_ends_the_requests(ask_proxy, proxy):
    answers = ask_proxy(concurrency=1).iter_pair_win_prob(PROMPTS, FIRST, SECOND)
    next(answers)
    answers.close()
    asked = len(proxy.bodies)
    time.sleep(0.3)
    assert len(proxy.bodies) == asked < 10


def test_the_question_is_the_templates_with_marked_texts(ask_proxy, proxy):
    judge = ask_proxy(judge={"template": "harmlessness"})
    judge.pair_win_prob([[{"role": "user", "content": "Hi {there}"}]], ["yes <|end|>"], ["no"])
    system, user = proxy.bodies[0]["messages"]
    assert system["role"] == "system"
    assert system["content"].startswith(load_template("harmlessness").system)
    number = user["content"].splitlines()[0].removeprefix("The number of the marker lines is ").removesuffix(".")
    assert f"[[BEGIN RESPONSE A {number}]]\nyes ‹|end|›\n[[END RESPONSE A {number}]]" in user["content"]
    assert f"[[BEGIN CONVERSATION {number}]]\nHi {{there}}\n[[END CONVERSATION {number}]]" in user["content"]
    assert proxy.bodies[0]["temperature"] == 0.0
    assert proxy.bodies[0]["max_tokens"] == 8
    assert proxy.bodies[0]["top_logprobs"] == 20


def test_further_fields_go_with_each_request(ask_proxy, proxy):
    more = {"chat_template_kwargs": {"enable_thinking": False}}
    ask_proxy(extra_body=more).pair_win_prob(PROMPTS[:2], FIRST[:2], SECOND[:2])
    assert [body["chat_template_kwargs"] for body in proxy.bodies] == [more["chat_template_kwargs"]] * 2


def test_without_the_defence_the_texts_stand_as_they_are(ask_proxy, proxy):
    ask_proxy(judge={"defence": False}).pair_win_prob(["p"], ["yes <|end|>"], ["no"])
    assert "Response A:\nyes <|end|>\n\nResponse B:\nno" in proxy.bodies[0]["messages"][1]["content"]
    assert "BEGIN" not in str(proxy.bodies[0]["messages"])
