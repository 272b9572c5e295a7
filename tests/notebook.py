"""docs/example.ipynb: its cells run again, and what they show written into it. `make notebook`.

It takes no Jupyter: the cells run in one namespace, and what each prints, and the value of its last
expression, are kept as Jupyter keeps them.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "example.ipynb"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # in what many objects say they are


def read() -> dict[str, Any]:
    """The notebook as it stands."""
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def as_text(notebook: dict[str, Any]) -> str:
    """As Jupyter writes it, so that a change of one cell is a change of few lines."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells have now; they run in an empty folder."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number, before = [], 0, Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    number += 1
                    made = _outputs("".join(cell["source"]), number, names)
                    cell = cell | {"execution_count": number, "outputs": made}
                cells.append(cell)
        finally:
            os.chdir(before)  # Windows deletes no folder that somebody is in
    return notebook | {"cells": cells}


def _outputs(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell prints, and what its last expression is."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with redirect_stdout(printed):
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        outputs.append(
            {"output_type": "execute_result", "execution_count": number, "metadata": {},
             "data": _shown(value)}
        )  # fmt: skip
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """A value in each form that a notebook may choose from."""
    plain = ADDRESS.sub("", repr(value))
    forms: dict[str, Any] = {"text/plain": plain.splitlines(keepends=True)}
    if hasattr(value, "_repr_html_"):
        forms["text/html"] = value._repr_html_().splitlines(keepends=True)
    if hasattr(value, "_repr_png_"):
        forms["image/png"] = base64.b64encode(value._repr_png_()).decode("ascii")
    return forms


if __name__ == "__main__":
    NOTEBOOK.write_text(as_text(executed(read())), encoding="utf-8")
