"""One file per layout of your own images. A layout is found by its file; nothing lists them twice.

A file has

- `ORDER`: layouts are asked in this order, small numbers first; `class_folders` is last with 100;
- `recognises(source, wanted) -> bool`: whether `source` has this layout;
- `read(source, wanted) -> Reading`: its rows by split, its loader, and what is not used.

`source` is a path, with `~` expanded, or text that begins with ``hf:``; `wanted` are the columns
that the user named (`data.own_images.columns.Columns`). `read` returns a
`data.own_images.rows.Reading`, such as

    reading = Reading(str(root.resolve()), FileLoader(root, upright=True))
    reading.parts["train"].append(Row("images/cat/1.png", "cat"))
    reading.unused.append(Unused("images/2.png", NO_LABEL))

Images need not be looked at: those that cannot be decoded are left out later, with their reason,
and where there are no test rows a part of train is held out.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.rows import Reading


def layouts() -> list[ModuleType]:
    """Every layout, in the order in which they are asked."""
    return _layouts(tuple(__path__))


@cache
def _layouts(folders: tuple[str, ...]) -> list[ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(folders))
    modules = [import_module(f"{__name__}.{name}") for name in names]
    return sorted(modules, key=lambda module: (module.ORDER, module.__name__))


def read(source: str, wanted: Columns) -> Reading:
    """The images of a source, by the first layout that recognises it.

    Raises:
        DatasetError: its images or labels cannot be read.
    """
    layout = next(layout for layout in layouts() if layout.recognises(source, wanted))
    reading: Reading = layout.read(source, wanted)
    return reading
