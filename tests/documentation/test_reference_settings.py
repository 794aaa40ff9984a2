"""The API reference shows what a setting is when it is not given, and says what it is for."""

from dataclasses import fields
from typing import Any

import pytest
from documented_pages import ROOT

from magnetar.training import config

OWN = {field.name: field for field in fields(config.NashConfig) if field.name in config.NashConfig.__annotations__}


@pytest.fixture(scope="module")
def read() -> Any:
    """The class as the reference reads it: from its source."""
    griffe = pytest.importorskip("griffe", reason="the extra magnetar[docs] is not installed")
    path = ROOT / "src/magnetar/training/config.py"
    extensions = griffe.load_extensions(str(ROOT / "tools/site/settings_fields.py"))
    code = path.read_text(encoding="utf-8")
    module = griffe.visit("config", filepath=path, code=code, extensions=extensions, docstring_parser="google")
    return module["NashConfig"]


def test_defaults_are_shown_and_not_how_fields_are_made(read: Any) -> None:
    assert len(OWN) > 40
    for name, field in OWN.items():
        assert eval(str(read[name].value), dict(vars(config))) == field.default


def test_every_setting_is_described(read: Any) -> None:
    (listed,) = (section for section in read.docstring.parsed if section.kind.value == "attributes")
    assert {one.name: one.description for one in listed.value} == {n: f.metadata["help"] for n, f in OWN.items()}
