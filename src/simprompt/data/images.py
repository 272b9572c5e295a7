"""Image files -> 8-bit RGB, one way for all readers; and what is unusual about a file.

How a file is read, where Pillow's own conversion would mislead or there is a choice:

- 16 bits a channel: the upper eight are taken (Pillow would cut all above 255 to white);
- alpha: dropped, the colours beneath are kept, as CLIP's own pipeline and CoOp's reader do;
- animation: its first frame;
- CMYK, palettes, grey: converted to RGB;
- EXIF rotation: ignored for benchmark datasets, as CoOp's reader does; obeyed for your own photos.

The format is told from the content, never from the file's name. A truncated file is an error.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from simprompt.errors import SimpromptError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".pbm", ".jp2", ".avif"}
)
"""File names that are taken for images when a folder is listed."""

_FORMATS = {  # suffixes that a format goes by
    "JPEG": {".jpg", ".jpeg", ".jpe"}, "MPO": {".jpg", ".jpeg", ".jpe"}, "PNG": {".png"},
    "WEBP": {".webp"}, "BMP": {".bmp"}, "GIF": {".gif"}, "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm"}, "JPEG2000": {".jp2"}, "AVIF": {".avif"},
}  # fmt: skip


class ImageError(SimpromptError):
    """An image that cannot be read; says what is wrong with the file."""


@dataclass(frozen=True)
class FileLoader:
    """Items are paths below `root`.

    Args:
        upright: turn photos as their EXIF orientation says.
    """

    root: Path
    upright: bool = False

    def path(self, item: str) -> Path:
        return self.root / item

    def __call__(self, item: str) -> Image.Image:
        return read_image(self.path(item), upright=self.upright)

    def stamp(self, item: str) -> str:
        """Changes with the file: its size and time of change; empty where it is not there."""
        try:
            found = os.stat(self.path(item))
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return ""
        return f"{found.st_size}-{found.st_mtime_ns}"


def read_image(path: str | Path, *, upright: bool = False) -> Image.Image:
    """The image in a file, 8-bit RGB.

    Raises:
        ImageError: missing, not an image, damaged, or too large to be one.
    """
    return inspect_image(path, upright=upright)[0]


def inspect_image(path: str | Path, *, upright: bool = False) -> tuple[Image.Image, list[str]]:
    """The image (RGB), and what was unusual about the file and how it was read, if anything.

    Raises:
        ImageError: as `read_image`.
    """
    path = Path(path)
    with _opened(path) as image:
        notes = _notes(image, path.suffix.lower())
        image.load()
        turned = ImageOps.exif_transpose(image) if upright else image
        return _rgb(turned), notes


def check_image(path: str | Path) -> None:
    """Decode a file and keep nothing; cheaper than `read_image`, and finds the same faults.

    A JPEG is made at an eighth of its size: all of its data is read, few pixels are computed.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(Path(path)) as image:
        image.draft(None, (1, 1))
        image.load()
        _rgb(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, opened; whatever is wrong with it becomes an `ImageError` that says so."""
    try:
        wrong = _not_a_file(path)
    except (OSError, ValueError) as error:  # no right to look, or a name that no file can have
        raise ImageError(f"{str(path)[:300]}: cannot be opened, {error}.") from error
    if wrong:
        raise ImageError(f"{path}: {wrong}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's doubts about EXIF and large pictures
            with Image.open(path) as image:
                yield image
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image in a format that Pillow reads.") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: too many pixels to be a photograph ({error}).") from error
    except Exception as error:  # a damaged file can raise anything that a decoder raises
        raise ImageError(f"{path}: damaged, {error}.") from error


def _not_a_file(path: Path) -> str:
    """What stands at a path instead of a file with content; empty for such a file."""
    if path.is_dir():
        return "a directory, not a file"
    if not path.exists():
        return "a link to something that is not there" if path.is_symlink() else "missing"
    if path.stat().st_size == 0:
        return "empty, zero bytes"
    return ""


def _notes(image: Image.Image, suffix: str) -> list[str]:
    notes = []
    kind = image.format or "?"
    if suffix in SUFFIXES and suffix not in _FORMATS.get(kind, {suffix}):
        notes.append(f"a {kind} file named {suffix}; read by its content")
    if image.mode.startswith(("I", "F")):
        notes.append(f"16 bits or more a channel (mode {image.mode}); scaled to 8")
    if image.mode in ("CMYK", "YCCK"):
        notes.append("CMYK; converted to RGB without a colour profile")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        notes.append(f"alpha channel (mode {image.mode}); dropped, the colours beneath are kept")
    if getattr(image, "n_frames", 1) > 1 and kind != "MPO":
        notes.append(f"{image.n_frames} frames; the first is used")  # type: ignore[attr-defined]
    return notes


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        scale = 257 if values.max(initial=0) > 255 else 1
        return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
