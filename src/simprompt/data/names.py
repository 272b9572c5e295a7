"""What your folders and labels are called, as words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from simprompt.data.dataset import DatasetError


def read_names(path: str | Path) -> list[str]:
    """Class names from a file, one a line; blank lines and lines that begin with # are skipped."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not a readable text file: {error}.") from error
    names = [clean_name(line) for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise DatasetError(f"{path} names no classes; write one name a line.")
    return names


def clean_name(raw: str) -> str:
    """A folder's name as words: ``Golden_Retriever``, ``goldenRetriever`` -> ``golden retriever``.

    Names in capitals (``BMW``) and those with digits keep their case.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", raw)
    text = re.sub(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", " ", text).strip()
    plain = [w.lower() if w.isalpha() and not (w.isupper() and len(w) > 1) else w
             for w in text.split()]  # fmt: skip
    return " ".join(plain)


_ODD = (
    r"\(\d+\)$",  # "heli copter (2)"
    # "sunflower flower final v2"; not "old english sheepdog", "new york"
    r"\s\(?(copy|kopie|final|version|v\d+|new|old|neu|alt|tmp|temp|test|backup)\b\W*\d*\W*$",
    r"^(tmp|temp|test|misc|others?|unsorted|copy of\b.*)$",
    r"\.(zip|jpe?g|png|bak)$",
    r"[^\w\s'’,.&+/()-]",
    r"^(class|label|category|folder|untitled)\W*\d*$",
    r"^[n]?\d+$",
    r"^\w$",
)


def odd_names(names: Sequence[str]) -> list[str]:
    """Those that nobody would say: copies, versions, numbers, lone letters, very long ones."""
    return [
        name for name in names
        if len(name) > 40 or any(re.search(p, name, re.IGNORECASE) for p in _ODD)
    ]  # fmt: skip


def class_names(raw: Sequence[str], file: str | Path | None) -> tuple[str, ...]:
    """The name of each class: of the override file, or made of words.

    Raises:
        DatasetError: the file names other classes, or two classes have one name.
    """
    given = overrides(Path(file)) if file else {}
    if unknown := sorted(given.keys() - set(raw)):
        raise DatasetError(
            f"{file} renames {', '.join(unknown)}, of which there are no images. Classes: "
            f"{', '.join(raw)}."
        )
    names = tuple(given.get(name) or clean_name(name) for name in raw)
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DatasetError(
                f"{raw[names.index(name)]!r} and {raw[i]!r} are both called {name!r}; tell them "
                "apart with an override file (--names)."
            )
        if not name:
            raise DatasetError(f"The class {raw[i]!r} has no name; give one with --names.")
    return names


def overrides(path: Path) -> dict[str, str]:
    """Names by folder or label, of an override file.

    Raises:
        DatasetError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            pairs = (line.split("=", 1) for line in text.splitlines() if line.strip())
            values = {key.strip(): value.strip() for key, value in pairs}
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise DatasetError(
            f'{path} is not an override file: {error}. Write JSON {{"folder": "name"}}, or '
            "lines `folder = name`."
        ) from error
    return {str(k): str(v) for k, v in values.items()}
