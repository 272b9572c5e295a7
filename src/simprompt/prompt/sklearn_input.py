"""What scikit-learn's users hand over: images in any form, labels, sample weights."""

from __future__ import annotations

import hashlib
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import prompt_text
from simprompt.data.image_files import ImageError
from simprompt.data.images import file_content, read_image
from simprompt.data.names import says_nothing
from simprompt.errors import SimpromptError

Labels = npt.NDArray[Any]
MOST_REPEATS = 100
"""How often, on average, `sample_weight` may repeat an image."""


class GivenImages:
    """Images in memory or at paths as a split's loader.

    An item is the digest of what decides the image's pixels, so features that are kept on disk
    serve every fit on the same images, and no other image. It is the bytes of a file, be it at a
    path, open or in memory. It is the pixels that `read_image` gives of everything else: whatever
    a Pillow image, an array or a tensor holds besides (palette, transparency, bit depth, EXIF)
    counts by what it does to them.
    """

    def __init__(self, images: Sequence[Any], upright: bool) -> None:
        self.upright = upright
        self._sources: dict[str, Any] = {}
        items = []
        for number, image in enumerate(images):
            item, source = self._identified(image, f"images[{number}]")
            self._sources[item] = source
            items.append(item)
        self.items = tuple(items)

    def __call__(self, item: str) -> Any:
        source = self._sources[item]
        if not isinstance(source, str | os.PathLike):
            return read_image(source, upright=self.upright)
        content = file_content(source)
        if content is not None and self._of_file(content) != item:
            raise SimpromptError(
                f"The image {source} changed while the prompt was learned. Learn it again."
            )
        return read_image(content, upright=self.upright, name=str(source))

    def _identified(self, image: Any, name: str) -> tuple[str, Any]:
        """An image's item, and what to read it from: an open file may be read only once."""
        try:
            content = file_content(image, name)
            if content is not None:
                is_path = isinstance(image, str | os.PathLike)
                return self._of_file(content), image if is_path else content
            picture = read_image(image, upright=self.upright, name=name)
        except ImageError:  # reading it says what is wrong; no features are ever kept of it
            return f"unreadable-{uuid.uuid4().hex}", image
        head = f"pixels {picture.width} {picture.height} "
        return self._item(head.encode() + picture.tobytes()), image

    def _of_file(self, content: bytes) -> str:
        return self._item(b"file " + content)

    def _item(self, content: bytes) -> str:
        return f"{hashlib.sha256(content).hexdigest()}-{self.upright:d}"


def as_images(X: Iterable[Any]) -> list[Any]:
    """Images one by one.

    Raises:
        SimpromptError: a single path or picture, or something that holds no images.
    """
    images = as_column(X, "X")
    if images and isinstance(images[0], np.ndarray) and images[0].ndim < 2:
        raise SimpromptError(
            "X is a table of numbers; it has to be a list of paths or pictures, or an array "
            "[N, H, W, 3]."
        )
    if images and isinstance(images[0], int | float | np.number):
        raise SimpromptError("X holds numbers; it has to be a list of paths or pictures.")
    return [str(image) if isinstance(image, np.str_) else image for image in images]


def as_column(values: Any, what: str) -> list[Any]:
    """The entries of a list, or of the one column of a table.

    Raises:
        SimpromptError: no list, or a table of several columns.
    """
    if hasattr(values, "columns"):  # a DataFrame, whose entries are the names of its columns
        names = [str(name) for name in values.columns]
        if len(names) != 1:
            raise SimpromptError(
                f"{what} is a table with the columns {', '.join(names[:8])}; give one of them, "
                f"such as frame[{names[0]!r}]."
                if names
                else f"{what} is a table without columns."
            )
        return list(values.iloc[:, 0]) if hasattr(values, "iloc") else list(values[names[0]])
    listed = _listed(values, what)
    if listed and all(_is_row(row) and len(row) == 1 for row in listed):
        return [row[0] for row in listed]
    return listed


