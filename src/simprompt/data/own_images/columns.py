"""Which column of a table holds the image, which its class, which the split.

Columns are known by their names (`IMAGE`, `LABEL`, `SPLIT`), in any case and with any blanks or
underscores; `Columns` says them where that is not enough. Of several label columns

- those that say the same, row by row, are one, in words rather than numbers;
- else the one called "label" is meant, or the only one of the best kind of name;
- else one has to be named.

What was guessed, not named as this program's own documents name it, is said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simprompt.data.image_files import SUFFIXES
from simprompt.data.split import DatasetError

IMAGE = (
    ("path",), ("filepath", "imagepath", "imgpath", "pathtoimage", "imagefilepath", "fullpath"),
    ("filename", "imagefilename", "imagefile", "imgfile", "imagename", "imgname", "file", "files"),
    ("image", "img", "images", "picture", "photo", "pixels", "jpg", "png", "webp"),
    ("imageid", "imgid", "fileid", "photoid", "id", "uid", "uuid", "name"),
)  # fmt: skip
LABEL = (
    ("label",),
    ("classname", "labelname", "categoryname", "speciesname", "breedname", "labeltext"),
    ("class", "category", "species", "breed", "target", "labels", "classes", "categories", "tag",
     "tags", "subject", "kind", "groundtruth", "truth", "answer", "finelabel", "coarselabel",
     "diagnosis", "dx", "variety", "cls"),
    ("classid", "labelid", "categoryid", "classidx", "classindex", "labelidx", "y", "targetid",
     "speciesid", "breedid"),
)  # fmt: skip
SPLIT = (
    ("split",),
    ("set", "subset", "partition", "dataset", "datasplit", "splitname", "usage", "phase", "part",
     "stage", "traintest", "trainvaltest", "traintestsplit"),
    ("fold",),
)  # fmt: skip

OWN = {"image": ("path",), "label": ("label",), "split": ("split",)}
"""The names that need no word."""


@dataclass(frozen=True)
class Columns:
    """Columns by name; None: to be guessed.

    Args:
        image: paths, or images themselves.
        label: what classes are called.
        split: train, val or test.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None


def squeezed(name: str) -> str:
    """A column's name without case, blanks and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def find(
    source: str,
    names: Sequence[str],
    values: Callable[[str], Sequence[Any]],
    wanted: Columns,
    images: Sequence[str] = (),
    labels: Sequence[str] = (),
) -> tuple[Columns, list[str]]:
    """The columns of a table, split None where there is none; and sentences on what was guessed.

    Args:
        source: what messages call the table.
        names: of all columns.
        values: of a column.
        images, labels: columns that are known to hold images, or classes, by their type.

    Raises:
        DatasetError: a column that was named is not there, or it has to be named.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    image = _named(source, names, wanted.image, "image") or _image(source, names, values, images)
    candidates = [name for name in names if name != image]
    split = _named(source, candidates, wanted.split, "split") or _split(candidates)
    candidates = [name for name in candidates if name != split]
    label = _named(source, candidates, wanted.label, "label") or _label(
        source, candidates, values, labels
    )
    for column in (image, label, split):
        if column in twice:
            raise DatasetError(f"{source} has two columns {column!r}. Rename one of them.")
    columns = Columns(image, label, split)
    guessed = [
        f"{column!r} as the {role}"
        for role, column in (("image", image), ("label", label), ("split", split))
        if column is not None
        and getattr(wanted, role) is None
        and column not in OWN[role]
        and column not in images
    ]
    name = os.path.basename(source)
    return columns, [f"{name}: the column {', '.join(guessed)}."] if guessed else []


def has_labels(names: Sequence[str]) -> bool:
    """Whether a column's name is known for labels."""
    return bool(_tiers(names, LABEL))


