"""Who may know whom, and how long a start may take."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from shell import printed

SOURCE = Path(__file__).parents[1] / "src" / "simprompt"

# A room may import the rooms below it in this list, never one above, and never a peer in a circle.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"report", "studies", "sweep", "deploy", "calibration", "classifier", "verdict", "doctor"},
    {"protocols"},
    {"summary"},
    {"runs", "prompt"},
    {"train"},
    {"batched", "mechanism", "features", "plans", "saved"},
    {"sar", "sar_plus", "recipes", "identity"},
    {"methods", "novel"},
    {"pixels"},
    {"clip", "data"},
    {"checkpoint"},
    {"optimisers"},
    {"ahead", "files", "config", "evaluate", "memory", "progress", "schedule", "streams"},
    {"devices", "environ", "errors", "gradients", "memo", "stopping", "terminal"},
]


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
    return module.split(".")[1] if "." in module else module


def test_no_module_knows_a_floor_above(graph):
    floor = {name: level for level, names in enumerate(FLOORS) for name in names}
    wrong = [
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in others
        if room(module) in floor
        and room(other) in floor
        and floor[room(other)] < floor[room(module)]
    ]
    assert not wrong


def test_every_room_has_a_floor(graph):
    rooms = {room(m) for m in graph} - {"simprompt"}
    assert rooms <= set().union(*FLOORS)


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
        "import sys, simprompt, simprompt.cli;"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL', 'transformers', 'jinja2', 'pydantic'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert printed(code) == "[]"


def test_torchvision_is_nowhere():
    texts = [p.read_text(encoding="utf-8") for p in SOURCE.rglob("*.py")]
    assert not any("import torchvision" in t or "from torchvision" in t for t in texts)
