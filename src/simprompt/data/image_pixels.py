"""Pixels of any kind as 8-bit RGB: many bits a channel, transparency, arrays.

`images` says how each kind is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simprompt.data.image_files import ImageError

WHITE, GREY = 255, 128
"""What transparent pictures are laid on."""
STRIP = 1 << 20
"""Pixels that are laid on it at a time."""
LIGHT, DARK_SHARE = 224, 0.05
"""A picture is laid on grey where less than this share of its ink (its pixels, each weighted by its
opacity) is darker than this luminance, because white ink, or yellow, cannot be seen on white."""
OPACITIES = (1, 64, 128, 192)
"""Steps in which a pixel's opacity is weighed."""

_BITS_PER_SAMPLE = 0x0102  # a tag of TIFF


def rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), _depth(image))).convert("RGB")
    if "transparency" in image.info:  # Pillow warns that it drops it, which is what is wanted
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def colour_key(image: Image.Image) -> Any:
    """The transparent colour (or a palette's opacities) of an image in the scale of its pixels, or
    None. Call it before the pixels are loaded.

    Pillow scales grey of 2 and 4 bits to 8 and cuts colours of 16 bits to 8, and leaves the key of
    a PNG as the file has it.
    """
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    raw = str(tiles[0][3]) if tiles and image.format == "PNG" else ""
    if raw in ("L;2", "L;4") and isinstance(key, int):
        return key * {"L;2": 85, "L;4": 17}[raw]
    if raw == "RGB;16B" and isinstance(key, tuple):
        return tuple(value >> 8 for value in key)
    return key


def with_alpha(image: Image.Image, key: Any) -> Image.Image | None:
    """A loaded image as RGBA, not premultiplied; None where nothing in it can be transparent."""
    if image.mode in ("La", "LA", "PA", "RGBa", "RGBA"):
        image = image.convert("LA") if image.mode == "La" else image
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode == "P" and key is None:
        return image.convert("RGBA") if str(image.palette.mode).endswith("A") else None  # type: ignore[union-attr]
    if key is None:
        return None
    if image.mode.startswith("I"):
        alpha = Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
        return Image.merge("LA", (rgb(image).convert("L"), alpha)).convert("RGBA")
    keyed = image.copy()
    keyed.info["transparency"] = key
    try:
        return keyed.convert("RGBA") if image.mode in ("1", "L", "P", "RGB") else None
    except (TypeError, ValueError):  # a key of another kind than the pixels, which hides none
        return None


def laid_down(picture: Image.Image) -> tuple[Image.Image, str]:
    """(an RGBA image on white or grey as RGB, what was done)."""
    alpha = picture.getchannel("A")
    least, greatest = alpha.getextrema()
    if least == 255:
        return picture.convert("RGB"), "opaque throughout"
    ground = _ground(picture)
    on = "white" if ground == WHITE else "grey, as its ink is nearly white"
    how = f"laid on {on}" if greatest else "nothing of it is visible, so it is a white area"
    flat = Image.new("RGB", picture.size)
    for top, strip in _strips(picture):
        below = Image.new("RGBA", strip.size, (ground, ground, ground, 255))
        flat.paste(Image.alpha_composite(below, strip).convert("RGB"), (0, top))
    return flat, how


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, rows) of a picture from top to bottom: copies of a large one stay small."""
    height = max(1, STRIP // picture.width)
    for top in range(0, picture.height, height):
        yield top, picture.crop((0, top, picture.width, min(top + height, picture.height)))


def _ground(picture: Image.Image) -> int:
    """The grey value that the ink of an RGBA picture can be seen on; see `LIGHT`."""
    dark = ink = 0
    for _, strip in _strips(picture):
        luminance, alpha = strip.convert("RGB").convert("L"), strip.getchannel("A")
        for step in OPACITIES:
            visible = alpha.point([255 * (value >= step) for value in range(256)])
            counts = luminance.histogram(visible)
            dark += sum(counts[:LIGHT])
            ink += sum(counts)
    return GREY if dark < DARK_SHARE * ink else WHITE


def of_array(values: npt.NDArray[Any]) -> Image.Image:
    """8-bit grey or RGB, with alpha where there is some, of an array [H, W] or [H, W, channels]."""
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    elif values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (2, 3, 4)):
        raise ImageError("an image is an array [H, W] or [H, W, 1 to 4], channels last")
    if not values.size:
        raise ImageError("no pixels")
    if values.dtype.kind not in "buif":
        raise ImageError(f"values of type {values.dtype}; an image has numbers")
    if values.ndim == 3 and values.shape[2] in (2, 4) and values.dtype.kind == "f":
        colour, alpha = values[..., :-1], values[..., -1:]
        if float(colour.max()) > 1.1 and float(alpha.max()) <= 1:  # e.g. 0..255 with 0..1
            values = np.concatenate([_eight_bits(colour), _eight_bits(alpha)], axis=2)
    return Image.fromarray(np.ascontiguousarray(_eight_bits(values)))


def channels_last(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A tensor's values; torch has channels first, [C, H, W]."""
    channels_first = values.ndim == 3 and values.shape[0] in (1, 2, 3, 4) and values.shape[2] > 4
    return np.moveaxis(values, 0, -1) if channels_first else values


def _depth(image: Image.Image) -> int | None:
    """Bits a channel of an image of mode I or F as its file says; None where it does not say."""
    if image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})  # a TIFF may hold 12
        return int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    # Pillow holds 16-bit PGM (scaled to the full range) as 32-bit integers, once PNG as well
    return 16 if image.mode == "I" and image.format in ("PPM", "PNG") else None


def _eight_bits(values: npt.NDArray[Any], depth: int | None = None) -> npt.NDArray[np.uint8]:
    """Values of any type as uint8, of the same shape; see the module's docstring.

    Args:
        depth: how many bits are in use, where that is known and not what the type says.

    Raises:
        ImageError: NaN, infinity, or values whose scale cannot be told.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint16 and depth is None:
        depth = 16
    if depth is not None:
        shifted: npt.NDArray[np.uint8] = np.clip(values >> (depth - 8), 0, 255).astype(np.uint8)
        return shifted
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("it holds NaN or infinity")
    is_integer = values.dtype.kind in "iu"
    for top in (255, 65535) if is_integer else (1, 255, 65535):
        slack = 0 if is_integer else top / 10  # resampling shoots over
        if low < -slack or high > top + slack:
            continue
        if top > 1 and 0 < high < top / 16:
            break
        scaled = np.floor(values / 256) if top == 65535 else np.rint(values * (255 / top))
        return np.clip(scaled, 0, 255).astype(np.uint8)
    raise ImageError(
        f"values from {low:g} to {high:g}, of which it cannot be told what is white; save it with "
        "8 or 16 bits a channel, or as floats in 0..1"
    )
