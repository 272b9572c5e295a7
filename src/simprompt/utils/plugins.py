"""Files that are found by their names in a package and in folders that users name.

`simprompt.methods` and `simprompt.regularisers` are such packages: one file each, nothing lists
them twice, and files of a user's own stand in a folder that an environment variable names.

The numbers of such a file come from its own code and from the files of its package that it
imports; what else decides numbers has `features.digests.CODE`, a version that is raised by hand. So
its *code digest* covers these files. Comments, docstrings and blank lines do not count: they may be
edited without computing all results again. Everything else counts, be it a message or a line break.
The digest is of the text, not of compiled code or of a syntax tree: those differ between versions
of Python, and a run's key does not.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import io
import sys
import threading
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from simprompt.errors import SimpromptError

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A file of Python.

    Attributes:
        raw: digest of its bytes.
        plain: digest of its text without comments, docstrings and blank lines; that of its bytes
            where it is no Python.
        imports: names of modules of its package that it may import.
    """

    raw: str
    plain: str
    imports: tuple[str, ...]


def digest_of(package: str, module: str, folders: Sequence[str]) -> str:
    """The digest of a file's code.

    Args:
        package: its dotted name, such as "simprompt.methods".
        module: the file's name without the suffix.
        folders: where files are looked for, the package's own first.
    """
    files = sources(package, module, folders)
    text = "\n".join(f"{name} {files[name].plain}" for name in sorted(files))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sources(package: str, module: str, folders: Sequence[str]) -> dict[str, Source]:
    """The files that one is built from, by module, each after those that it imports."""
    files: dict[str, Source] = {}
    visited: set[str] = set()

    def visit(name: str) -> None:
        if name in visited or (file := file_of(name, folders)) is None:
            return
        visited.add(name)
        # what is imported already is what computes, whatever is in the package's file by now
        ships = file.parent == Path(folders[0])
        source = _of_package(file, package) if ships else _read(file, package)
        for imported in source.imports:
            visit(imported)
        files[name] = source

    visit(module)
    return files


def file_of(module: str, folders: Iterable[str]) -> Path | None:
    """The file of a module; None where there is none."""
    return next((p for folder in folders if (p := Path(folder, f"{module}.py")).is_file()), None)


def own_file(module: str, folders: Sequence[str]) -> Path | None:
    """The file of a module that is not in the package's own folder; None for one that is, or is
    not there."""
    return None if file_of(module, folders[:1]) else file_of(module, folders[1:])


def find(
    what: str,
    name: str,
    package: str,
    module: str,
    folders: Sequence[str],
    attribute: str,
    base: type[T],
) -> type[T]:
    """The class that a module has under `attribute`, derived from `base`.

    Args:
        what, name: for the error: a "method", and what the user calls it.

    Raises:
        SimpromptError: a user's file that cannot be used.
    """
    file = own_file(module, folders)
    if file is None:
        ours: type[T] = getattr(importlib.import_module(f"{package}.{module}"), attribute)
        return ours
    try:
        kind: type[T] = getattr(load(package, module, folders), attribute)
        if not issubclass(kind, base):
            raise TypeError(f"{attribute} is no {base.__name__}")
    except Exception as error:  # whatever is wrong in somebody's file
        raise SimpromptError(
            f"The {what} {name} cannot be used: {file} gives {type(error).__name__}: {error}."
        ) from error
    return kind


def load(package: str, module: str, folders: Sequence[str]) -> ModuleType:
    """A module that is not in the package's own folder, as its file and those that it imports are
    now: imported anew where one of them changed, or where another file had its name before.

    Raises:
        Exception: whatever the file raises.
    """
    with _lock:
        states = {
            name: (str(file_of(name, folders)), source.raw)
            for name, source in sources(package, module, folders).items()
            if file_of(name, folders[:1]) is None
        }
        if all(_loaded.get(f"{package}.{name}") == state for name, state in states.items()) and (
            module_there := sys.modules.get(f"{package}.{module}")
        ):
            return module_there
        for name, (file, raw) in states.items():
            _import(package, name, file)
            _loaded[f"{package}.{name}"] = (file, raw)
        return sys.modules[f"{package}.{module}"]


_lock = threading.RLock()
_loaded: dict[str, tuple[str, str]] = {}  # file and digest of modules that `load` imported


class _FromSource(importlib.machinery.SourceFileLoader):
    """Reads no compiled file: it is taken for current by a time of whole seconds and a size."""

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _import(package: str, module: str, file: str) -> None:
    name = f"{package}.{module}"
    spec = importlib.util.spec_from_file_location(name, file, loader=_FromSource(name, file))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    try:
        spec.loader.exec_module(made)
    except BaseException:
        del sys.modules[name]
        _loaded.pop(name, None)
        raise
    if parent := sys.modules.get(package):  # as an import statement does
        setattr(parent, module, made)


@cache
def _of_package(file: Path, package: str) -> Source:
    return _read(file, package)


def _read(file: Path, package: str) -> Source:
    try:
        content = file.read_bytes()
    except OSError:
        return Source("", "", ())
    raw = hashlib.sha256(content).hexdigest()
    try:
        text, names = _plain(content, package)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError):
        return Source(raw, raw, ())
    plain = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Source(raw, plain, names)


def _plain(content: bytes, package: str) -> tuple[str, tuple[str, ...]]:
    """A file's text without comments, docstrings and blank lines, and the modules it imports."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    text = io.TextIOWrapper(io.BytesIO(content), encoding).read()  # line ends become \n
    lines = text.split("\n")
    tree = ast.parse(text)
    spans = [
        (token.start, token.end)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            spans += [_span(node.body[0], lines)] if _has_docstring(node) else []
    for (top, left_column), (bottom, right) in sorted(spans, reverse=True):
        remainder = lines[top - 1][:left_column] + lines[bottom - 1][right:]
        lines[top - 1 : bottom] = [remainder] + [""] * (bottom - top)
    return "\n".join(line.rstrip() for line in lines if line.strip()), _imports(tree, package)


def _has_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _span(node: ast.stmt, lines: Sequence[str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(line, column) of a statement's begin and end, in characters; ast counts bytes of UTF-8."""

    def column(line: int, count: int) -> int:
        return len(lines[line - 1].encode()[:count].decode())

    bottom, right = node.end_lineno or node.lineno, node.end_col_offset or 0
    begin = node.lineno, column(node.lineno, node.col_offset)
    return begin, (bottom, column(bottom, right))


def _imports(tree: ast.Module, package: str) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            within = {0: "", 1: f"{package}.", 2: "simprompt."}.get(node.level)
            if within is None:
                continue
            origin = f"{within}{node.module or ''}".rstrip(".")
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    inside = (name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}."))
    return tuple(sorted({name.partition(".")[0] for name in inside}))
