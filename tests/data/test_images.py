"""An image gives the same pixels whichever way it comes, and every odd file is named."""

from __future__ import annotations

import io
import struct
import threading
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from typer.testing import CliRunner

from simprompt.data.image_files import ImageError
from simprompt.data.images import FileLoader, check_image, inspect_image, read_image
from simprompt.data.own_images import folder
from simprompt.data.own_images.check import check_folder
from simprompt.data.own_images.encoded import EncodedLoader
from simprompt.utils.progress import listening


def picture(mode: str = "RGB", size=(24, 16), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


def see_through(size=(24, 16), seed: int = 0) -> Image.Image:
    """Noise with noise as its alpha channel."""
    layers = (*picture(size=size, seed=seed).split(), picture("L", size, seed + 1))
    return Image.merge("RGBA", layers)


def on(image: Image.Image, ground: int) -> np.ndarray:
    """The oracle: Pillow's own composition of an image over one grey value, [H, W, 3]."""
    below = Image.new("RGBA", image.size, (ground, ground, ground, 255))
    return np.asarray(Image.alpha_composite(below, image.convert("RGBA")).convert("RGB"))


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """The ten odd files, a copy, and two good ones."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    whole = io.BytesIO()
    picture(size=(64, 64)).save(whole, "JPEG")
    (folder / "truncated.jpg").write_bytes(whole.getvalue()[:1500])
    picture(seed=1).save(folder / "png.jpg", "PNG")
    deep = (np.arange(24 * 16, dtype=np.uint16) * 170).reshape(16, 24)
    Image.fromarray(deep).save(folder / "deep.png")
    picture("CMYK", seed=2).save(folder / "cmyk.jpg")
    frames = [picture(seed=s) for s in (3, 4, 5)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    see_through(seed=6).save(folder / "rgba.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("this is no picture", encoding="utf-8")
    (folder / "x.jpg").mkdir()
    (folder / "link.jpg").symlink_to(folder / "nowhere.jpg")
    picture(seed=7).save(folder / "good.png")
    (folder / "copy.png").write_bytes((folder / "good.png").read_bytes())
    return folder


EXPECTED = {
    "truncated.jpg": ("unreadable", "truncated"),
    "png.jpg": ("note", "a PNG file named .jpg"),
    "deep.png": ("note", "16 bits"),
    "cmyk.jpg": ("note", "CMYK"),
    "animated.gif": ("note", "3 frames; the first"),
    "rgba.png": ("note", "transparency (mode RGBA); laid on white"),
    "empty.jpg": ("unreadable", "zero bytes"),
    "text.jpg": ("unreadable", "not an image"),
    "x.jpg": ("unreadable", "a directory"),
    "link.jpg": ("unreadable", "a link to something that is not there"),
    "good.png": ("duplicate", "the same bytes as copy.png"),
}


def test_each_odd_file_is_named(zoo):
    report = check_folder(zoo)
    found = {f.item: (f.kind, f.what) for f in report.findings}
    assert found.keys() == EXPECTED.keys()
    for item, (kind, what) in EXPECTED.items():
        assert found[item][0] == kind
        assert what in found[item][1], found[item]
    assert report.readable == 7
    assert not report.ok


def test_a_check_tells_how_far_it_is(zoo):
    shown: list[tuple[str, int, int]] = []
    with listening(lambda *line: shown.append(line)):
        files = check_folder(zoo).counts["files"]
    assert shown == [("files checked", done, files) for done in (0, files)]


def test_the_command_prints_them_and_exits_with_1(zoo):
    from simprompt.cli.main import app

    result = CliRunner().invoke(app, ["check", str(zoo)])
    assert result.exit_code == 1
    for item, (_, what) in EXPECTED.items():
        assert any(item in line and what in line for line in result.output.splitlines()), item
    for item in EXPECTED:
        if EXPECTED[item][0] != "note":
            path = zoo / item
            path.rmdir() if path.is_dir() else path.unlink()
    mended = CliRunner().invoke(app, ["check", str(zoo)])
    assert "whole: nothing missing" in mended.output
    assert "cannot be learned from" in mended.output  # for want of class folders
    assert mended.exit_code == 1


def test_unusual_files_are_read_as_they_look(zoo):
    deep, notes = inspect_image(zoo / "deep.png")
    assert deep.mode == "RGB"
    assert np.array_equal(np.asarray(deep)[..., 0].ravel(), (np.arange(384) * 170) >> 8)
    assert notes == ["16 bits or more a channel (mode I;16); scaled to 8"]
    see = Image.open(zoo / "rgba.png")
    assert np.array_equal(np.asarray(read_image(zoo / "rgba.png")), on(see, 255))
    below = np.asarray(see)[..., :3]  # as CoOp's reader has the benchmarks
    assert np.array_equal(np.asarray(read_image(zoo / "rgba.png", flatten=False)), below)
    assert np.array_equal(np.asarray(FileLoader(zoo)("rgba.png")), below)
    with pytest.raises(ImageError, match="missing"):
        read_image(zoo / "nothing.jpg")


def test_photos_are_turned_only_where_asked(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture(size=(24, 16)).save(tmp_path / "a.jpg", exif=exif)
    assert FileLoader(tmp_path)("a.jpg").size == (24, 16)
    assert FileLoader(tmp_path, upright=True)("a.jpg").size == (16, 24)
    stamp = FileLoader(tmp_path).stamp("a.jpg")
    picture(size=(24, 18)).save(tmp_path / "a.jpg")
    assert FileLoader(tmp_path).stamp("a.jpg") != stamp
    assert FileLoader(tmp_path).stamp("b.jpg") == ""


def test_the_quick_check_finds_what_reading_finds(zoo, tmp_path):
    """The oracle is `read_image`, on the zoo and on JPEGs cut at many places."""
    files = sorted(zoo.iterdir())
    for options in ({}, {"progressive": True}):
        for mode in ("RGB", "L", "CMYK"):
            whole = io.BytesIO()
            picture(mode, size=(96, 80)).save(whole, "JPEG", **options)
            size = len(whole.getvalue())
            for part in range(1, 13):
                files.append(tmp_path / f"{mode}{len(options)}-{part}.jpg")
                files[-1].write_bytes(whole.getvalue()[: size * part // 12])

    def said(look, file: Path) -> str:
        try:
            look(file)
        except ImageError as error:
            return str(error).partition("(")[0]  # then the number of bytes, which may differ
        return ""

    found = {file: said(check_image, file) for file in files}
    assert found == {file: said(read_image, file) for file in files}
    assert sum(map(bool, found.values())) > 40
    assert not all(found.values())


# --- one way, whichever way an image comes --------------------------------------------------------

NOISE = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)


def deep_png(values: np.ndarray) -> bytes:
    """A PNG with 16 bits a channel, [H, W, 3] or, with alpha, [H, W, 4]; Pillow writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )  # fmt: skip

    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks)


