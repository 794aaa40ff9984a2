"""The API reference: one page for each package, with every public name of its modules, read off the docstrings."""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["navigation", "pages"]

TOP = "magnetar"
WITHOUT = ("magnetar.cli",)  # commands, which `--help` documents
ROOMS = ("training", "methods", "games", "judges", "data", "rollout", "evaluation", "reports", "interop", "modeling")


@dataclass(frozen=True)
class Module:
    """A module as its source says it.

    Attributes:
        name: With dots.
        summary: First paragraph of its docstring, on one line.
        exported: Names in ``__all__`` with the module that each comes from.
        described: Names that are defined here and have a docstring.
    """

    name: str
    summary: str
    exported: dict[str, str]
    described: frozenset[str]

    @property
    def own(self) -> list[str]:
        """Exported names that are defined and described here."""
        return [name for name, origin in self.exported.items() if origin == self.name and name in self.described]


def navigation(source: Path) -> list[Any]:
    """Entries of the navigation: the overview, then the rooms from the outside in."""
    packages = _packages(source)
    entries: list[Any] = ["reference/index.md"]
    for room in (TOP, *(f"{TOP}.{name}" for name in _rooms(packages))):
        inside = [name for name in packages if name.startswith(f"{room}.")] if room != TOP else []
        if not inside:
            entries.append({room: _uri(room, packages)})
            continue
        below = ({name.removeprefix(f"{room}."): _uri(name, packages)} for name in inside)
        entries.append({room: [_uri(room, packages), *below]})
    return entries


def pages(source: Path) -> Iterator[tuple[str, str]]:
    """Place and Markdown of each page."""
    packages = _packages(source)
    yield "reference/index.md", _overview(packages)
    known = {module.name: module for modules in packages.values() for module in modules}
    for name, modules in packages.items():
        yield _uri(name, packages), _page(name, modules, known)


def _uri(package: str, packages: Iterable[str]) -> str:
    """Place of a package's page; one that holds others is the index of their folder."""
    top, _, rest = package.removeprefix(f"{TOP}.").partition(".")
    if rest:
        return f"reference/{TOP}.{top}/{rest}.md"
    holds_others = package != TOP and any(other.startswith(f"{package}.") for other in packages)
    return f"reference/{package}/index.md" if holds_others else f"reference/{package}.md"


def _rooms(packages: dict[str, list[Module]]) -> list[str]:
    found = [name.split(".")[1] for name in packages if name.count(".") == 1]
    return sorted(found, key=lambda room: (ROOMS.index(room) if room in ROOMS else len(ROOMS), room))


def _packages(source: Path) -> dict[str, list[Module]]:
    """The package itself first, then its modules, for each package with anything public."""
    found = {}
    for init in sorted((source / TOP).rglob("__init__.py")):
        name = ".".join(init.parent.relative_to(source).parts)
        if name.startswith(WITHOUT):
            continue
        files = sorted(path for path in init.parent.glob("*.py") if not path.name.startswith("_"))
        modules = [_module(path, f"{name}.{path.stem}") for path in files]
        found[name] = [_module(init, name), *(module for module in modules if module.exported)]
    return found


def _module(path: Path, name: str) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    origins: dict[str, str] = {}
    exported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*above, module]).rstrip(".")
            origins |= {alias.asname or alias.name: module for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
            exported = [word for word in ast.literal_eval(node.value) if not word.startswith("__")]
    summary = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    return Module(name, summary, {word: origins.get(word, name) for word in exported}, _described(tree))


def _described(tree: ast.Module) -> frozenset[str]:
    """Functions and classes with a docstring, and values with a text below them."""
    found = set()
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node):
                found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def _overview(packages: dict[str, list[Module]]) -> str:
    places = {name: _uri(name, packages).removeprefix("reference/") for name in packages}
    rows = [f"| [`{name}`]({places[name]}) | {_cell(modules[0].summary)} |" for name, modules in packages.items()]
    return "\n".join(
        [
            "# API reference",
            "",
            "Every public name, from the docstrings. Axis letters in names (`logp_BGT`) are explained in "
            "[`magnetar.types`](magnetar.md#magnetar.types). `import magnetar.games` and `magnetar.methods` "
            "load no transformers.",
            "",
            "| package | what is in it |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _page(name: str, modules: list[Module], known: dict[str, Module]) -> str:
    package, *inside = modules
    lines = [f"# {name}", "", *_directive(package, "show_root_heading: false"), ""]
    handed_on = {word: _defined_in(word, origin, known) for word, origin in package.exported.items() if origin != name}
    if handed_on:
        links = (_link(word, origin, known) for word, origin in handed_on.items())
        lines += [f"From here too, as in `from {name} import {next(iter(handed_on))}`: " + " · ".join(links), ""]
    # What users import comes before what the modules share among themselves.
    order = list(handed_on.values())
    for module in sorted(inside, key=lambda one: order.index(one.name) if one.name in order else len(order)):
        if module.own:
            lines += [*_directive(module), ""]
    return "\n".join(lines)


def _defined_in(word: str, origin: str, known: dict[str, Module]) -> str:
    """The module that defines a name, which may be handed on by several."""
    while origin in known and known[origin].exported.get(word, origin) != origin:
        origin = known[origin].exported[word]
    return origin


def _directive(module: Module, *options: str) -> list[str]:
    """What mkdocstrings reads: a module with the names that are its own."""
    members = f"members: [{', '.join(module.own)}]"
    return [f"::: {module.name}", "    options:", *(f"      {option}" for option in (members, *options))]


def _link(word: str, origin: str, known: dict[str, Module]) -> str:
    described = origin in known and word in known[origin].described
    return f"[`{word}`][{origin}.{word}]" if described else f"`{word}`"
