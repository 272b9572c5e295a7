"""Who may know whom, and how long a start may take."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shell import printed

SOURCE = Path(__file__).parents[1] / "src" / "simprompt"

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
ROOMS = re.findall(r"^\| [\w ]+ \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
"""From the top down, as docs/architecture.md lists them: a room imports rows below its own."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("simprompt", *(p for p in parts if p != "__init__")))


def imports_of(path: Path, names: set[str]) -> set[str]:
    """Modules of the package that this one imports, anywhere in the file but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in names else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & names


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    files = {module_name(p): p for p in SOURCE.rglob("*.py")}
    return {name: imports_of(path, set(files)) for name, path in files.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "simprompt"


def test_no_module_imports_a_room_above(graph):
    row = {name: number for number, name in enumerate(ROOMS)}
    wrong = [
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in others
        if module != "simprompt" and row[room(other)] < row[room(module)]
    ]
    assert not wrong


def test_the_table_lists_every_room_once(graph):
    assert sorted(ROOMS) == sorted({room(m) for m in graph} - {"simprompt"})


def test_no_circles(graph):
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done:
            return
        for other in sorted(graph[module]):
            if other != "simprompt":  # the package itself holds only the version and lazy names
                visit(other, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_nothing_heavy_is_imported_for_import_or_help():
    """`import simprompt` and `--help` are quick because they import none of these."""
    code = (
        "import sys, simprompt, simprompt.cli.main;"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'transformers', 'jinja2', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert printed(code) == "[]"


def test_torchvision_is_nowhere():
    texts = [p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py")]
    assert not any("import torchvision" in t or "from torchvision" in t for t in texts)