def encoded(kind: str, width: int, height: int, turn: int) -> tuple[bytes, np.ndarray]:
    """A file's bytes, and the pixels [h, w, 3] of it upright, told without the reader."""
    deep = NOISE[:height, :width]
    rgb = (deep >> 8).astype(np.uint8)
    grey = rgb[..., 0]
    exif = Image.Exif()
    exif[0x0112] = turn
    out, options = io.BytesIO(), {"exif": exif}
    match kind:
        case "png" | "webp" | "jpeg":
            image, options = Image.fromarray(rgb), options | {"lossless": True}
        case "cmyk":
            image, kind = Image.fromarray(rgb).convert("CMYK"), "jpeg"
        case "palette":
            image, kind = Image.fromarray(rgb).quantize(9), "png"
            options |= {"transparency": bytes(range(0, 90, 10))}
        case "bit":
            image, kind = Image.fromarray(rgb).convert("1"), "png"
        case "alpha":
            image, kind = Image.fromarray(np.dstack([rgb, grey])), "png"
        case "deep":
            image, kind = Image.fromarray(deep[..., 0]), "png"
        case "deep tiff":
            image, kind = Image.fromarray(deep[..., 0]), "tiff"
        case "integers":
            image, kind = Image.fromarray(deep[..., 0].astype(np.int32) | 0x8000), "tiff"
        case "floats":
            image, kind = Image.fromarray(deep[..., 0].astype(np.float32) / 65535), "tiff"
        case "pgm":
            image, kind = Image.fromarray(deep[..., 0].astype(np.int32)), "ppm"
        case "gif":
            image, options = Image.fromarray(rgb), {
                "save_all": True, "append_images": [Image.new("RGB", (width, height))],
            }  # fmt: skip
    image.save(out, kind, **options)
    if image.mode in ("I;16", "I", "F"):
        values = np.asarray(image)
        eight = np.rint(values * 255) if image.mode == "F" else values // 256
        expected = Image.fromarray(eight.astype(np.uint8)).convert("RGB")
    elif kind in ("jpeg", "gif"):  # not what was put in
        expected = Image.open(io.BytesIO(out.getvalue())).convert("RGB")
    elif kind == "png" and (image.mode == "RGBA" or "transparency" in options):
        expected = Image.fromarray(on(Image.open(io.BytesIO(out.getvalue())), 255))
    else:
        expected = image.convert("RGB")
    if kind not in ("ppm", "gif"):  # these have no EXIF
        expected.info["exif"] = exif.tobytes()
    return out.getvalue(), np.asarray(ImageOps.exif_transpose(expected))


