"""Example scripts in cells (`# %%`), as pages with what they printed and drew, and as notebooks to download."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Output", "cells", "digest", "drawing", "notebooks", "pages", "read_outputs", "sources"]

OUTPUTS = "rendered"


@dataclass(frozen=True)
class Output:
    """What a code cell gave.

    Attributes:
        text: What it printed.
        figure: Name of the SVG file in `examples/rendered` that it drew; None for none.
    """

    text: str
    figure: str | None = None


def sources(folder: Path) -> dict[str, str]:
    """Source of each page that is made from a script, by the page's place."""
    scripts = sorted(path for path in folder.glob("*.py") if path.read_text(encoding="utf-8").startswith("# %%"))
    return {f"examples/{path.stem}.md": f"examples/{path.name}" for path in scripts}


def cells(script: Path) -> list[Any]:
    """The cells of a script in Jupytext's percent format."""
    import jupytext

    return list(jupytext.read(script, fmt="py:percent").cells)


def digest(script: Path) -> str:
    """Changes with the code of a script, and not with the words around it."""
    code = [cell.source for cell in cells(script) if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()[:16]


def drawing(name: str, index: int) -> str:
    """Name of the file of the figure that a cell drew."""
    return f"{name}-{index}.svg"


def read_outputs(script: Path) -> list[Output]:
    """What the code cells of a script gave when `python tools/site/run_examples.py` ran it last, in order.

    Returns:
        One for each code cell; none at all if it was never run.

    Raises:
        ValueError: The script was changed since.
    """
    record = script.parent / OUTPUTS / f"{script.stem}.json"
    if not record.is_file():
        return []
    kept = json.loads(record.read_text(encoding="utf-8"))
    if kept["digest"] != digest(script):
        raise ValueError(
            f"{script.name} has changed since it was run; run: python tools/site/run_examples.py {script.stem}"
        )
    return [Output(**output) for output in kept["outputs"]]


def pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and Markdown of each page."""
    for uri, source in sources(folder).items():
        yield uri, _page(folder.parent / source)


def notebooks(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and content of each notebook."""
    import jupytext

    for uri, source in sources(folder).items():
        notebook = jupytext.read(folder.parent / source, fmt="py:percent")
        yield uri.removesuffix(".md") + ".ipynb", jupytext.writes(notebook, fmt="ipynb")


def _page(script: Path) -> str:
    outputs = iter(read_outputs(script))
    title, *rest = cells(script)
    heading, _, words = title.source.partition("\n")
    parts = [heading, f"*`examples/{script.name}` · [notebook]({script.stem}.ipynb)*", words.strip()]
    for cell in rest:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        output = next(outputs, Output(""))
        if output.text:
            parts.append(f"```text\n{output.text.rstrip()}\n```")
        if output.figure:
            parts.append(f"![What the cell above draws]({OUTPUTS}/{output.figure})")
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)) + "\n"