def _named(source: str, names: Sequence[str], wanted: str | None, what: str) -> str | None:
    if wanted is None:
        return None
    if wanted in names:
        return wanted
    matches = [name for name in names if squeezed(name) == squeezed(wanted)]
    if len(matches) != 1:
        raise DatasetError(
            f"{source} has no column {wanted!r} for --{what}-column; it has {', '.join(names)}."
        )
    return matches[0]


def _tiers(names: Sequence[str], words: Sequence[Sequence[str]]) -> list[list[str]]:
    """The columns of each kind of name, those that there are; in a kind as the words stand."""
    tiers = [[name for word in tier for name in names if squeezed(name) == word] for tier in words]
    return [tier for tier in tiers if tier]


def _image(
    source: str, names: Sequence[str], values: Callable[[str], Sequence[Any]], known: Sequence[str]
) -> str:
    if len(known) == 1:
        return known[0]
    by_name = [name for tier in _tiers(names, IMAGE) for name in tier]
    if known:
        if len(candidates := [name for name in by_name if name in known]) == 1:
            return candidates[0]
        raise DatasetError(
            f"{source} has {len(known)} columns of images, {', '.join(known)}. Name one with "
            "--image-column."
        )
    like_files = [name for name in names if _are_files(values(name))]
    for name in by_name:
        if name in like_files:
            return name
    if len(like_files) == 1:
        return like_files[0]
    if by_name and not like_files:
        return by_name[0]
    raise DatasetError(
        f"{source} has no column that is known to hold images: {', '.join(names)}. Name it with "
        "--image-column, or call it path."
    )


def _are_files(values: Sequence[Any]) -> bool:
    """Whether most of the first values are named like image files."""
    sample = [value for value in values[:50] if value not in (None, "")]
    return bool(sample) and 2 * sum(looks_like_file(value) for value in sample) > len(sample)


def looks_like_file(value: Any) -> bool:
    """Whether a value is a name with the ending of an image."""
    return isinstance(value, str) and os.path.splitext(value)[1].lower() in SUFFIXES


def _split(names: Sequence[str]) -> str | None:
    tiers = _tiers(names, SPLIT)
    return tiers[0][0] if tiers else None


def _label(
    source: str, names: Sequence[str], values: Callable[[str], Sequence[Any]], known: Sequence[str]
) -> str:
    tiers = _tiers(names, LABEL)
    candidates = list(known) or [name for tier in tiers for name in tier]
    if not candidates:
        alternatives = f": {', '.join(names)}" if names else ""
        raise DatasetError(
            f"{source} has no column that is known to hold labels{alternatives}. Name it with "
            "--label-column, or call it label."
        )
    if len(candidates) == 1:
        return candidates[0]
    kinds = _that_say_the_same(candidates, values)
    if len(kinds) == 1:
        return _in_words(kinds[0], values)
    candidate = tiers[0] if not known else [n for tier in tiers for n in tier if n in known][:1]
    if not known or [squeezed(n) for n in candidate] == ["label"]:
        chosen = [kind for kind in kinds if set(kind) & set(candidate)]
        if len(chosen) == 1:
            return _in_words(chosen[0], values)
    raise DatasetError(
        f"{source} has several columns of labels: {', '.join(candidates)}. Name one with "
        "--label-column."
    )


def _that_say_the_same(
    names: Sequence[str], values: Callable[[str], Sequence[Any]]
) -> list[list[str]]:
    """Columns in groups: in a group each value of one goes with one value of another."""
    groups: list[list[str]] = []
    for name in names:
        for group in groups:
            pairs = {(str(a), str(b)) for a, b in zip(values(group[0]), values(name), strict=True)}
            if len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _in_words(names: Sequence[str], values: Callable[[str], Sequence[Any]]) -> str:
    """The first of these columns that holds words; the first of all where none does."""
    for name in names:
        if any(isinstance(v, str) and re.search(r"[^\W\d]", v) for v in values(name)[:1000]):
            return name
    return names[0]
