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
import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError, features

from simprompt.errors import SimpromptError, install
from simprompt.utils.files.marks import mark_of
from simprompt.utils.files.regular import IMAGE, NOT_THERE, NotRegularError, open_regular

READER = 4
"""Raised by hand when an image gives other pixels than before, or another is refused; what keeps
features or a record of readable files puts it into its key."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
    | {".pbm", ".jp2", ".avif", ".jfif", ".heic", ".heif"}
)
"""File names that say "an image". What is one, is told from the content."""

_FORMATS = {  # suffixes that a format goes by
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

WHITE, GREY = 255, 128
"""What transparent pictures are laid on."""
STRIP = 1 << 20
"""Pixels that are laid on it at a time."""
LIGHT, DARK_SHARE = 224, 0.05
"""A picture is laid on grey where less than this share of its ink (its pixels, each weighted by its
opacity) is darker than this luminance, because white ink, or yellow, cannot be seen on white."""
OPACITIES = (1, 64, 128, 192)
"""Steps in which a pixel's opacity is weighed."""
THUMBNAIL = 64
"""Pixels a side of what `check_image` compares pictures by."""

_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 0x0102  # tags of EXIF and of TIFF

_TURNS = {  # EXIF orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(SimpromptError):
    """An image that cannot be read; says which one and what is wrong with it."""


class NotAnImageError(ImageError):
    """A file whose content is that of no image."""


class NeedsReaderError(ImageError):
    """An image of a kind that needs another package; the message names it."""


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
        if image is not source:
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
    name = _name(source, name)
    try:
        with _file(source) as file:
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
    name = _name(source, name)
    try:
        if isinstance(source, Image.Image):
            yield source
        elif isinstance(source, np.ndarray):
            yield _of_array(source)
        elif _is_tensor(source):
            yield _of_array(_channels_last(source.detach().cpu().numpy()))
        else:
            with _file(source) as file, _open(file) as image:
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
            _open(file).close()
    except (UnidentifiedImageError, OSError, ValueError):
        return False
    except NeedsReaderError:
        return True
    except Exception:  # it is one, and damaged, or so large that Pillow refuses it
        return True
    return True


def _open(file: BinaryIO) -> Image.Image:
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


def _name(source: Any, name: str) -> str:
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


def _file(source: Any) -> BinaryIO:
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


def _notes(image: Image.Image, suffix: str, transparency: str) -> list[str]:
    """What is unusual about an image that was read; `transparency` as `_read` says it."""
    notes = []
    kind = image.format or "?"
    if suffix in SUFFIXES and suffix not in _FORMATS.get(kind, {suffix}):
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
    key = _colour_key(image)
    image.load()
    picture = _with_alpha(image, key)
    if picture is None:
        rgb, transparency = _rgb(image), ""
    elif not flatten:
        rgb, transparency = _rgb(image), "dropped, the colours beneath are kept"
    else:
        rgb, transparency = _laid_down(picture)
    turn = _TURNS.get(_orientation(image)) if upright else None
    return rgb if turn is None else rgb.transpose(turn), transparency


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8 of a loaded image; 1 where EXIF is missing or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as many kinds as there are ways to write EXIF wrongly
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image), _depth(image))).convert("RGB")
    if "transparency" in image.info:  # Pillow warns that it drops it, which is what is wanted
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _colour_key(image: Image.Image) -> Any:
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


def _with_alpha(image: Image.Image, key: Any) -> Image.Image | None:
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
        return Image.merge("LA", (_rgb(image).convert("L"), alpha)).convert("RGBA")
    keyed = image.copy()
    keyed.info["transparency"] = key
    try:
        return keyed.convert("RGBA") if image.mode in ("1", "L", "P", "RGB") else None
    except (TypeError, ValueError):  # a key of another kind than the pixels, which hides none
        return None


def _laid_down(picture: Image.Image) -> tuple[Image.Image, str]:
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


def _of_array(values: npt.NDArray[Any]) -> Image.Image:
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


def _channels_last(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
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


def is_one(images: Any) -> bool:
    """Whether this is a single image, as `read_image` takes it, and no list of them."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        return True
    if callable(getattr(images, "read", None)):
        return True
    # an array or tensor: images of one size have a dimension more than one image
    dimensions = getattr(images, "ndim", None)
    return isinstance(dimensions, int) and dimensions < 4 and images.dtype != object
