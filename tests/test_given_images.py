"""What `PromptClassifier` keeps an image's features under stands for its pixels."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt import PromptClassifier
from simprompt.config import Training
from simprompt.data.image_files import ImageError
from simprompt.data.images import read_image
from simprompt.prompt.sklearn_input import GivenImages

pytestmark = pytest.mark.integration

ORIENTATION = 0x0112
MODES = ("1", "L", "P", "PA", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F")


@st.composite
def pictures(draw) -> Image.Image:
    """Pillow images of two by three pixels or four by two: few values, so that many are alike but
    for one thing."""
    mode = draw(st.sampled_from(MODES))
    size = draw(st.sampled_from([(2, 3), (4, 2)]))
    image = Image.new("P" if mode == "PA" else mode, size)
    few = st.sampled_from([0, 1, 128, 255])
    if mode in ("1", "L", "P", "PA", "I;16", "I", "F"):
        value = draw(few) * (257 if mode in ("I;16", "I") else 1)
        image.putpixel((0, 0), value if mode != "F" else float(value))
    else:
        image.putpixel((0, 0), tuple(draw(few) for _ in image.getbands()))
    if mode in ("P", "PA"):
        colours = [draw(few) for _ in range(6)]
        image.putpalette(colours + [7] * (768 - len(colours)))
        if mode == "PA":
            image = image.convert("PA")
    if mode in ("L", "RGB", "P") and draw(st.booleans()):
        image.info["transparency"] = {"L": 0, "RGB": (0, 0, 0), "P": draw(st.integers(0, 1))}[mode]
    if turn := draw(st.sampled_from([0, 1, 3, 6])):
        image.getexif()[ORIENTATION] = turn
    return image


@st.composite
def sources(draw) -> object:
    """Anything that `read_image` takes, small."""
    image = draw(pictures())
    kind = draw(st.sampled_from(["pillow", "array", "tensor", "channels first", "png", "open"]))
    if kind == "pillow":
        return image
    if kind in ("png", "open"):
        file = io.BytesIO()
        exif = image.getexif()
        saved = image if image.mode in ("1", "L", "P", "RGB", "RGBA", "LA") else image.convert("L")
        saved.save(file, "PNG", exif=exif)
        return file if kind == "open" else file.getvalue()
    array = np.asarray(image)
    if kind == "array":
        return array
    values = torch.from_numpy(array.astype(draw(st.sampled_from(["uint8", "float32"]))))
    if kind == "channels first" and values.dim() == 3:
        return values.movedim(-1, 0).contiguous()
    return values


def pixels(source: object, upright: bool) -> tuple[object, bytes] | None:
    try:
        image = read_image(source, upright=upright)
    except ImageError:
        return None
    return image.size, image.tobytes()


@settings(max_examples=300)
@given(st.lists(sources(), min_size=2, max_size=6), st.booleans())
def test_images_of_one_key_have_the_same_pixels_and_an_image_has_one_key(images, upright):
    shown = [pixels(image, upright) for image in images]
    first, second = (GivenImages(images, upright) for _ in range(2))
    for a, b in itertools.combinations(range(len(images)), 2):
        if shown[a] != shown[b]:
            assert first.items[a] != first.items[b]
    for i in range(len(images)):
        if shown[i] is not None:
            assert first.items[i] == second.items[i]
            loaded = first(first.items[i])
            assert (loaded.size, loaded.tobytes()) == shown[i]
        else:
            assert first.items[i] != second.items[i], "no features of it are ever taken"


def file_of(colour: str) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "PNG")
    return file


def test_a_picture_is_one_item_however_its_file_is_given(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file_of("red").getvalue())
    with path.open("rb") as opened:
        opened.seek(7)
        given_in = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), opened,
                    memoryview(path.read_bytes()), io.BytesIO(path.read_bytes())]  # fmt: skip
        assert len(set(GivenImages(given_in, True).items)) == 1
        assert GivenImages([path], True).items != GivenImages([path], False).items


class Once(io.RawIOBase):
    """A stream that cannot be read twice, as a download is."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        content, self._left = self._left, b""
        return content


def test_a_stream_is_read_once(tmp_path):
    images = GivenImages([Once(file_of("red").getvalue()), Once(file_of("blue").getvalue())], True)
    assert [images(item).getpixel((0, 0)) for item in images.items] == [(255, 0, 0), (0, 0, 255)]


def test_a_file_that_changes_while_it_is_learned_from_is_not_kept_under_its_old_key(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(file_of("red").getvalue())
    images = GivenImages([path], True)
    path.write_bytes(file_of("blue").getvalue())
    with pytest.raises(Exception, match="changed while the prompt was learned"):
        images(images.items[0])


@pytest.mark.parametrize("kind", ["open", "pillow", "palette"])
def test_a_classifier_learns_from_open_files_as_from_bytes(tiny_clip, tmp_path, monkeypatch, kind):
    """Each twice, so that what is kept on disk of the first fit is asked for by the second."""
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    colours = ["red", "blue", "white", "black"]
    training = Training(lr=0.1, epochs=3, batch_size=2)
    made = []
    for given_as in ("bytes", kind, kind):
        files = [file_of(colour) for colour in colours]
        images = {
            "bytes": lambda files=files: [file.getvalue() for file in files],
            "open": lambda files=files: files,
            "pillow": lambda files=files: [Image.open(file) for file in files],
            "palette": lambda: [palette(colour) for colour in colours],
        }[given_as]()
        classifier = PromptClassifier(tiny_clip, "coop", False, training=training)
        classifier.fit(images, ["car", "cat", "dog", "tree"])
        made.append(classifier.prompt_.learner.state_dict()["ctx"])
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])


def palette(colour: str) -> Image.Image:
    """One colour, number 0 of its palette."""
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*Image.new("RGB", (1, 1), colour).getpixel((0, 0)), *[0] * 765])
    return image
