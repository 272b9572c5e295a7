"""Every odd file is named with what is wrong with it, or how it was read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from simprompt.data.check import check_folder
from simprompt.data.images import FileLoader, ImageError, check_image, inspect_image, read_image


def picture(mode: str = "RGB", size=(24, 16), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)


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
    picture("RGBA", seed=6).save(folder / "rgba.png")
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
    "rgba.png": ("note", "alpha channel"),
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


def test_the_command_prints_them_and_exits_with_1(zoo):
    from simprompt.commands.data import app

    result = CliRunner().invoke(app, ["check", str(zoo)])
    assert result.exit_code == 1
    for item, (_, what) in EXPECTED.items():
        assert any(item in line and what in line for line in result.output.splitlines()), item
    for item in EXPECTED:
        if EXPECTED[item][0] != "note":
            path = zoo / item
            path.rmdir() if path.is_dir() else path.unlink()
    assert CliRunner().invoke(app, ["check", str(zoo)]).exit_code == 0


def test_unusual_files_are_read_as_they_look(zoo):
    deep, notes = inspect_image(zoo / "deep.png")
    assert deep.mode == "RGB"
    assert np.array_equal(np.asarray(deep)[..., 0].ravel(), (np.arange(384) * 170) >> 8)
    assert notes == ["16 bits or more a channel (mode I;16); scaled to 8"]
    below = np.asarray(Image.open(zoo / "rgba.png"))[..., :3]
    assert np.array_equal(np.asarray(read_image(zoo / "rgba.png")), below)
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