KINDS = ("png", "webp", "jpeg", "cmyk", "palette", "bit", "alpha", "deep", "deep tiff", "integers",
         "floats", "pgm", "gif")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of class folders beside a table of its images, and a cache of the test's own."""
    root = tmp_path_factory.mktemp("ways")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMPROMPT_CACHE", str(root / "cache"))
        yield root


@pytest.mark.filterwarnings("ignore::EncodingWarning:PIL")  # of Pillow's, where it opens a path
@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 20), st.integers(1, 8))
def test_the_same_bytes_give_the_same_pixels_whichever_way_they_come(place, kind, w, h, turn):
    data, expected = encoded(kind, w, h, turn)
    (place / "photos" / "cat").mkdir(parents=True, exist_ok=True)
    path = place / "photos" / "cat" / "0.png"  # the name does not say what it is
    path.write_bytes(data)
    (place / "photos" / "cat" / "1.png").write_bytes(data)
    (place / "table.csv").write_text(
        "path,label\nphotos/cat/0.png,cat\nphotos/cat/1.png,cat\n", encoding="utf-8"
    )
    row = {"bytes": data, "path": None}
    stored = {"bytes": None, "path": str(path)}
    ways = {
        "str": lambda: read_image(str(path), upright=True),
        "path": lambda: read_image(path, upright=True),
        "bytes": lambda: read_image(data, upright=True),
        "view": lambda: read_image(memoryview(data), upright=True),
        "buffer": lambda: read_image(io.BytesIO(data), upright=True),
        "opened": lambda: read_image(Image.open(path), upright=True),
        "opened buffer": lambda: read_image(Image.open(io.BytesIO(data)), upright=True),
        "check": lambda: inspect_image(path, upright=True)[0],
        "loader": lambda: FileLoader(path.parent, upright=True)(path.name),
        "folder": lambda: folder.load(place / "photos").dataset.train.load(0),
        "table": lambda: folder.load(place / "table.csv").dataset.train.load(0),
        "hub": lambda: EncodedLoader("hf:x/y", {"train": lambda _: row})("train/0"),
        "hub file": lambda: EncodedLoader("hf:x/y", {"a": lambda _: stored})("a/0"),
    }
    if kind == "deep tiff" and turn > 4:
        del ways["opened"]  # Pillow itself gives other pixels for this path than for its bytes
    for way, read in ways.items():
        image = read()
        assert image.mode == "RGB", way
        assert np.array_equal(np.asarray(image), expected), (way, kind, turn)
    check_image(path)
    with path.open("rb") as file:
        file.seek(7)
        assert np.array_equal(np.asarray(read_image(file, upright=True)), expected)
    pixels = Image.open(io.BytesIO(data))
    pixels.load()
    before = pixels.mode, pixels.size, dict(pixels.info), pixels.tobytes()
    assert np.array_equal(np.asarray(read_image(pixels, upright=True)), expected), "loaded"
    assert before == (pixels.mode, pixels.size, dict(pixels.info), pixels.tobytes()), "changed"


