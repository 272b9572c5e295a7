"""The file of an image: its formats, how it is opened, and what is wrong where it cannot be."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from simprompt.errors import SimpromptError, install
from simprompt.utils.files.regular import IMAGE, NOT_THERE, NotRegularError, open_regular

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".pbm", ".jp2", ".avif", ".jfif", ".heic", ".heif"}
)
"""File names that say "an image". What is one, is told from the content."""

FORMATS = {  # suffixes that a format goes by
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm"},
    "JPEG2000": {".jp2"},
    "AVIF": {".avif"},
    "HEIF": {".heic", ".heif"},
}


class ImageError(SimpromptError):
    """An image that cannot be read; says which one and what is wrong with it."""


class NotAnImageError(ImageError):
    """A file whose content is that of no image."""


class NeedsReaderError(ImageError):
    """An image of a kind that needs another package; the message names it."""


def open_image(file: BinaryIO) -> Image.Image:
    """An open file as a Pillow image, not decoded yet."""
    head = file.read(32)
    file.seek(0)
    kind = _HEIF.get(head[8:12]) if head[4:8] == b"ftyp" else None
    readable = kind is None or _has_reader(kind)
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        if readable:
            raise
        remedy = install("heif") if kind == "HEIC" else "a Pillow that was built with it"
        raise NeedsReaderError(
            f"a photo in the format {kind}, which needs {remedy}; or save it as JPEG"
        ) from None


_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HEIF = dict.fromkeys(_HEIC, "HEIC") | dict.fromkeys((b"avif", b"avis"), "AVIF")
"""Major brands of ISO media files that hold a still image (ISO/IEC 23008-12, annex B; AV1-AVIF)."""


@cache
def _has_reader(kind: str) -> bool:
    """Whether this format can be read; HEIC is, by `pillow-heif`, from the first call on."""
    if kind == "AVIF":
        return bool(features.check("avif"))
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def name_of(source: Any, name: str) -> str:
    """What errors call a source; `name` where it is no path."""
    if isinstance(source, str | os.PathLike):
        return str(source)[:300]
    if name:
        return name
    if isinstance(source, bytes | bytearray | memoryview):
        return f"an image of {len(source):,} bytes"
    if isinstance(source, Image.Image):
        return f"a Pillow image of {source.width} x {source.height} pixels, mode {source.mode}"
    if isinstance(source, np.ndarray):
        return f"an array of shape {list(source.shape)}"
    return str(getattr(source, "name", f"an object of type {type(source).__name__}"))


def open_file(source: Any) -> BinaryIO:
    """An open file for Pillow, which maps a path into memory and then mistakes the size of an
    uncompressed TIFF that its orientation turns."""
    if isinstance(source, str | os.PathLike):
        try:
            file = open_regular(source, IMAGE)
        except NotRegularError as error:
            raise ImageError(str(error.strerror)) from error
        except (OSError, ValueError) as error:  # no right to look, or a name that no file can have
            if getattr(error, "errno", None) not in NOT_THERE:
                raise ImageError(f"cannot be opened, {error}") from error
            linked = Path(source).is_symlink()
            why = "a link to something that is not there" if linked else "missing"
            raise ImageError(why) from error
        if not os.fstat(file.fileno()).st_size:
            file.close()
            raise ImageError("empty, zero bytes")
        return file
    if callable(getattr(source, "read", None)):
        if source.seekable():
            source.seek(0)
        source = source.read()
        if isinstance(source, str):
            raise ImageError('opened as text; open it with mode "rb"')
    if not isinstance(source, bytes | bytearray | memoryview):
        raise ImageError(
            "no image; give a path, the bytes of a file, an open file, a Pillow image, a NumPy "
            "array or a tensor"
        )
    if not len(source):
        raise ImageError("empty, zero bytes")
    return io.BytesIO(source)
