"""Make docs/notebook.ipynb from docs/notebook.md: `python scripts/make_notebook.py` (a minute).

Prose becomes cells of text, `python` blocks cells of code, which are run in this process; what the last line of a cell
gives is its output. Sweeps go to a temporary folder.
"""

import ast
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```\n?", re.DOTALL)


def cells(page: str) -> list[tuple[str, str]]:
    """The kind (markdown or code) and the text of each cell of a page."""
    parts = BLOCK.split(page)
    made = [("code" if place % 2 else "markdown", text.strip("\n")) for place, text in enumerate(parts)]
    return [(kind, text) for kind, text in made if text]


def run(code: str, names: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line where that is an expression."""
    tree = ast.parse(code)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "cell", "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def main() -> None:
    """Write the notebook."""
    found = cells((DOCS / "notebook.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = [_cell(index, kind, text, names) for index, (kind, text) in enumerate(found)]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (DOCS / "notebook.ipynb").write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cell(index: int, kind: str, text: str, names: dict[str, Any]) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{index}", "metadata": {}, "source": _lines(text)}
    if kind == "markdown":
        return cell
    print(f"cell {index}", file=sys.stderr)
    with redirect_stdout(StringIO()) as printed:
        value = run(text, names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": _lines(_homeless(printed.getvalue()))})
    if value is not None:
        data = {"text/plain": _lines(_homeless(repr(value)))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        outputs.append({"output_type": "execute_result", "execution_count": index, "metadata": {}, "data": data})
    return {**cell, "execution_count": index, "outputs": outputs}


def _homeless(text: str) -> str:
    """Without the temporary folder's name."""
    return text.replace(f"{Path.cwd()}/", "")


def _lines(text: str) -> Sequence[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    main()