def test_arrays_are_read_as_the_file_that_holds_them(tmp_path):
    deep = NOISE[:9, :7]
    rgb = (deep >> 8).astype(np.uint8)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    alpha = rgb[..., 0]
    clear = np.dstack([rgb, alpha])
    white = on(Image.fromarray(clear), 255)
    white_grey = on(Image.fromarray(np.ascontiguousarray(clear[..., 2:])), 255)
    for values, expected in (
        (rgb, rgb), (deep, rgb), (clear, white), (rgb[..., 0], grey),
        (clear.astype(np.int32), white), (clear / 255, white),
        (np.dstack([deep, deep[..., 0]]), white), (np.dstack([rgb / 1.0, alpha / 255]), white),
        (rgb[..., :1], grey), (clear[..., 2:], white_grey), (deep[..., 0], grey),
        (rgb[..., 0] > 127, (grey > 127) * np.uint8(255)), (rgb.astype(np.int64), rgb),
        (rgb / 255, rgb), ((rgb / 255).astype(np.float32), rgb), (rgb.astype(np.float32), rgb),
        (deep.astype(np.float64), rgb), (deep.astype(np.int32), rgb), (rgb[::-1], rgb[::-1]),
        (np.where(rgb / 255 > 0.9, 1.04, rgb / 255), np.where(rgb / 255 > 0.9, 255, rgb)),
    ):  # fmt: skip
        assert np.array_equal(np.asarray(read_image(values)), expected), (
            values.dtype,
            values.shape,
        )
    assert np.array_equal(np.asarray(read_image(deep_png(deep))), rgb)
    assert np.array_equal(np.asarray(read_image(deep_png(np.dstack([deep, deep[..., 0]])))), white)
    channels_first = torch.from_numpy(np.moveaxis(clear, -1, 0).copy())
    assert np.array_equal(np.asarray(read_image(channels_first)), white)
    two_first = torch.from_numpy(np.moveaxis(clear[..., 2:], -1, 0).copy())
    assert np.array_equal(np.asarray(read_image(two_first)), white_grey)


# --- transparency ---------------------------------------------------------------------------------

INKS = {"black": (0, 20), "dark": (0, 200), "any": (0, 255), "white": (226, 255)}