def _is_row(value: Any) -> bool:
    """Whether this is a row of a table of texts or pictures, which one of pixels is not."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "OUSiub"
    return isinstance(value, list | tuple)


def repeated_rows(sample_weight: Iterable[float], count: int) -> list[int]:
    """Which images to learn from, each as often as its weight says.

    Raises:
        SimpromptError: see `PromptClassifier.fit`.
    """
    weights = as_weights(sample_weight, count)
    times = weights / weights[weights > 0].min()
    whole_weights = times.round().astype(int)
    if (
        not np.allclose(times, whole_weights, rtol=1e-6)
        or whole_weights.sum() > MOST_REPEATS * count
    ):
        raise SimpromptError(
            "sample_weight has to be whole multiples of its smallest weight, with a mean of at "
            f"most {MOST_REPEATS}: an image of weight 2 is learned from twice. "
            "Leave sample_weight out, or repeat images in X and y."
        )
    return np.repeat(np.arange(count), whole_weights).tolist()


def as_weights(sample_weight: Iterable[float], count: int) -> npt.NDArray[np.float64]:
    """Weights [N] as finite numbers from 0."""
    try:
        weights = np.asarray(as_column(sample_weight, "sample_weight"), dtype=np.float64)
    except (TypeError, ValueError):
        weights = np.zeros(0)
    good = weights.shape == (count,) and np.isfinite(weights).all() and (weights >= 0).all()
    if not good or not weights.any():
        raise SimpromptError(
            f"sample_weight has to be {count} numbers from 0, one an image, and not all 0."
        )
    return weights


def _listed(values: Iterable[Any], what: str) -> list[Any]:
    single = isinstance(values, str | bytes | os.PathLike) or hasattr(values, "getexif")
    if single or not isinstance(values, Iterable):
        raise SimpromptError(
            f"{what} has to be a list, one entry an image or name; got a single "
            f"{type(values).__name__}."
        )
    return list(values)


def join_labels(known: Labels, new: Sequence[str]) -> Labels:
    """Labels and new names as one array; labels that are no texts keep their type in it."""
    if not new:
        return known
    if known.dtype.kind == "U":
        return np.asarray([*known.tolist(), *new])
    return np.asarray([*known.tolist(), *new], dtype=object)


def check_label_names(
    labels: Sequence[Any], called: Sequence[str], names: Mapping[Any, str], clip: CLIP
) -> None:
    """Warn of class names that say nothing, and of names of labels that there are not.

    Args:
        called: the class name of each label.
        names: what the caller of `fit` calls labels.

    Raises:
        SimpromptError: a label is a number, and its name no text for the model.
    """
    silent = [label for label, name in zip(labels, called, strict=True) if says_nothing(name)]
    if silent:
        silent_text = ", ".join(map(str, silent[:6])) + (", ..." if len(silent) > 6 else "")
        message = (
            f"The labels {silent_text} say nothing to CLIP, which learns from words. Set "
            f"names={{{silent[0]!r}: 'cat', ...}}. If your labels are words, scikit-learn has "
            "replaced them by numbers, as cross_val_predict(method='predict_proba'), "
            "VotingClassifier and StackingClassifier do: set "
            "names=dict(enumerate(sorted(set(labels)))). OneVsRestClassifier hides which "
            "class it asks for; PromptClassifier tells all classes apart without it."
        )
        if not all(clip.tokenizer.encode(prompt_text(name)) for name in called):
            raise SimpromptError(message)
        warnings.warn(message, stacklevel=3)
    present = {*labels, *map(str, labels)}
    if missing := [label for label in names if label not in present]:
        warnings.warn(
            f"names has labels that fit() got no image of: {', '.join(map(repr, missing[:6]))}."
            " Check that the labels are what names says; OneVsRestClassifier replaces them by "
            "0 and 1.",
            stacklevel=3,
        )
