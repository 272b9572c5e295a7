"""Our own modules as files that need no simprompt, for the exported folder.

What reads an image, cuts it and encodes a name there is a copy of what does so here: the package's
name is taken off the imports, and what needs torch, or a module of ours that is not copied, is cut
out.
"""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from collections.abc import Collection
from importlib import import_module, metadata
from pathlib import Path

from simprompt.errors import SimpromptError

PACKAGE = "simprompt_runtime"

# module -> what is cut out of it
MODULES: dict[str, frozenset[str]] = {
    "simprompt.errors": frozenset(),
    "simprompt.utils.terminal": frozenset({"one_line", "markup", "say"}),
    "simprompt.utils.files.regular": frozenset(),
    "simprompt.data.image_files": frozenset(),
    "simprompt.data.image_pixels": frozenset(),
    "simprompt.data.images": frozenset({"stamp"}),
    "simprompt.clip.preprocess": frozenset(
        {"augment", "view", "normalise", "__call__", "_random_crop"}
    ),
    "simprompt.clip.tokenizer": frozenset(
        {
            "TokenizerError",
            "Tokenizer",
            "BundledTokenizer",
            "_read",
            "_from_merges",
            "_bpe",
            "_check_is_failure",
        }
    ),
    "simprompt.clip.same_text": frozenset(),
    "simprompt.utils.files.text": frozenset(),
    "simprompt.data.names_file": frozenset(),
    "simprompt.data.names": frozenset(
        {
            "Classes",
            "classes",
            "counted",
            "nothing_said",
            "odd_names",
            "overrides",
            "says_nothing",
            "_assignments",
            "_matched",
            "_object",
        }
    ),
    "simprompt.deploy.export.runtime.bpe": frozenset(),
}
PREDICT = "simprompt.deploy.export.runtime.predict"

INIT = '''"""Copies of modules of simprompt, and in `vendor` of ftfy, which mends text (Apache-2.0).

An installed ftfy comes before the copy.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "vendor"))
'''

WIDTHS = '''"""Stands in for the library of this name, with which ftfy can align columns."""


def wcwidth(*_):
    raise NotImplementedError


wcswidth = wcwidth
'''


def write(folder: Path) -> None:
    """Write `predict.py` and the package that it imports into `folder`.

    Raises:
        SimpromptError: the files of ftfy are not to be found.
    """
    package = folder / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text(INIT, encoding="utf-8")
    for module, removed in MODULES.items():
        file = package / f"{module.rpartition('.')[2]}.py"
        file.write_text(source(module, removed), encoding="utf-8")
    (folder / "predict.py").write_text(source(PREDICT), encoding="utf-8")
    _vendor(package / "vendor")


def source(module: str, cut: Collection[str] = ()) -> str:
    """The source of a module of ours, without simprompt and torch.

    Args:
        cut: names of functions, classes and methods that are left out.
    """
    text = inspect.getsource(import_module(module))
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if _is_cut(node, cut):
            assert isinstance(node, ast.stmt)
            assert node.end_lineno is not None
            decorators = getattr(node, "decorator_list", [])
            start = min([node.lineno, *(d.lineno for d in decorators)]) - 1
            lines[start : node.end_lineno] = [""] * (node.end_lineno - start)
    text = re.sub(r"(\n[ \t]*){4,}", "\n\n\n", "\n".join(lines))
    return re.sub(r"^from simprompt(?:\.\w+)*\.(\w+) import", rf"from {PACKAGE}.\1 import", text,
                  flags=re.MULTILINE).rstrip() + "\n"  # fmt: skip


def _is_cut(node: ast.AST, cut: Collection[str]) -> bool:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name in cut
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Import):
        return any(alias.name == "torch" for alias in node.names)
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return False
    ours = node.module.startswith("simprompt.")
    return node.module == "torch" or (ours and node.module not in MODULES)


def _vendor(folder: Path) -> None:
    """Copy the installed ftfy, which is Python alone, with its licence."""
    copied = 0
    for file in metadata.files("ftfy") or ():
        name = file.as_posix()
        licence = file.name.upper().startswith("LICENSE")
        if licence or (name.startswith("ftfy/") and file.suffix == ".py"):
            target = folder / ("ftfy/LICENSE.txt" if licence else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
            copied += 1
    if copied < 2:
        raise SimpromptError(
            "The files of ftfy, which an exported folder carries along, are not to be found; "
            "reinstall it with `pip install --force-reinstall ftfy`."
        )
    (folder / "wcwidth.py").write_text(WIDTHS, encoding="utf-8")