def drawn(ink: str, opacity: str, rng: np.random.Generator) -> Image.Image:
    """An RGBA picture of one kind of ink; what lies under its transparent pixels is noise."""
    width, height = rng.integers(2, 24, 2)
    low, high = INKS[ink]
    colours = rng.integers(low, high + 1, (height, width, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (height, width), dtype=np.uint8)
    if opacity == "hard":
        alpha = np.where(alpha > 127, 255, 0).astype(np.uint8)
    colours[alpha == 0] = rng.integers(0, 256, 3)
    return Image.fromarray(np.dstack([colours, alpha]))


def in_mode(image: Image.Image, mode: str) -> tuple[Image.Image, Any]:
    """A picture as files and programs keep transparency; options to save it with."""
    match mode:
        case "LA" | "PA" | "RGBa":
            return image.convert(mode), {}
        case "La":
            return image.convert("LA").convert("La"), {}
        case "palette":  # opacities of a palette's colours, as pngquant writes them
            few = image.quantize(7)
            return few, {}
        case "palette key" | "L key" | "RGB key":
            few = image.convert("RGB").quantize(6) if mode[0] == "p" else image.convert(mode[:-4])
            key = few.getpixel((0, 0))
            few.info["transparency"] = key
            return few, {"transparency": key}
    return image, {}


MODES = ("RGBA", "LA", "La", "RGBa", "PA", "palette", "palette key", "L key", "RGB key")
FILES = {"png": MODES, "gif": ("palette key",), "webp": ("RGBA",), "tiff": ("RGBA", "LA")}


@settings(max_examples=150)
@given(st.sampled_from(MODES), st.sampled_from(sorted(INKS)), st.sampled_from(["hard", "soft"]),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_transparent_pictures_are_laid_on_white_or_on_grey(mode, ink, opacity, seed):
    """The oracle is Pillow's `alpha_composite`; on grey there is no ink to see it against white."""
    image, options = in_mode(drawn(ink, opacity, np.random.default_rng(seed)), mode)
    sources = [image]
    for kind, modes in FILES.items():
        if mode in modes and image.mode not in ("La", "RGBa", "PA"):
            out = io.BytesIO()
            image.save(out, kind, **options, **({"lossless": True} if kind == "webp" else {}))
            sources.append(out.getvalue())
    for source in sources:
        opened = image if source is image else Image.open(io.BytesIO(source))
        plain = opened.convert("LA") if opened.mode == "La" else opened
        shown = np.asarray(read_image(source))
        clear = np.asarray(plain.convert("RGBA"))
        if clear[..., 3].min() == 255:
            assert np.array_equal(shown, np.asarray(plain.convert("RGB")))
            continue
        fits = [ground for ground in (255, 128) if np.array_equal(shown, on(plain, ground))]
        assert fits, (mode, opened.format)
        luminance = np.asarray(plain.convert("RGBA").convert("RGB").convert("L")).astype(int)
        weights = clear[..., 3].astype(float)
        dark = (weights * (luminance < 224)).sum() / max(weights.sum(), 1)
        if dark > 0.2:
            assert 255 in fits
        if dark < 0.01 and weights.max() == 255:
            assert 128 in fits


@pytest.mark.parametrize("ink", [(0, 0, 0), (255, 255, 255), (255, 240, 120), (200, 30, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "palette"])
def test_no_ink_on_nothing_is_one_area(ink, mode):
    """Icons: a shape in one colour, and the same colour under all that is transparent."""
    alpha = np.zeros((32, 32), np.uint8)
    alpha[8:24, 8:24] = 255
    image = Image.fromarray(np.dstack([np.full((32, 32, 3), ink, np.uint8), alpha]))
    shown = np.asarray(read_image(in_mode(image, mode)[0])).astype(int)
    assert np.abs(shown[16, 16] - shown[0, 0]).max() > 60


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa", "L;2", "L;4", "RGB;16"])
def test_an_alpha_channel_that_hides_nothing_changes_no_bit(mode):
    image = picture("L" if mode in ("LA", "La") else "RGB")
    if ";" in mode:
        data = keyed_png(mode, hidden=False)
        shown = read_image(data)
        assert np.array_equal(
            np.asarray(shown), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        )
        return
    opaque = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode))
    opaque = opaque if mode == opaque.mode else opaque.convert(mode)
    expected = opaque.convert("LA") if mode == "La" else opaque
    assert np.array_equal(np.asarray(read_image(opaque)), np.asarray(expected.convert("RGB")))


def keyed_png(kind: str, hidden: bool) -> bytes:
    """Two pixels, black and the lightest, of which the second is the transparent colour, if any."""
    depth, colour = {"L;2": (2, 0), "L;4": (4, 0), "RGB;16": (16, 2), "1": (1, 0)}[kind]
    top = 2**depth - 1
    if colour:
        row = struct.pack(">6H", 0, 0, 0, top, top, top)
        key = struct.pack(">3H", *([top] * 3 if hidden else [7, 300, 9]))
    else:
        row = bytes([top << (8 - 2 * depth)])
        key = struct.pack(">H", top if hidden else top - 1 if depth > 1 else 9)

    def chunk(name: bytes, data: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + end

    head = struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0)
    body = chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


@pytest.mark.parametrize("kind", ["1", "L;2", "L;4", "RGB;16"])
def test_a_colour_key_is_in_the_scale_of_its_file(kind):
    """Pillow scales the pixels of such a PNG and not the key; its white must be seen through, and
    the black pixel decides that it is laid on white."""
    image, notes = inspect_image(keyed_png(kind, hidden=True))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 255]
    assert any("laid on white" in note for note in notes)


