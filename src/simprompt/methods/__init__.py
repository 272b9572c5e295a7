"""One file a method. A method is found by the name of its file; nothing lists them twice."""

from __future__ import annotations

import importlib
import pkgutil

from simprompt.errors import SimpromptError
from simprompt.methods.base import PromptLearner


def names() -> list[str]:
    """Every method there is, by the name that `--method` takes."""
    helpers = {"base", "teacher"}
    return sorted(
        m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if m.name not in helpers
    )


def find(name: str) -> type[PromptLearner]:
    """The learner class of a method.

    Raises:
        SimpromptError: no such method.
    """
    if name not in names():
        raise SimpromptError(
            f"There is no method called {name!r}. Known methods: {', '.join(names())}."
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").LEARNER
