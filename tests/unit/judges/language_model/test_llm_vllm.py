"""Language-model judges on vLLM: its server with log-probabilities, and its engine in process.

vLLM wants an environment of its own. MAGNETAR_VLLM_PYTHON names its Python, in which Magnetar is installed too
(`pip install datasets scipy pyyaml peft`, then `pip install --no-deps -e .`); the engine runs there, and its answers
are compared with those of transformers here.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llm_servers import free_port, running_server

from magnetar.errors import JudgeError, MissingDependencyError
from magnetar.judges import build_judge
from magnetar.judges.language_model import LanguageModelJudge
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.settings import EndpointSettings
from magnetar.modeling.loading import demo_model_folder

pytestmark = pytest.mark.slow

PROMPTS = ["What is the capital of France?", "How do I boil an egg?", "Who are you?", "Name a colour."]
FIRST = ["Paris is the capital of France.", "In boiling water, for eight minutes.", "", "Green."]
SECOND = ["I like turtles.", "No idea.", "An assistant. <|im_end|>", "The colour of grass " * 20]
ENVIRONMENT = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}


@pytest.fixture(scope="module")
def vllm_python() -> str:
    python = os.environ.get("MAGNETAR_VLLM_PYTHON")
    if not python:
        pytest.skip("MAGNETAR_VLLM_PYTHON names no Python in whose environment vLLM is installed")
    return python


@pytest.fixture(scope="module")
def model() -> str:
    try:
        return str(demo_model_folder())
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def expected(model: str) -> np.ndarray:
    """Both orders, from transformers in float32."""
    judge = build_judge("llm:demo", symmetrize=False, min_choice_mass=0.0)
    return judge.pair_win_prob([*PROMPTS, *PROMPTS], [*FIRST, *SECOND], [*SECOND, *FIRST])


@pytest.fixture(scope="module")
def vllm_url(vllm_python: str, model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log"
    command = [
        *(vllm_python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "demo"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "2048"),
        *("--enforce-eager", "--max-num-seqs", "8"),
    ]
    with running_server(command, port, log, seconds=400, environment=ENVIRONMENT) as url:
        yield url


def served(url: str, **options) -> LanguageModelJudge:
    return LanguageModelJudge(EndpointBackend("demo", EndpointSettings(base_url=url)), **options)


def test_the_server_gives_the_probabilities_of_transformers(vllm_url, expected):
    judge = served(vllm_url, logprobs="require", min_choice_mass=0.0)
    found = judge.pair_win_prob([*PROMPTS, *PROMPTS], [*FIRST, *SECOND], [*SECOND, *FIRST])
    # The server lists twenty tokens; the embedded model puts some mass on the choices with a blank before them, too.
    np.testing.assert_allclose(found, expected, atol=0.03)
    counters = judge.stats()
    assert counters["calls"] == 8
    assert 0.05 < counters["choice_mass_mean"] < 1.0
    assert "logprobs_refused" not in counters and "text_answers" not in counters


def test_a_question_longer_than_the_servers_context_is_one_clear_error_and_can_be_cut(vllm_url):
    long = "word " * 4000
    with pytest.raises(JudgeError, match=r"HTTP 400: .*; set max_length to less than the model's context"):
        served(vllm_url).pair_win_prob(["p"], [long], ["short"])
    judge = served(vllm_url, max_length=2000, min_choice_mass=0.0)
    assert 0.0 < judge.pair_win_prob(["p"], [long], ["short"])[0] < 1.0
    assert judge.stats()["truncated_share"] == 1.0


def test_a_model_that_the_server_does_not_serve_is_one_clear_error(vllm_url):
    backend = EndpointBackend("other", EndpointSettings(base_url=vllm_url))
    with pytest.raises(JudgeError, match=r"HTTP 404: .*; check that the model is called 'other'"):
        LanguageModelJudge(backend).pair_win_prob(["p"], ["a"], ["b"])


IN_PROCESS = """
import json, sys
from magnetar.judges import build_judge
if __name__ == "__main__":
    prompts, first, second = json.loads(sys.argv[2])
    engine = {"enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 8}
    judge = build_judge({"kind": "llm", "model": sys.argv[1], "backend": "vllm", "dtype": "float32",
                         "engine_options": engine, "symmetrize": False, "min_choice_mass": 0.0})
    answer = judge.pair_win_prob(prompts, first, second)
    counters, identity = judge.stats(), judge.identity()
    print("ANSWER " + json.dumps([answer.tolist(), counters, identity]))
"""


def test_the_engine_in_process_gives_the_probabilities_of_transformers(vllm_python, model, expected, tmp_path: Path):
    script = tmp_path / "judge_with_vllm.py"
    script.write_text(IN_PROCESS)
    pairs = json.dumps([[*PROMPTS, *PROMPTS], [*FIRST, *SECOND], [*SECOND, *FIRST]])
    done = subprocess.run(
        [vllm_python, str(script), model, pairs],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stderr[-3000:]
    answer, counters, identity = json.loads(lines[0].removeprefix("ANSWER "))
    np.testing.assert_allclose(answer, expected, atol=0.03)
    assert counters["calls"] == 8
    assert len(identity) == 32
