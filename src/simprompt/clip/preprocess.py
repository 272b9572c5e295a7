"""CLIP's image preprocessing with Pillow: short side bicubic, centre crop, RGB, normalise.

The 8-bit image is the one that OpenAI's published pipeline makes (torchvision's Resize and
CenterCrop on a Pillow image, then RGB). Two peculiarities are kept because the weights were
trained with them: resizing comes before the conversion to RGB, so a palette image is scaled by
nearest neighbour and an alpha channel is dropped, not blended; and both the long side and the
crop's offset are whole pixels, the first cut, the second rounded half to even.

What comes in has 8 bits a channel and is upright; `data.images.read_image` makes such an image of
a file, bytes, an array or any Pillow image.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simprompt.errors import SimpromptError

LONGEST = 32
"""Of an image that is longer than this many times its width, only the middle is scaled: the whole
of a line of 1 x 65,000 pixels would take gigabytes."""


RESAMPLING = tuple(kind.name.lower() for kind in Image.Resampling)


@dataclass(frozen=True)
class Preprocess:
    """Pillow image -> float32 pixels [3, size, size], (value / 255 - mean) / std.

    Args:
        size: pixels a side of the result.
        interpolation: the name of a filter of Pillow.
        resize_mode: "shortest" scales the short side to `size` and cuts out the middle; "squash"
            scales both sides to `size` (some DFN models). "shortest:256" and "squash:256" scale to
            256 pixels and cut the middle `size` x `size` out of that, as processors of Hugging Face
            may be configured.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @property
    def scaled(self) -> int:
        """Pixels that the short side, or both sides, are scaled to."""
        return int(self.resize_mode.partition(":")[2] or self.size)

    @property
    def squashes(self) -> bool:
        """Whether both sides are scaled alike, whatever the shape of the image."""
        return self.resize_mode.partition(":")[0] == "squash"

    @property
    def resample(self) -> Image.Resampling:
        """Pillow's filter of that name."""
        return Image.Resampling[self.interpolation.upper()]

    def crop(self, image: Image.Image) -> Image.Image:
        """The 8-bit RGB image [size, size] that the model looks at.

        Raises:
            SimpromptError: 16 bits a channel or floats, which Pillow would cut to white or black.
        """
        _refuse_deep(image)
        scaled = self.scaled
        if self.squashes:
            if image.size != (scaled, scaled):
                image = image.resize((scaled, scaled), self.resample)
            return self._cut(image)
        width, height = image.size
        short = min(width, height)
        if max(width, height) > LONGEST * short:
            return self._middle(image)
        if short != scaled:
            # the long side is cut to an integer, the crop offset rounded, as torchvision does
            width, height = (
                scaled if width == short else int(scaled * width / short),
                scaled if height == short else int(scaled * height / short),
            )
            image = image.resize((width, height), self.resample)
        return self._cut(image)

    def _cut(self, image: Image.Image) -> Image.Image:
        """The middle [size, size] of an image that was scaled, as RGB."""
        width, height = image.size
        if width == height == self.size:
            return image.convert("RGB")
        x_offset = round((width - self.size) / 2)
        top = round((height - self.size) / 2)
        return image.crop((x_offset, top, x_offset + self.size, top + self.size)).convert("RGB")

    def _middle(self, image: Image.Image) -> Image.Image:
        """`crop` of a very long image: the same up to Pillow's rounding, and no end is scaled."""
        width, height = image.size
        short, long = min(width, height), max(width, height)
        scaled = int(self.scaled * long / short)
        step = long / scaled  # pixels of the image to one of the crop
        side = (0.0, float(short))  # of the short side, what the crop shows
        if self.scaled != self.size:
            edge = round((self.scaled - self.size) / 2)
            side = (edge * short / self.scaled, (edge + self.size) * short / self.scaled)
        start = round((scaled - self.size) / 2) * step
        end = start + self.size * step
        reach = 4 * max(1, step)  # no filter looks farther
        start_row, end_row = max(0, int(start - reach)), min(long, math.ceil(end + reach))
        wide = width == long
        image = image.crop(
            (start_row, 0, end_row, height) if wide else (0, start_row, width, end_row)
        )
        start, end = start - start_row, end - start_row
        box = (start, side[0], end, side[1]) if wide else (side[0], start, side[1], end)
        return image.resize((self.size, self.size), self.resample, box).convert("RGB")

    def augment(self, image: Image.Image, rng: random.Random) -> Image.Image:
        """A random training view, 8-bit RGB [size, size]: CoOp's crop and flip.

        The crop covers 8 to 100 % of the area, its aspect ratio is log-uniform in 3/4 .. 4/3
        (torchvision's random resized crop: ten tries, then the largest allowed centre crop); it
        is scaled bicubically and flipped left-right half of the time.

        Raises:
            SimpromptError: as `crop`.
        """
        _refuse_deep(image)
        width, height = image.size
        x_offset, top, wide, high = _random_crop(width, height, rng)
        view = image.convert("RGB").crop((x_offset, top, x_offset + wide, top + high))
        view = view.resize((self.size, self.size), Image.Resampling.BICUBIC)
        flip = rng.random() < 0.5
        return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view

    def view(self, image: Image.Image, rng: random.Random) -> Tensor:
        """Pixels [3, size, size] of a random training view."""
        return self.normalise(np.asarray(self.augment(image, rng)))

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """uint8 [..., H, W, 3] -> float32 [..., 3, H, W]."""
        return torch.from_numpy(self.normalised(pixels))

    def normalised(self, pixels: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """`normalise` as an array, written to `out` if that is given: (value / 255 - mean) / std,
        each step rounded to float32. The channels move apart in the division's own pass."""
        mean, std = (np.array(row, np.float32).reshape(3, 1, 1) for row in (self.mean, self.std))
        planes = np.moveaxis(pixels, -1, -3)
        x = np.empty(planes.shape, np.float32) if out is None else out
        np.divide(planes, np.float32(255), out=x)
        x -= mean
        x /= std
        return x

    def __call__(self, image: Image.Image) -> Tensor:
        return self.normalise(np.asarray(self.crop(image)))


def _refuse_deep(image: Image.Image) -> None:
    if image.mode.startswith(("I", "F")):
        raise SimpromptError(
            f"An image of mode {image.mode} has more than 8 bits a channel. Read it with "
            "simprompt.data.images.read_image, which scales it."
        )


def _random_crop(width: int, height: int, rng: random.Random) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a crop of 8-100 % of the area, aspect ratio 3/4 .. 4/3."""
    narrow, broad = 3 / 4, 4 / 3
    for _ in range(10):
        area = width * height * rng.uniform(0.08, 1.0)
        ratio = math.exp(rng.uniform(math.log(narrow), math.log(broad)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return rng.randint(0, width - wide), rng.randint(0, height - high), wide, high
    wide, high = width, height
    if width / height < narrow:
        high = max(1, round(width / narrow))
    elif width / height > broad:
        wide = max(1, round(height * broad))
    return (width - wide) // 2, (height - high) // 2, wide, high
