"""Scripts of benchmarks/, which is no package, as modules."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["load_script"]

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load_script(name: str) -> ModuleType:
    """A script of benchmarks/; its siblings must be loaded before it."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
