"""Specs of language-model judges: everything that can be known without a request or a model is said first."""

import importlib.util
import logging
from pathlib import Path

import pytest

from magnetar.errors import JudgeError, MissingDependencyError
from magnetar.judges import Symmetrized, build_judge, parse_judge_spec
from magnetar.judges.language_model import LanguageModelJudge
from magnetar.judges.language_model.backends.endpoint import EndpointBackend

LOCAL = {"kind": "llm", "model": "m", "base_url": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "unknown backend 'tensorflow'"),
        ({"template": "helpful"}, "unknown template 'helpful'; did you mean 'helpfulness'"),
        ({"template": "no.yaml"}, "there is no template file"),
        ({"logprobs": "always"}, "logprobs = 'always', expected 'auto', 'require' or 'never'"),
        ({"logprobs": True}, "logprobs = True"),
        ({"on_unreadable": "skip"}, "on_unreadable = 'skip', expected 'raise' or 'mask'"),
        ({"on_long": "left"}, "on_long = 'left', expected 'middle' or 'error'"),
        ({"max_length": 0}, "max_length = 0"),
        ({"max_length": 1.5}, "max_length = 1.5"),
        ({"min_choice_mass": 1.5}, r"min_choice_mass = 1.5, expected a probability in \[0, 1\]"),
        ({"min_choice_mass": "much"}, "min_choice_mass = 'much'"),
        ({"concurrency": 0}, "concurrency = 0, expected an integer at least 1"),
        ({"concurrency": 2.0}, "concurrency = 2.0"),
        ({"timeout_seconds": 0}, "timeout_seconds = 0, expected a positive number"),
        ({"timeout_seconds": None}, "timeout_seconds = None"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds = nan"),
        ({"max_retries": -1}, "max_retries = -1"),
        ({"max_calls": 0}, "max_calls = 0"),
        ({"max_tokens_total": "1k"}, "max_tokens_total = '1k'"),
        ({"requests_per_minute": -3}, "requests_per_minute = -3"),
        ({"temperature": 3.0}, "temperature = 3.0, expected a number from 0 to 2"),
        ({"top_logprobs": 50}, "top_logprobs = 50, expected an integer from 2 to 20"),
        ({"extra_body": ["a"]}, r"extra_body = \['a'\], expected a mapping"),
        ({"extra_body": {"a": {1, 2}}}, "expected a mapping that JSON can write"),
        ({"extra_body": {"temperature": 1.0}}, "extra_body holds temperature, which the judge's own options set"),
        ({"base_url": "localhost:8000"}, "base_url = 'localhost:8000', expected a URL"),
        ({"base_url": ""}, "base_url = '', expected text"),
        ({"symmetrize": "yes"}, "symmetrize = 'yes', expected true or false"),
        ({"defence": 1}, "defence = 1, expected true or false"),
        ({"version": 2}, "version = 2, expected text"),
        ({"device": "cuda"}, "device has no effect with backend 'endpoint', only with 'transformers'"),
        ({"temprature": 0.0}, "did you mean 'temperature'"),
        ({"api_key_env": "sk-abc123456789"}, "api_key_env is not the name of an environment variable"),
        ({"api_key_env": "NO_SUCH_VARIABLE_HERE"}, "NO_SUCH_VARIABLE_HERE, which is to hold the key"),
    ],
)
def test_a_wrong_option_is_one_clear_error_before_anything_is_asked(options: dict, message: str):
    with pytest.raises(JudgeError, match=message):
        parse_judge_spec({**LOCAL, **options})
    with pytest.raises(JudgeError, match=message):
        build_judge({**LOCAL, **options})


def test_options_of_an_endpoint_are_refused_in_process():
    with pytest.raises(JudgeError, match="concurrency has no effect with backend 'transformers', only with 'endpoint'"):
        parse_judge_spec("llm:demo", concurrency=3)
    with pytest.raises(JudgeError, match="there is no such folder"):
        parse_judge_spec("llm:./no/such/folder", backend="transformers")
    with pytest.raises(JudgeError, match="'llm' needs a model; write llm:MODEL"):
        parse_judge_spec("llm")


