"""An image, however it comes -> 8-bit RGB: one way for learning, testing, checking, predicting.

A path, the bytes of a file, an open file, a Pillow image and an array all go through `read_image`,
so the same image gives the same pixels. How it is read, where Pillow's own conversion would
mislead or there is a choice:

- 16 bits a channel: the upper eight are taken (Pillow would cut all above 255 to white);
- floats and 32-bit integers, whose file does not say what is white: values in 0..1 (floats only),
  0..255 or 0..65535 are scaled by that range; a range that fits none of these, a largest value
  below a sixteenth of its range, NaN and infinity are refused rather than read as black;
- transparency (an alpha channel, a palette's, a colour key; premultiplied or not): the picture is
  laid on white, or on grey where its ink is nearly white. Benchmark datasets keep the colours
  beneath and drop alpha, as CoOp's reader does;
- animation: its first frame;
- CMYK, palettes, grey: converted to RGB;
- orientation in EXIF: ignored for benchmark datasets, as CoOp's reader does; obeyed for your own
  photos. In a TIFF it is a part of the format, which Pillow always obeys. EXIF that cannot be
  read turns nothing.

The format is told from the content, never from the file's name. A truncated file is an error.

Pillow's warnings (odd EXIF, very large images) are left to whoever runs the process: images are
read in threads, where Python's warning filters cannot be changed safely.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from simprompt.data.image_files import (
    FORMATS,
    SUFFIXES,
    ImageError,
    NeedsReaderError,
    NotAnImageError,
    name_of,
    open_file,
    open_image,
)
from simprompt.data.image_pixels import (
    channels_last,
    colour_key,
    laid_down,
    of_array,
    rgb,
    with_alpha,
)
from simprompt.utils.files.marks import mark_of
from simprompt.utils.files.regular import IMAGE, open_regular

READER = 4
"""Raised by hand when an image gives other pixels than before, or another is refused; what keeps
features or a record of readable files puts it into its key."""

THUMBNAIL = 64
"""Pixels a side of what `check_image` compares pictures by."""

_ORIENTATION = 0x0112  # a tag of EXIF

_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class FileLoader:
    """Items are paths below `root`.

    Args:
        upright: read photos as their owner sees them: turned as their EXIF orientation says, and
            transparent pictures laid on white. Benchmark datasets are read without it.
    """

    root: Path
    upright: bool = False

    def path(self, item: str) -> Path:
        """An item's file."""
        return self.root / item

    def __call__(self, item: str) -> Image.Image:
        return read_image(self.path(item), upright=self.upright, flatten=self.upright)

    def stamp(self, item: str) -> str:
        """Changes with the file, see `marks.mark_of`; empty where it is not there."""
        try:
            return "-".join(map(str, mark_of(self.path(item))))
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return ""


def read_image(
    source: Any,
    *,
    upright: bool = False,
    flatten: bool = True,
    name: str = "",
    most_pixels: int | None = None,
) -> Image.Image:
    """An image as 8-bit RGB, made anew: `source` itself is never changed.

    Args:
        source: a path; the bytes of an image file; a file opened for reading bytes (it is read
            from its start); a Pillow image, whose EXIF counts as its file's would; or an array
            [H, W] or [H, W, 1 to 4], the channels being grey, grey and alpha, RGB, RGB and alpha;
            or a tensor, which may have its channels first as well.
        upright: turn it as its EXIF orientation says.
        flatten: lay a transparent picture on white, or on grey where its ink is nearly white;
            False drops alpha, which shows the colours beneath.
        name: what errors call a source that is no path.
        most_pixels: a larger image is refused before it is decoded; None leaves the limit to
            Pillow.

    Raises:
        ImageError: missing, not an image, damaged, too large to be one, or of unknown scale.
    """
    with _opened(source, name) as image:
        if most_pixels is not None and image.width * image.height > most_pixels:
            raise ImageError(
                f"{image.width} x {image.height} pixels; at most {most_pixels:,} are taken"
            )
        return _read(image, upright, flatten)[0]


def inspect_image(
    source: Any, *, upright: bool = False, flatten: bool = True, name: str = ""
) -> tuple[Image.Image, list[str]]:
    """The image (RGB), and what was unusual about it and how it was read, if anything.

    Takes and raises what `read_image` does.
    """
    with _opened(source, name) as image:
        suffix = Path(source).suffix.lower() if isinstance(source, str | os.PathLike) else ""
        picture, transparency = _read(image, upright, flatten)
        return picture, _notes(image, suffix, transparency)