def test_wholly_transparent_pictures_are_said_to_be_blank():
    image, notes = inspect_image(Image.new("RGBA", (9, 9), (10, 20, 30, 0)))
    assert (np.asarray(image) == 255).all()
    assert any("nothing of it is visible" in note for note in notes)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.full((4, 4), np.nan, np.float32), "NaN or infinity"),
        (np.where(np.eye(4) > 0, np.inf, 0.5), "NaN or infinity"),
        (np.linspace(-9999, 100, 16, dtype=np.float32).reshape(4, 4), "values from -9999 to 100"),
        (np.linspace(0, 7, 16, dtype=np.float32).reshape(4, 4), "what is white"),
        (np.linspace(0, 1e9, 16, dtype=np.float32).reshape(4, 4), "what is white"),
        (np.linspace(0, 2047, 16).astype(np.int32).reshape(4, 4), "values from 0 to 2047"),
        (np.linspace(-1024, 3071, 16).astype(np.int32).reshape(4, 4), "values from -1024 to 3071"),
    ],
)
def test_an_unknown_scale_is_refused_and_never_read_as_black(tmp_path, values, what):
    path = tmp_path / "a.tif"
    if values.dtype != np.float64:
        Image.fromarray(values).save(path)
        for look in (read_image, check_image, lambda p: read_image(Image.open(p))):
            with pytest.raises(ImageError, match=what):
                look(path)
    with pytest.raises(ImageError, match=rf"images\[3\]: .*{what}"):
        read_image(values, name="images[3]")


def test_a_black_image_is_black(tmp_path):
    for values in (np.zeros((3, 3), np.float32), np.zeros((3, 3), np.int32)):
        Image.fromarray(values).save(tmp_path / "black.tif")
        assert not np.asarray(read_image(tmp_path / "black.tif")).any()


def test_twelve_bits_are_twelve(tmp_path):
    """Pillow holds a TIFF of 12 bits as 16 that are never above 4095."""
    packed = bytes([0xFF, 0xF8, 0x00, 0x00, 0x00, 0x80])  # 0xFFF 0x800 / 0x000 0x080
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 2), (279, 4, 6)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = struct.pack("<2sHI", b"II", 42, 14) + packed + struct.pack("<H", 9) + entries + bytes(4)
    assert np.asarray(read_image(data))[..., 0].tolist() == [[255, 128], [0, 8]]


def test_what_is_no_image_says_what_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    picture().save(path)
    half = path.read_bytes()[:400]
    with path.open(encoding="latin-1") as text:
        for source, what in (
            (b"", "an image of 0 bytes: empty, zero bytes"),
            (io.BytesIO(), "zero bytes"),
            (b"no picture", "an image of 10 bytes: not an image"),
            (half, "an image of 400 bytes: damaged"),
            (io.BytesIO(half), "damaged"),
            (Image.open(io.BytesIO(half)), "a Pillow image of 24 x 16 pixels, mode RGB: damaged"),
            (text, "opened as text"),
            (None, "type NoneType: no image; give a path"),
            (7, "type int: no image; give a path"),
            (np.zeros((3, 4, 5)), r"an array of shape \[3, 4, 5\]: .*channels last"),
            (np.zeros((0, 4, 3)), "no pixels"),
            (np.zeros((4, 4), np.complex64), "complex64"),
            (tmp_path / ("long" * 2000), "cannot be opened"),
            ("nul\0byte", "cannot be opened|missing"),
        ):
            with pytest.raises(ImageError, match=what):
                read_image(source)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="too many pixels to be a photograph"):
            read_image(source)


