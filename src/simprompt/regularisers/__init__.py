"""One file per regulariser. Like a method, one is found by the name of its file.

`text_to_text.py` is called `text-to-text`. A file has a class `REGULARISER` derived from
`sar.Regulariser`, which has its settings (`Config`, derived from `config.SAR`), its draw and its
loss. A regulariser rides on any method whose text moves: `--regulariser NAME`, in Python
``sar={"regulariser": NAME}``; the run is then called METHOD+NAME. SAR itself is in `simprompt.sar`.

Your own stand in a folder that the environment variable SIMPROMPT_REGULARISERS names.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Sequence
from typing import Any

from simprompt.config import SAR, SARPlus
from simprompt.errors import SimpromptError, check_argument, did_you_mean
from simprompt.methods.base import PromptLearner
from simprompt.sar import Regulariser
from simprompt.utils import plugins

OWN = "SIMPROMPT_REGULARISERS"
__path__ = [*__path__, *filter(None, os.environ.get(OWN, "").split(os.pathsep))]


def names() -> list[str]:
    """Every regulariser there is, by the name that `--regulariser` takes."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> type[Regulariser]:
    """The class of a regulariser.

    Raises:
        SimpromptError: no such regulariser, or a file of your own that cannot be used.
    """
    check_argument(name, str, "regulariser", 'a name such as "sar"')
    if name not in names():
        raise SimpromptError(
            f"There is no regulariser called {name!r}. {did_you_mean(name, names())}Known: "
            f"{', '.join(names())}. One of your own is a file in the folder that {OWN} names."
        )
    return plugins.find(
        "regulariser", name, __name__, _file_of(name), __path__, "REGULARISER", Regulariser
    )


def code_of(name: str) -> str:
    """The digest of a regulariser's code, see `utils.plugins`; empty where there is none."""
    if name not in names():
        return ""
    return plugins.digest_of(__name__, _file_of(name), __path__)


def _file_of(name: str) -> str:
    return name.replace("-", "_")


def settings_of(values: dict[str, Any]) -> type[SAR]:
    """The class of settings that a dictionary of them is for."""
    name = values.get("regulariser")
    return find(name).Config if name else SARPlus


def build(
    settings: SAR,
    learner: PromptLearner[Any],
    names: Sequence[str],
    templates: Sequence[str] = (),
    seed: int = 0,
) -> Regulariser:
    """The regulariser that the settings ask for; the paper's where nothing else is asked.

    Args:
        names: the base classes of the learner, then the novel ones.
        templates: the dataset's templates, for SAR's teacher ``ensemble``.

    Raises:
        SimpromptError: what the settings ask for cannot be had with this learner or these names.
    """
    default = "sar-plus" if isinstance(settings, SARPlus) else "sar"
    kind = find(settings.regulariser or default)
    learner.teacher.keep(names)  # a method may look at them at every step
    return kind.build(settings, learner, names, templates, seed)
