"""One file a method. A method is found by the name of its file; nothing lists them twice.

`zero_shot.py` is called `zero-shot`, and `vpt_with_text.py` is `vpt+text`: `_with_` reads as a
plus, any other underscore as a hyphen. Method files never import one another, so that each can be
taken away with its recipes; what they share is in the helpers `base`, `closed_form`,
`context_prompt`, `hosted`, `parts` and `teacher`. Their code digests are those of `utils.plugins`.

Your own stand in a folder that the environment variable SIMPROMPT_METHODS names, and are found in
the same way; a file that is called as one of ours is not looked at.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simprompt.errors import SimpromptError, check_argument, did_you_mean
from simprompt.utils import plugins

if TYPE_CHECKING:
    from simprompt.methods.base import PromptLearner

HELPERS = {"base", "closed_form", "context_prompt", "hosted", "parts", "teacher"}

OWN = "SIMPROMPT_METHODS"
__path__ = [*__path__, *filter(None, os.environ.get(OWN, "").split(os.pathsep))]


def names() -> list[str]:
    """Every method there is, by the name that `--method` takes."""
    files = {m.name for m in pkgutil.iter_modules(__path__)} - HELPERS
    return sorted(f.replace("_with_", "+").replace("_", "-") for f in files)


def find(name: str) -> type[PromptLearner[Any]]:
    """The learner class of a method.

    Raises:
        SimpromptError: no such method.
    """
    from simprompt.methods.base import PromptLearner  # torch: only where a method is used

    check_argument(name, str, "method", 'a name such as "coop"')
    if name not in names():
        raise SimpromptError(
            f"There is no method called {name!r}. {did_you_mean(name, names())}"
            f"Known methods: {', '.join(names())}. One of your own is a file in the folder that "
            f"{OWN} names."
        )
    kind: type[PromptLearner[Any]] = plugins.find(
        "method", name, __name__, _file_of(name), __path__, "LEARNER", PromptLearner
    )
    return kind


def code_of(name: str) -> str:
    """The digest of a method's code, see `utils.plugins`; empty where there is no such method."""
    if name not in names():
        return ""
    return plugins.digest_of(__name__, _file_of(name), __path__)


def code_digests(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Digests of code (see `utils.plugins`) by method: of this one, its host, the host's host and
    so on, as its settings name them."""
    known_names = {*names()}
    digests: dict[str, str] = {}

    def visit(name: str, options: Mapping[str, Any]) -> None:
        if name not in known_names or name in digests:
            return
        digests[name] = code_of(name)
        values = {**options}
        with suppress(Exception):  # whatever is wrong with its file or settings, the run says so
            kind = find(name).Config
            values = kind().model_dump() | kind(**options).model_dump()
        for text in _texts(values):
            visit(text, {})

    visit(name, options)
    return digests


def _texts(value: Any) -> Iterator[str]:
    """All texts that are values in plain JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def own_file(name: str) -> Path | None:
    """The file of a method that is not of this package; None for one that is, or is not there."""
    return plugins.own_file(_file_of(name), __path__)


def _file_of(name: str) -> str:
    return name.replace("+", "_with_").replace("-", "_")