def test_a_url_with_a_secret_in_it_is_refused_without_repeating_it():
    for url in ("http://user:hunter22@host/v1", "https://host/v1?api_key=hunter22"):
        with pytest.raises(JudgeError, match="base_url holds a user, a password or a query") as caught:
            parse_judge_spec({**LOCAL, "base_url": url})
        assert "hunter22" not in str(caught.value)


def test_the_key_is_demanded_for_other_machines_only(monkeypatch, caplog):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for base_url in (None, "https://example.org/v1"):
        with pytest.raises(JudgeError, match=r"OPENAI_API_KEY, which is to hold the key for https://.*set it"):
            parse_judge_spec("llm:m", base_url=base_url)
    for base_url in ("http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        parse_judge_spec("llm:m", base_url=base_url)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    judge = build_judge("llm:m", symmetrize=False)
    assert isinstance(judge, LanguageModelJudge)
    assert judge.backend.identity()["base_url"] == "http://localhost:1/v1"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter22")
    with caplog.at_level(logging.WARNING, logger="magnetar"):
        parse_judge_spec("llm:m", base_url="http://example.org/v1")
    assert "goes to http://example.org/v1 unencrypted" in caplog.text
    assert "hunter22" not in caplog.text


def test_a_missing_client_names_the_extra(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("openai", "vllm") else real(name))
    with pytest.raises(MissingDependencyError, match=r'needs openai.*pip install "magnetar\[llm\]"'):
        parse_judge_spec(LOCAL)
    with pytest.raises(MissingDependencyError, match=r'needs the package vllm.*pip install "magnetar\[vllm\]"'):
        parse_judge_spec("llm:demo", backend="vllm")


def test_a_template_that_reasons_cannot_require_logprobs(tmp_path: Path):
    file = tmp_path / "reasons.yaml"
    file.write_text('user: "{prompt}{first}{second}"\nchoices: {first: A, second: B}\nverdict_marker: "Verdict:"\n')
    with pytest.raises(JudgeError, match="with a template that has a verdict_marker"):
        parse_judge_spec({**LOCAL, "template": str(file), "logprobs": "require"})
    judge = build_judge({**LOCAL, "template": str(file), "symmetrize": False})
    assert isinstance(judge, LanguageModelJudge)
    assert judge.logprobs == "never"


def test_the_spec_builds_an_endpoint_judge_of_both_orders():
    judge = build_judge({**LOCAL, "model": "qwen2.5:7b", "concurrency": 3, "version": "2026-11"})
    assert isinstance(judge, Symmetrized)
    inner = judge.judge
    assert isinstance(inner, LanguageModelJudge) and isinstance(inner.backend, EndpointBackend)
    assert judge.name == "llm:qwen2.5:7b"
    assert inner.backend.model == "qwen2.5:7b"
    assert inner.backend.settings.concurrency == 3


def identity(**options: object) -> str:
    return build_judge({**LOCAL, **options}).identity()


def test_the_identity_of_a_served_model_belongs_to_what_decides_its_answers():
    different = [
        {},
        {"model": "other"},
        {"base_url": "http://localhost:2/v1"},
        {"temperature": 0.5},
        {"top_logprobs": 5},
        {"extra_body": {"seed": 3}},
        {"template": "both"},
        {"defence": False},
        {"version": "2"},
        {"logprobs": "never"},
        {"on_long": "error"},
    ]
    assert len({identity(**options) for options in different}) == len(different)
    same = {"concurrency": 2, "timeout_seconds": 5.0, "max_retries": 1, "max_calls": 9, "requests_per_minute": 3.0}
    assert identity(**same) == identity()