def check_image(source: Any, name: str = "") -> str:
    """Decode an image and keep a digest; cheaper than `read_image`, and finds the same faults.

    A JPEG is made at an eighth of its size: all of its data is read, few pixels are computed.

    Returns:
        A digest of the picture at `THUMBNAIL` pixels a side and of its EXIF orientation. Files of
        one format with one digest are the same picture to a model.

    Raises:
        ImageError: as `read_image`.
    """
    with _opened(source, name) as image:
        if image is not source:  # `draft` changes an image, and the caller's own stays as it is
            image.draft(None, (1, 1))
        picture, _ = _read(image, upright=False, flatten=True)
        return thumbnail_digest(picture, _orientation(image))


def thumbnail_digest(picture: Image.Image, orientation: int = 1) -> str:
    """Of an RGB image at `THUMBNAIL` pixels a side: 32 hex digits, one for what looks the same."""
    small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return hashlib.blake2b(bytes([orientation % 256]) + small.tobytes(), digest_size=16).hexdigest()


def file_content(source: Any, name: str = "") -> bytes | None:
    """The bytes of the file that `read_image` would decode; None for a picture in memory.

    Args:
        source, name: as `read_image` takes them.

    Raises:
        ImageError: there is no such file, it is empty, or the source is no image.
    """
    if isinstance(source, Image.Image | np.ndarray) or _is_tensor(source):
        return None
    name = name_of(source, name)
    try:
        with open_file(source) as file:
            return file.read()
    except ImageError as error:
        raise type(error)(f"{name}: {error}.") from error.__cause__
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be read, {error}.") from error


def _is_tensor(source: Any) -> bool:
    return type(source).__module__.partition(".")[0] == "torch" and hasattr(source, "detach")


@contextmanager
def _opened(source: Any, name: str) -> Iterator[Image.Image]:
    """A source as a Pillow image; what is wrong with it becomes an `ImageError` that says so."""
    name = name_of(source, name)
    try:
        if isinstance(source, Image.Image):
            yield source
        elif isinstance(source, np.ndarray):
            yield of_array(source)
        elif _is_tensor(source):
            yield of_array(channels_last(source.detach().cpu().numpy()))
        else:
            with open_file(source) as file, open_image(file) as image:
                yield image
    except ImageError as error:
        raise type(error)(f"{name}: {error}.") from error.__cause__
    except UnidentifiedImageError:
        raise NotAnImageError(f"{name}: not an image in a format that Pillow reads.") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels to be a photograph ({error}).") from error
    except Warning:  # whoever runs the process made warnings errors, and wants to see them
        raise
    except Exception as error:  # a damaged file can raise anything that a decoder raises
        why = str(error) or type(error).__name__
        raise ImageError(f"{name}: damaged, {why}.") from error


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file's content is that of an image, one that needs another package included; its
    start is read, and no pixel decoded. Damage is not looked for."""
    try:
        with open_regular(path, IMAGE) as file:
            open_image(file).close()
    except (UnidentifiedImageError, OSError, ValueError):
        return False
    except NeedsReaderError:
        return True
    except Exception:  # it is one, and damaged, or so large that Pillow refuses it
        return True
    return True


def _notes(image: Image.Image, suffix: str, transparency: str) -> list[str]:
    """What is unusual about an image that was read; `transparency` as `_read` says it."""
    notes = []
    kind = image.format or "?"
    if suffix in SUFFIXES and suffix not in FORMATS.get(kind, {suffix}):
        notes.append(f"a {kind} file named {suffix}; read by its content")
    if image.mode.startswith(("I", "F")):
        notes.append(f"16 bits or more a channel (mode {image.mode}); scaled to 8")
    if image.mode in ("CMYK", "YCCK"):
        notes.append("CMYK; converted to RGB without a colour profile")
    if transparency:
        notes.append(f"transparency (mode {image.mode}); {transparency}")
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # Pillow reads all frames to count them
        notes.append("frames that are damaged; the first is whole, and used")
    else:
        if frames > 1 and kind != "MPO":
            notes.append(f"{frames} frames; the first is used")
    return notes


def _read(image: Image.Image, upright: bool, flatten: bool) -> tuple[Image.Image, str]:
    """(an opened image as 8-bit RGB, turned where that is wanted; what became of transparency)."""
    key = colour_key(image)
    image.load()
    translucent = with_alpha(image, key)
    if translucent is None:
        picture, transparency = rgb(image), ""
    elif not flatten:
        picture, transparency = rgb(image), "dropped, the colours beneath are kept"
    else:
        picture, transparency = laid_down(translucent)
    turn = _TURNS.get(_orientation(image)) if upright else None
    return picture if turn is None else picture.transpose(turn), transparency


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 of a loaded image; 1 where EXIF is missing or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as many kinds as there are ways to write EXIF wrongly
        return 1


def is_one(images: Any) -> bool:
    """Whether this is a single image, as `read_image` takes it, and no list of them."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        return True
    if callable(getattr(images, "read", None)):
        return True
    # an array or tensor: images of one size have a dimension more than one image
    dimensions = getattr(images, "ndim", None)
    return isinstance(dimensions, int) and dimensions < 4 and images.dtype != object
