"""Weights that were cut into several files, and the index that says which tensor is where."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from simprompt.errors import SimpromptError
from simprompt.utils.files.parsing import json_value
from simprompt.utils.files.regular import read_text

INDEX = ".index.json"
"""Behind the name that the weights would have in one file."""


def files_of(index: Path) -> dict[str, list[str]]:
    """The names of the files beside an index, and of the tensors in each.

    Raises:
        SimpromptError: no index, or a file that is not below the index's folder.
    """
    try:
        shard_of = json_value(read_text(index))["weight_map"]
        pairs = list(shard_of.items())
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise SimpromptError(
            f"{index} is not an index of weights in several files, a JSON object with a "
            f"weight_map: {type(error).__name__}, {error}."
        ) from error
    files: dict[str, list[str]] = {}
    for tensor, name in pairs:
        if not isinstance(name, str) or not _below(name):
            raise SimpromptError(
                f"{index} says that a tensor is in {name!r}, which is no file below its folder. It "
                "was not loaded; do not trust this checkpoint."
            )
        files.setdefault(name, []).append(tensor)
    return files


def _below(name: str) -> bool:
    """Whether a name in a folder's file leads nowhere else, on any system."""
    return "\0" not in name and all(
        path.parts and not path.anchor and ".." not in path.parts
        for path in (PurePosixPath(name), PureWindowsPath(name))
    )