def test_damaged_exif_turns_nothing_and_is_no_fault_of_the_picture(tmp_path):
    whole = io.BytesIO()
    picture().save(whole, "JPEG", exif=b"Exif\0\0no TIFF header at all")
    (tmp_path / "a.jpg").write_bytes(whole.getvalue())
    check_image(tmp_path / "a.jpg")
    image = read_image(tmp_path / "a.jpg", upright=True)
    assert np.array_equal(np.asarray(image), np.asarray(read_image(tmp_path / "a.jpg")))


def test_a_pillow_image_that_was_turned_by_hand_is_not_turned_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    by_hand = ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg"))
    for image in (Image.open(tmp_path / "a.jpg").convert("RGB"), by_hand):
        assert np.array_equal(np.asarray(read_image(image, upright=True)), np.asarray(by_hand))


def test_reading_in_threads_leaves_the_warning_filters_alone(tmp_path):
    """Filters belong to the process: a thread that restores them undoes what others have set."""
    palette = picture().quantize(8)
    palette.save(tmp_path / "a.png", transparency=bytes(range(8)))
    data = (tmp_path / "a.png").read_bytes()
    before, changed = list(warnings.filters), threading.Event()

    def read(_: int) -> None:
        read_image(data)
        check_image(data)
        if warnings.filters != before:
            changed.set()

    def spy(*_: object, **__: object) -> None:
        changed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "simplefilter", spy)
        patch.setattr(warnings, "filterwarnings", spy)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(40)))
    assert not changed.is_set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(data)  # transparency that is dropped on purpose is nothing to warn of


def test_a_line_of_pixels_takes_no_memory():
    from simprompt.clip.preprocess import Preprocess

    preprocess = Preprocess(224, (0, 0, 0), (1, 1, 1))
    tracemalloc.start()  # NumPy's share; Pillow's own is bounded by the sizes it is asked for
    for size in ((1, 60000), (60000, 1), (1, 1), (2, 1)):
        image = read_image(np.full((*size[::-1], 3), 90, np.uint8))
        assert (np.asarray(preprocess.crop(image)) == 90).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@settings(max_examples=120)
@given(st.sampled_from(KINDS), st.integers(1, 8), st.randoms(use_true_random=False))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_file_is_read_or_refused_in_every_way_alike(kind, turn, rng):
    """Bytes changed, cut off, put in: no way to look at a file sees more than another."""
    data = bytearray(encoded(kind, rng.randint(1, 20), rng.randint(1, 20), turn)[0])
    for _ in range(rng.randint(0, 5)):
        at = rng.randrange(len(data))
        match rng.choice(("change", "change", "cut", "put in")):
            case "change":
                data[at] = rng.randrange(256)
            case "cut":
                del data[at + 1 :]
            case "put in":
                data[at:at] = rng.randbytes(rng.randint(1, 9))
    reads = []
    for look in (check_image, read_image, inspect_image, lambda d: read_image(d, upright=True)):
        try:
            look(bytes(data))
            reads.append(True)
        except ImageError:
            reads.append(False)
    assert len(set(reads)) == 1, reads


def test_damaged_later_frames_are_no_fault_of_the_first(tmp_path):
    frames = [picture(seed=seed) for seed in (3, 4, 5)]
    whole = io.BytesIO()
    frames[0].save(whole, "GIF", save_all=True, append_images=frames[1:])
    cut = whole.getvalue()[: len(whole.getvalue()) * 2 // 3]
    image, notes = inspect_image(cut)
    assert np.array_equal(np.asarray(image), np.asarray(read_image(whole.getvalue())))
    assert any("frames" in note for note in notes)
