"""Runs the example scripts cell by cell, and keeps what they print and draw in `examples/rendered` for the site.

python tools/site/run_examples.py                          # all of them: a quarter of an hour of one core
python tools/site/run_examples.py games_in_five_minutes    # one
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from notebooks import OUTPUTS, Output, cells, digest, drawing, sources

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: Path) -> list[Output]:
    """Run a script in a folder of its own.

    Returns:
        What each code cell gave; figures are written to `examples/rendered`.
    """
    from matplotlib import rcParams

    rcParams["svg.hashsalt"] = "examples"  # the same drawing is the same file
    rcParams["savefig.transparent"] = False
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for index, cell in enumerate(cell for cell in cells(script) if cell.cell_type == "code"):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                value = _value(cell.source, namespace, f"{script.name}, code cell {index + 1}")
            figure = None
            if hasattr(value, "savefig"):
                figure = drawing(script.stem, index)
                value.savefig(EXAMPLES / OUTPUTS / figure, metadata={"Date": None})
            found.append(Output(printed.getvalue(), figure))
    return found


def _value(code: str, namespace: dict[str, Any], where: str) -> Any:
    """Run a cell; the value of its last line if that is an expression, as a notebook shows it."""
    tree = ast.parse(code, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), namespace)


def main() -> None:
    os.environ.setdefault("MPLBACKEND", "agg")
    (EXAMPLES / OUTPUTS).mkdir(exist_ok=True)
    names = sys.argv[1:] or [Path(source).stem for source in sources(EXAMPLES).values()]
    for name in names:
        script = EXAMPLES / f"{name}.py"
        outputs = run(script)
        record = {"digest": digest(script), "outputs": [{"text": o.text, "figure": o.figure} for o in outputs]}
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (EXAMPLES / OUTPUTS / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {len(outputs)} cells")


if __name__ == "__main__":
    main()
