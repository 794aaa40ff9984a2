"""One tiny model, one real server and one proxy for all tests of language-model judges."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_servers import FaultyProxy, free_port, running_server, transformers_serve
from llm_tiny_model import save_verdict_model

from magnetar.judges.language_model import LanguageModelJudge
from magnetar.judges.language_model.backends.endpoint import EndpointBackend
from magnetar.judges.language_model.backends.settings import EndpointSettings


@pytest.fixture(scope="session")
def verdict_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_verdict_model(tmp_path_factory.mktemp("verdict_model"))


@pytest.fixture(scope="session")
def serve_url(verdict_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("fastapi", reason='a real server needs pip install "transformers[serving]"')
    pytest.importorskip("uvicorn", reason='a real server needs pip install "transformers[serving]"')
    port, log = free_port(), Path(tmp_path_factory.mktemp("serve")) / "log"
    with running_server(transformers_serve(verdict_folder, port), port, log, seconds=120) as url:
        yield url


@pytest.fixture(scope="session")
def _proxy(serve_url: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(serve_url) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy: FaultyProxy) -> FaultyProxy:
    _proxy.reset()
    return _proxy


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are a hundredth of what they are; those that a server asks for stay."""
    monkeypatch.setattr("magnetar.judges.language_model.backends.pacing.FIRST_WAIT_SECONDS", 0.005)


@pytest.fixture
def ask_proxy(proxy: FaultyProxy, verdict_folder: str) -> Callable[..., LanguageModelJudge]:
    """A judge behind the proxy; keywords of the endpoint's settings, and of the judge under `judge`."""

    def make(*, judge: dict[str, Any] | None = None, model: str | None = None, **settings: Any) -> LanguageModelJudge:
        backend = EndpointBackend(model or verdict_folder, EndpointSettings(base_url=proxy.url, **settings))
        return LanguageModelJudge(backend, **(judge or {}))

    return make
