"""One file a method. A method is found by the name of its file; nothing lists them twice.

`zero_shot.py` is called `zero-shot`, and `vpt_with_text.py` is `vpt+text`: `_with_` reads as a
plus, any other underscore as a hyphen. Method files never import one another, so that each can be
taken away with its recipes; what they share is in the helpers `base`, `parts` and `teacher`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from simprompt.errors import SimpromptError, did_you_mean
from simprompt.methods.base import PromptLearner

HELPERS = {"base", "parts", "teacher"}


def names() -> list[str]:
    """Every method there is, by the name that `--method` takes."""
    files = {m.name for m in pkgutil.iter_modules(__path__)} - HELPERS
    return sorted(f.replace("_with_", "+").replace("_", "-") for f in files)


def find(name: str) -> type[PromptLearner[Any]]:
    """The learner class of a method.

    Raises:
        SimpromptError: no such method.
    """
    if name not in names():
        raise SimpromptError(
            f"There is no method called {name!r}. {did_you_mean(name, names())}"
            f"Known methods: {', '.join(names())}."
        )
    file = name.replace("+", "_with_").replace("-", "_")
    learner: type[PromptLearner[Any]] = importlib.import_module(f"{__name__}.{file}").LEARNER
    return learner
