"""The folder in which the documentation's code runs, and an account of what ran."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workshop import MODEL, build_workshop

RAN: Counter[str] = Counter()
NOT_RUN: list[str] = []


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def workshop(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A fresh copy as the working directory; the embedded model is a tiny one there, unless the test is a slow one."""
    shutil.copytree(furnished.parent, tmp_path / "copy", symlinks=True)
    work = tmp_path / "copy" / furnished.name
    monkeypatch.chdir(work)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-reader")
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr("magnetar.modeling.loading.demo_model_folder", lambda: work / MODEL)
    return work


@pytest.fixture
def account() -> Iterator[tuple[Counter[str], list[str]]]:
    """What was checked, by kind, and what was not, with the reason."""
    yield RAN, NOT_RUN


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not RAN:
        return
    terminalreporter.section("documentation")
    terminalreporter.write_line(", ".join(f"{count} {kind}" for kind, count in sorted(RAN.items())))
    for line in NOT_RUN:
        terminalreporter.write_line(f"not run: {line}")
