"""How a picture's features move when it is blurred, darkened, drawn, seen from near or far.

What a prompt says of the picture and not of the thing in it ("a blurry photo of a {}.") moves the
name's target, too: by the mean change of unit features when photographs are changed in that way,
where that mean brings other photographs' features nearer to what they become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from simprompt.clip import efficientnet
from simprompt.clip.efficientnet import EfficientNet, EfficientNetConfig

PHOTOS = {
    "scikit-image": ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png",
                     "rocket.jpg"),
    "scikit-learn": ("china.jpg", "flower.jpg"),
}  # fmt: skip
"""Photographs that packages carry; they are measured, and do not ship."""
SIDE = 224


def _blurry(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(4))


def _coarse(image: Image.Image) -> Image.Image:
    return image.resize((28, 28), Image.Resampling.BILINEAR).resize(image.size, 0)


def _dark(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(0.25)).enhance(0.6)


def _bright(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(2.0)


def _grey(image: Image.Image) -> Image.Image:
    return ImageOps.grayscale(image).convert("RGB")


def _near(image: Image.Image) -> Image.Image:
    edge = SIDE // 4
    return image.crop((edge, edge, SIDE - edge, SIDE - edge)).resize(image.size, 3)


def _far(image: Image.Image) -> Image.Image:
    ground = image.filter(ImageFilter.GaussianBlur(40))
    ground.paste(image.resize((SIDE * 2 // 5,) * 2, 3), (SIDE * 3 // 10,) * 2)
    return ground


def _several(image: Image.Image) -> Image.Image:
    half = image.resize((SIDE // 2,) * 2, 3)
    made = image.copy()
    for i in range(4):
        part = ImageOps.mirror(half) if i % 2 else half
        made.paste(part, (i % 2 * (SIDE // 2), i // 2 * (SIDE // 2)))
    return made


def _sketch(image: Image.Image) -> Image.Image:
    """Grey over its own blurred surroundings: what is darker than those stays as a line."""
    grey = ImageOps.grayscale(image)
    around = np.asarray(grey.filter(ImageFilter.GaussianBlur(3)), np.float32)
    lines = np.clip(np.asarray(grey, np.float32) / np.maximum(around, 1), 0, 1)
    return Image.fromarray((255 * lines**3).astype(np.uint8)).convert("RGB")


LOOKS: dict[str, tuple[Callable[[Image.Image], Image.Image], tuple[str, ...]]] = {
    "blurry": (_blurry, ("a blurry photo of a {}.", "a photo of a {} out of focus.")),
    "coarse": (_coarse, ("a pixelated photo of a {}.", "a low resolution photo of a {}.")),
    "dark": (_dark, ("a dark photo of a {}.", "a photo of a {} at night.")),
    "bright": (_bright, ("a bright photo of a {}.",)),
    "grey": (_grey, ("a black and white photo of a {}.",)),
    "near": (_near, ("a close-up photo of a {}.", "a cropped photo of the {}.")),
    "far": (_far, ("a photo of a small {}.", "a {} far away.")),
    "several": (_several, ("several {}.", "a photo of many {}.")),
    "sketch": (_sketch, ("a sketch of a {}.", "a drawing of a {}.")),
}
"""What is done to a picture, and the prompts that say so."""


def photographs(each: int = 6) -> Iterator[tuple[str, Image.Image]]:
    """(photograph, square cut of it): `each` cuts of every photograph, between half its shorter
    side and all of it."""
    rng = np.random.default_rng(0)
    for package, files in PHOTOS.items():
        found = distribution(package).files or []
        for name in files:
            path = next(p for p in found if p.name == name)
            image = Image.open(Path(str(path.locate()))).convert("RGB")
            for _ in range(each):
                side = int(min(image.size) * rng.uniform(0.5, 1))
                left, top = (int(rng.integers(0, n - side + 1)) for n in image.size)
                box = (left, top, left + side, top + side)
                yield name, image.crop(box).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@torch.no_grad()
def shifts(basis: Tensor) -> tuple[Tensor, dict[str, tuple[float, float]]]:
    """What each of `LOOKS` does to unit features in the joint space.

    Args:
        basis: [1280, E], from centred pooled features to the joint space.

    Returns:
        (shifts [looks, E], the mean change, zero where it tells nothing of other photographs; by
        look the cosine of a changed picture's features with those of the unchanged one, and with
        those moved by the mean change of the other photographs).
    """
    network = EfficientNet(EfficientNetConfig(SIDE, basis.shape[1])).eval()
    published = efficientnet.published()
    mean = efficientnet.mean_feature(published)
    projection = {"projection.weight": basis.T, "projection.bias": -(mean @ basis)}
    network.load_state_dict({**efficientnet.folded(published), **projection})

    def features(images: list[Image.Image]) -> Tensor:
        pixels = torch.from_numpy(np.stack([np.asarray(i, np.float32) for i in images]))
        return F.normalize(network(((pixels - 127) / 128).permute(0, 3, 1, 2)), dim=-1)

    names, images = zip(*photographs(), strict=True)
    plain = features(list(images))
    made, report = [], {}
    for look, (change, _) in LOOKS.items():
        changed = features([change(image) for image in images])
        moved = torch.stack([
            plain[i] + (changed - plain)[[n != name for n in names]].mean(0)
            for i, name in enumerate(names)
        ])  # fmt: skip
        before, after = (F.cosine_similarity(changed, x).mean().item() for x in (plain, moved))
        made.append((changed - plain).mean(0) * (after > before))
        report[look] = (before, after)
    return torch.stack(made), report
