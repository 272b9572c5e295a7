"""CLIP's image preprocessing with Pillow: short side bicubic, centre crop, RGB, normalise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Preprocess:
    """Pillow image -> float32 pixels [3, size, size], (value / 255 - mean) / std."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def crop(self, image: Image.Image) -> Image.Image:
        """The 8-bit RGB image [size, size] that the model looks at."""
        width, height = image.size
        short = min(width, height)
        if short != self.size:
            # the long side is cut to an integer, the crop offset rounded, as torchvision does
            width, height = (
                self.size if width == short else int(self.size * width / short),
                self.size if height == short else int(self.size * height / short),
            )
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left = round((width - self.size) / 2)
        top = round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size)).convert("RGB")

    def normalise(self, pixels: np.ndarray) -> Tensor:
        """uint8 [..., H, W, 3] -> float32 [..., 3, H, W]."""
        x = torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float().div_(255)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return x.sub_(mean).div_(std)

    def __call__(self, image: Image.Image) -> Tensor:
        return self.normalise(np.asarray(self.crop(image)))
