"""The files of a user's own that a module imports, found without importing anything."""

import ast
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import resolve_name
from pathlib import Path

__all__ = ["own_imports"]

LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
INSTALLED = {"site-packages", "dist-packages"}
OURS = Path(__file__).resolve().parents[1]


def own_imports(text: str, package: str) -> dict[Path, str]:
    """Texts of the modules that a module imports, and of those that these import, as far as they are the user's own.

    Installed packages and the standard library are left out: they have versions, and change rarely.

    Args:
        text: Source of the module.
        package: Package of the module, in which relative imports begin; empty for none.

    Returns:
        Text by file, in the order in which they are met.
    """
    found: dict[Path, str] = {}
    _collect(text, package, found)
    return found


def _collect(text: str, package: str, found: dict[Path, str]) -> None:
    for name in sorted(set(_imported_names(text, package))):
        for file, within in _files_of(name):
            if file in found or not _is_own(file):
                continue
            try:
                found[file] = file.read_text(encoding="utf-8", errors="replace")
            except OSError:  # a module without a readable source is known by its name alone
                continue
            _collect(found[file], within, found)


def _imported_names(text: str, package: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a part of a module, such as a method
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            except ImportError:
                continue
            # What is imported from a package may be a module of it.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files_of(name: str) -> Iterator[tuple[Path, str]]:
    """Source files of a module and of the packages around it, each with the package that it is in."""
    parts, path = name.split("."), None
    for size in range(1, len(parts) + 1):
        current = ".".join(parts[:size])
        try:
            spec = PathFinder.find_spec(current, path)
        except (ImportError, ValueError):
            return
        if spec is None:
            return
        if spec.has_location and spec.origin and spec.origin.endswith(".py"):
            is_package = spec.submodule_search_locations is not None
            yield Path(spec.origin).resolve(), current if is_package else ".".join(parts[: size - 1])
        if spec.submodule_search_locations is None:
            return
        path = list(spec.submodule_search_locations)


def _is_own(file: Path) -> bool:
    return not INSTALLED & set(file.parts) and not any(folder in file.parents for folder in (*LIBRARIES, OURS))
