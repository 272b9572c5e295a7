"""The pixels that an image tower takes, made when they are asked for.

A tower that is part of what is learned cannot have its features cached: it needs the pixels of
each training image at every epoch, and of each test image once. They are read ahead in threads, a
few at a time, so memory holds some batches and not all images, however many there are.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from simprompt.clip.preprocess import Preprocess
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.utils.prefetch import read_ahead, threads
from simprompt.utils.progress import report_progress

KEPT = 2**27
"""Bytes up to which the 8-bit views of training images are kept after they were first decoded: 891
views of 224 x 224 pixels."""

BATCH_PIXELS = 32 * 224 * 224
"""A batch has at most so many pixels in `Pixels.in_order`. A frozen ViT-B/16 takes 0.3 GB for its
activations on such a batch."""

MOST = 64
"""Images a batch of `Pixels.in_order` has at most, however small they are."""

Pick = tuple[Tensor, Tensor]
"""Which images of a batch, and which of its views of each: rows and views, int64 [B] both."""


class Pixels:
    """M views of N images as a tensor [N, M, 3, S, S] that is never whole in memory.

    Args:
        preprocess: makes the views.
        split: the images.
        views: None is the test-time crop, M = 1; a number M that many augmented views.
        seed: of the augmented views; view m of an item is the same whatever M is.
        keep: views are asked for again: their 8-bit crops are kept if all of them take no more
            than `KEPT` bytes.

    Raises, where images are read:
        SimpromptError: an image cannot be read; named.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        split: Split,
        views: int | None = None,
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self.preprocess, self.split, self.views, self.seed = preprocess, split, views, seed
        size = preprocess.size
        self.shape = (len(split), views or 1, 3, size, size)
        fits = keep and int(np.prod(self.shape)) <= KEPT
        self._kept: dict[tuple[int, int], np.ndarray] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self.split)

    def picked(self, picks: Sequence[Pick]) -> Iterator[Tensor]:
        """float32 [B, 3, S, S] of each pick, read ahead: what ``tensor[rows, views]`` would be."""
        views_wanted = [
            (row, (view,))
            for rows, views in picks
            for row, view in zip(rows.tolist(), views.tolist(), strict=True)
        ]
        return self._batches(views_wanted, [len(rows) for rows, _ in picks])

    def in_order(
        self, what: str = "", most: int | None = None, even: bool = True
    ) -> Iterator[Tensor]:
        """All views, image after image, float32 [b, 3, S, S] each: [N * M, 3, S, S] in all.

        Batches differ by one view at most, so that none has a single one unless there is no
        other: a product with one row may be summed in another order. Not `even`: all but the last
        one have `most`.

        Args:
            what: said to `utils.progress.report_progress` after each batch, if anything.
            most: views in a batch; None is `MOST`, or what `BATCH_PIXELS` allows.
        """
        n, m, _, size, _ = self.shape
        every = tuple(range(m))
        most = most or max(1, min(MOST, BATCH_PIXELS // size**2))
        full, remainder = divmod(n * m, most)
        sizes = _evenly(n * m, most) if even else [most] * full + [remainder] * (remainder > 0)
        count = 0
        if what and sizes:
            report_progress(what, 0, n * m)
        for batch in self._batches([(row, every) for row in range(n)], sizes):
            yield batch
            count += len(batch)
            if what:
                report_progress(what, count, n * m)

    def _batches(
        self, wanted: Sequence[tuple[int, tuple[int, ...]]], sizes: Sequence[int]
    ) -> Iterator[Tensor]:
        """The wanted views, each (row, views), in batches of these sizes."""
        ahead = max(sizes, default=0) // max(1, self.shape[1]) + 2 * threads()
        crops = itertools.chain.from_iterable(read_ahead(self._crops, wanted, ahead))
        for size in sizes:
            batch = np.empty((size, *self.shape[2:]), np.float32)
            for pixels in batch:
                self.preprocess.normalised(next(crops), pixels)
            yield torch.from_numpy(batch)

    def _crops(self, wanted: tuple[int, tuple[int, ...]]) -> list[np.ndarray]:
        """8 bits, [S, S, 3], of some views of a row, which is read if one of them is not kept."""
        row, views = wanted
        cache = {} if self._kept is None else self._kept
        missing = [view for view in views if (row, view) not in cache]
        image = load_image(self.split, row) if missing else None
        fresh = {view: self._crop(image, row, view) for view in missing if image is not None}
        if self._kept is not None:
            self._kept.update({(row, view): crop for view, crop in fresh.items()})
        return [fresh[view] if view in fresh else cache[row, view] for view in views]

    def _crop(self, image: Image, row: int, view: int) -> np.ndarray:
        if self.views is None:
            return np.asarray(self.preprocess.crop(image))
        rng = view_rng(self.seed, self.split.items[row], view)
        return np.asarray(self.preprocess.augment(image, rng))


Images = Tensor | Pixels
"""What a learner takes of N images in M views: features [N, M, E], or pixels [N, M, 3, S, S]."""


def with_views(images: Images) -> Images:
    """Images with a dimension of views, on the CPU, where batches are picked: a tensor of pixels
    may come as one view, [N, 3, S, S]."""
    if isinstance(images, Pixels):
        return images
    return (images[:, None] if images.dim() == 4 else images).cpu()


def picked(images: Images, picks: Sequence[Pick]) -> Iterator[Tensor]:
    """``images[rows, views]`` of each pick."""
    if isinstance(images, Pixels):
        return images.picked(picks)
    return (images[rows, views] for rows, views in picks)


def in_order(images: Images, what: str = "") -> Iterator[Tensor]:
    """All views in parts, [b, ...] each and [N * M, ...] in all; a tensor is one part."""
    return images.in_order(what) if isinstance(images, Pixels) else iter((images.flatten(0, 1),))


def load_image(split: Split, row: int) -> Image:
    """The image of a row; whatever its loader raises names it."""
    try:
        return split.load(row)
    except SimpromptError:
        raise
    except Exception as error:
        raise SimpromptError(
            f"The image {split.items[row]!r} of {split.source or 'this split'} could not be read: "
            f"{error}. `simprompt check` lists every such image."
        ) from error


def view_rng(seed: int, item: str, view: int) -> random.Random:
    """What view number `view` of an item is drawn with."""
    return random.Random(f"{seed}/{item}/{view}")


def _evenly(n: int, most: int) -> list[int]:
    """`n` as a sum of numbers up to `most` that differ by at most one, as few as there can be."""
    count_of_parts = -(-n // most)
    return [n // count_of_parts + (i < n % count_of_parts) for i in range(count_of_parts)]
