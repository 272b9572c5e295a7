"""docs/errors.md: every error that speaks to the user, as the code has it. `make errors` writes it.

Found are all places where a `SimpromptError`, or one of its kinds, is made. A message is shown as a
template: what it is filled with stands in braces, by the name that it has in the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "simprompt"
PAGE = ROOT / "docs" / "errors.md"
FIRST = "SimpromptError"

# the rooms of docs/architecture.md whose errors stand together
GROUPS = {
    "Commands and settings": ("cli", "config", "errors", "recipes"),
    "Data": ("data", "features"),
    "CLIP models": ("clip",),
    "Learning": ("methods", "prompt", "regularisers", "training", "workflow"),
    "Novel class names": ("novel",),
    "Runs, tables and reports": ("experiments", "report", "studies"),
    "Predicting, serving, exporting": ("deploy",),
    "Files, downloads, devices": ("utils",),
}

HEAD = """# Errors

Written by `make errors` from the code; `tests/test_errors.py` fails where it is stale. What stands
in braces is filled in where the error arises.

A message is one paragraph: what was wrong, where, and what to do. In Python it is a
`simprompt.SimpromptError`; a command prints it on stderr and exits with 2. Those below that are no
whole sentence stand behind the name of the image, the class or the run they speak of.

Exit codes of a command:

- 0: all went well.
- 2: bad input, an impossible request, a disk that refuses, no memory left. The message says what to
  do; what was finished is kept, and the same command goes on.
- 3: a fault of simprompt. Report it, with what `simprompt --debug COMMAND` shows.
- 130: stopped by Ctrl-C (SIGINT). The same command goes on.
- 143: stopped by SIGTERM. The same command goes on.

What a worker process of `--workers` says of a run that failed stands in the message of the command,
and in `OUT/failed/`. How disks, signals and memory that runs out are treated:
[reliability.md](reliability.md).
"""


@dataclass
class Module:
    """What is needed to read the messages of one file."""

    tree: ast.Module
    kinds: set[str]
    constants: dict[str, ast.expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value

    def messages(self) -> Iterator[str]:
        for function, node in self._calls(self.tree, None):
            if _name(node.func) in self.kinds:
                texts = [one for one in node.args if not _is_number(one)]  # an HTTP status
                for text in texts[:1]:
                    yield from self._message(text, function)

    def _calls(
        self, node: ast.AST, function: ast.FunctionDef | None
    ) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
        """Calls, each with the innermost function around it."""
        for child in ast.iter_child_nodes(node):
            inside = child if isinstance(child, ast.FunctionDef) else function
            if isinstance(child, ast.Call):
                yield inside, child
            yield from self._calls(child, inside)

    def _message(self, node: ast.expr, function: ast.FunctionDef | None) -> Iterator[str]:
        """The templates that this expression may be."""
        if isinstance(node, ast.Name) and function is not None:
            values = list(_assigned(node.id, function))
            if not values:
                values = list(self._given(node.id, function))
                function = None
            for value in values:
                yield self.template(value, function)
        else:
            yield self.template(node, function)

    def _given(self, name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
        """What callers in this file give for an argument of a function."""
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        if name in names:
            for _, call in self._calls(self.tree, None):
                if _name(call.func) == function.name and len(call.args) > names.index(name):
                    yield call.args[names.index(name)]

    def template(self, node: ast.expr, function: ast.FunctionDef | None) -> str:
        """A text with what is filled in as {name}."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(self.template(part, function) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.template(node.left, function) + self.template(node.right, function)
        if isinstance(node, ast.FormattedValue):
            return self._filled(node.value, function)
        return self._filled(node, function)

    def _filled(self, node: ast.expr, function: ast.FunctionDef | None) -> str:
        if isinstance(node, ast.Constant | ast.JoinedStr):
            return self.template(node, function)
        if isinstance(node, ast.IfExp):
            chosen = [self.template(one, function) for one in (node.body, node.orelse)]
            return chosen[0] or chosen[1] if not all(chosen) else f"{{{' | '.join(chosen)}}}"
        if isinstance(node, ast.Name) and node.id.isupper():
            value = self.constants.get(node.id)
            if isinstance(value, ast.Constant | ast.JoinedStr):
                return self.template(value, None)
        return f"{{{_called(node)}}}"


def _assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a local variable is set to, where that is a text."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _name(node.targets[0]) == name:
            yield node.value


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _name(node: ast.expr) -> str:
    """ "b" of the expressions b and a.b; else empty."""
    return getattr(node, "id", "") or getattr(node, "attr", "")


PLAIN = {"str", "repr", "sorted", "list", "map", "len", "type", "min", "max", "set", "tuple"}


def _called(node: ast.expr) -> str:
    """A short name for what is filled in."""
    if isinstance(node, ast.Call):
        of = node.func.value if isinstance(node.func, ast.Attribute) else None
        if _name(node.func) == "join" and node.args:
            return f"{_called(node.args[0])}, ..."
        if _name(node.func) in PLAIN and node.args:
            return _called(node.args[-1])
        if of is not None and not isinstance(of, ast.Constant) and _name(node.func) in METHODS:
            return _called(of)
        return _words(_name(node.func)) or "..."
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        return _called(node.generators[0].iter)
    if isinstance(node, ast.Subscript | ast.Starred):
        return _called(node.value)
    if isinstance(node, ast.BoolOp):
        return _called(node.values[0])
    if isinstance(node, ast.BinOp):
        return _called(node.left)
    if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
        return _called(node.value)
    return _words(_name(node)) or "..."


METHODS = {"strip", "split", "rstrip", "removesuffix", "lower", "title", "decode", "get", "keys",
           "values", "items", "total_seconds", "partition", "replace"}  # fmt: skip
ATTRIBUTES = {"__name__", "strerror", "name", "path", "value"}


def _words(name: str) -> str:
    return name.strip("_").replace("_", " ").lower()


def kinds(trees: Sequence[ast.Module]) -> set[str]:
    """The names of `SimpromptError` and of all that are made from it."""
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known = {FIRST}
    while True:
        more = {c.name for c in classes if known & {_name(base) for base in c.bases}} - known
        if not more:
            return known
        known |= more


def found() -> dict[str, list[str]]:
    """The messages of each group, sorted.

    Raises:
        KeyError: a room has errors and is in no group.
    """
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for p in sorted(SOURCE.rglob("*.py"))}
    known = kinds(list(trees.values()))
    group_of = {room: group for group, rooms in GROUPS.items() for room in rooms}
    made: dict[str, set[str]] = {group: set() for group in GROUPS}
    for path, tree in trees.items():
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for message in Module(tree, known).messages():
            text = " ".join(message.split())
            if re.sub(r"\{[^{}]*\}|\W", "", text):  # not only what comes from elsewhere
                made[group_of[room]].add(text)
    return {group: sorted(texts, key=_order) for group, texts in made.items()}


def _order(text: str) -> tuple[str, str]:
    return re.sub(r"\W+", " ", text).strip().lower(), text


def _escaped(text: str) -> str:
    """As Markdown, where code in backticks stays as it is."""
    parts = text.split("`")
    plain = [re.sub(r"([\\*_\[\]])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    parts[::2] = plain
    return "`".join(parts)


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for group, texts in found().items():
        lines += [f"## {group}", "", *(f"- {_escaped(text)}" for text in texts), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
