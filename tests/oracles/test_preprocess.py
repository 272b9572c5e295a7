"""CLIP's preprocessing: exact in 8 bits; where `transformers` differs, and why."""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from simprompt.clip import preprocess as module
from simprompt.clip.layouts import hugging_face
from simprompt.clip.model import OPENAI_MEAN, OPENAI_STD
from simprompt.clip.preprocess import LONGEST, Preprocess
from simprompt.errors import SimpromptError

SHARED = os.environ.get("SIMPROMPT_SHARED_DATA")


def noise(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = {"RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(rng.integers(0, 256, (height, width, channels), dtype=np.uint8))


def by_formula(image: Image.Image, size: int) -> np.ndarray:
    """OpenAI's `Resize(size, BICUBIC)`, `CenterCrop(size)`, RGB, on Pillow; written out."""
    w, h = image.size
    short, long = min(w, h), max(w, h)
    if short != size:
        new_long = int(size * long / short)
        image = image.resize(
            (size, new_long) if w <= h else (new_long, size), Image.Resampling.BICUBIC
        )
    w, h = image.size
    top, left = int(round((h - size) / 2.0)), int(round((w - size) / 2.0))  # noqa: RUF046
    return np.asarray(image.crop((left, top, left + size, top + size)).convert("RGB"))


@settings(max_examples=60)
@given(st.integers(8, 90), st.integers(8, 90), st.sampled_from([16, 24, 33]), st.integers(0, 9))
def test_eight_bits_are_exact_and_floats_to_a_millionth(width, height, size, seed):
    preprocess = Preprocess(size, OPENAI_MEAN, OPENAI_STD)
    image = noise(width, height, seed, "RGBA" if seed % 3 == 0 else "RGB")
    expected = by_formula(image, size)
    assert np.array_equal(np.asarray(preprocess.crop(image)), expected)
    exact = (expected.astype(np.float64) / 255 - OPENAI_MEAN) / OPENAI_STD
    got = preprocess(image).numpy()
    assert np.abs(got - exact.transpose(2, 0, 1)).max() < 1e-6


def test_normalising_is_the_formula_bit_for_bit():
    """(value / 255 - mean) / std in float32, one operation after the other as PyTorch does them:
    every value of every channel, a batch, and into memory that is there already."""
    preprocess = Preprocess(16, OPENAI_MEAN, OPENAI_STD)
    every = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    batch = np.stack([every, np.asarray(noise(16, 16)), every[:, ::-1]])
    x = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    expected = (x / 255 - mean) / std
    assert torch.equal(preprocess.normalise(batch), expected)
    assert torch.equal(preprocess(Image.fromarray(batch[1])), expected[1])
    place = np.full((3, 3, 16, 16), np.nan, np.float32)
    for pixels, out in zip(batch, place, strict=True):
        preprocess.normalised(pixels, out)
    assert np.array_equal(place, expected.numpy())


def test_other_pictures_than_rgb():
    preprocess = Preprocess(16, OPENAI_MEAN, OPENAI_STD)
    grey = noise(40, 30).convert("L")
    pixels = np.asarray(preprocess.crop(grey))
    assert (pixels[..., 0] == pixels[..., 2]).all()
    palette = noise(40, 30).convert("P")
    # a palette image is scaled by nearest neighbour, so no new colours come up
    colours = {tuple(c) for c in np.asarray(palette.convert("RGB")).reshape(-1, 3)}
    assert {tuple(c) for c in np.asarray(preprocess.crop(palette)).reshape(-1, 3)} <= colours


def test_squashing_instead_of_cropping():
    preprocess = Preprocess(16, OPENAI_MEAN, OPENAI_STD, "bicubic", "squash")
    image = noise(40, 30)
    expected = image.resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(preprocess.crop(image)), np.asarray(expected))


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 400), st.booleans(), st.sampled_from([5, 16]))
def test_the_middle_of_a_very_long_image_is_what_scaling_all_of_it_gives(short, more, wide, size):
    long = LONGEST * short + more
    image = noise(*((long, short) if wide else (short, long)), seed=more)
    # not so strong that Pillow cuts what shoots over between its two passes, whose order it chooses
    image = image.point(lambda value: 96 + value // 4)
    for filter_name in ("bicubic", "bilinear"):
        preprocess = Preprocess(size, OPENAI_MEAN, OPENAI_STD, filter_name)
        middle = np.asarray(preprocess.crop(image)).astype(int)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "LONGEST", long)
            whole = np.asarray(preprocess.crop(image)).astype(int)
        assert np.abs(middle - whole).max() <= 2


def test_a_very_long_image_is_scaled_in_its_middle_alone(monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def spy(image, size, *args, **kwargs):
        sizes.extend((image.size, size))
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", spy)
    for size in ((1, 60000), (60000, 1), (2, 30000)):
        image = Image.new("RGB", size, (10, 90, 200))
        crop = np.asarray(Preprocess(224, OPENAI_MEAN, OPENAI_STD).crop(image))
        assert (crop == (10, 90, 200)).all()
    assert max(w * h for w, h in sizes) <= 224 * 224


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_an_image_that_pillow_would_cut_to_white_is_refused(mode):
    """Whoever has one reads it with `read_image`, as learning and predicting do."""
    preprocess = Preprocess(16, OPENAI_MEAN, OPENAI_STD)
    image = Image.new(mode, (20, 20), 300)
    for look in (preprocess, preprocess.crop, lambda i: preprocess.view(i, random.Random(0))):
        with pytest.raises(SimpromptError, match=f"mode {mode} .*read_image"):
            look(image)


def theirs(size: int):
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )


def test_transformers_differs_in_crop_rounding_and_alpha_alone():
    """Equal to a millionth, but for two choices of `transformers`:

    - an odd margin: it cuts the offset down, OpenAI's pipeline rounds half to even;
    - alpha: it converts to RGB before resizing, which scales colours without weighting them by
      alpha; OpenAI's pipeline resizes RGBA (Pillow weights by alpha) and drops alpha afterwards.
    """
    size = 16
    processor, preprocess = theirs(size), Preprocess(size, OPENAI_MEAN, OPENAI_STD)
    equal = shifted = 0
    for width in range(16, 60, 3):
        for height in range(16, 60, 5):
            image = noise(width, height)
            a = processor(image, return_tensors="np").pixel_values[0]
            b = preprocess(image).numpy()
            margin = int(size * max(width, height) / min(width, height)) - size
            if margin % 4 == 3:  # margin / 2 = odd + 0.5, which rounds up
                shifted += 1
                continue
            equal += 1
            assert np.abs(a - b).max() < 1e-5, (width, height)
    assert equal > 80
    assert shifted > 5
    image = noise(50, 36, mode="RGBA")
    a = processor(image, return_tensors="np").pixel_values[0]
    assert np.abs(a - preprocess(image).numpy()).max() > 0.1
    flat = image.convert("RGB")
    b = processor(flat, return_tensors="np").pixel_values[0]
    assert np.abs(b - preprocess(flat).numpy()).max() < 1e-5


# --- preprocessor_config.json ---------------------------------------------------------------------

SIDE = 16
SIZES = [{"shortest_edge": 16}, {"shortest_edge": 20}, {"shortest_edge": 28}, 16, 24,
         {"height": 16, "width": 16}, {"height": 24, "width": 24}]  # fmt: skip
CROPS = [16, {"height": 16, "width": 16}]
OPTIONAL = {
    "size": st.sampled_from(SIZES), "crop_size": st.sampled_from(CROPS),
    "resample": st.integers(0, 5), "do_center_crop": st.booleans(), "do_resize": st.booleans(),
    "do_normalize": st.booleans(), "do_rescale": st.booleans(), "do_convert_rgb": st.booleans(),
    "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5, 0.003]),
    "image_mean": st.sampled_from([[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]),
    "image_std": st.sampled_from([[0.5, 0.5, 0.5], [0.2, 0.3, 0.4]]),
}  # fmt: skip


def written(config: dict[str, Any], folder: Path) -> Preprocess:
    """What a checkpoint whose images have 16 pixels does with this file beside it."""
    (folder / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    fields = hugging_face._hf_preprocess(folder, SIDE)
    return Preprocess(SIDE, **{"resize_mode": "shortest", "interpolation": "bicubic"} | fields)


@settings(max_examples=80, deadline=None)
@given(st.fixed_dictionaries({}, optional=OPTIONAL), st.integers(16, 60), st.integers(16, 60))
def test_a_preprocessor_config_is_obeyed_or_refused(config, width, height):
    """The oracle is `transformers`: its pixels, or a sentence where these are of another size."""
    transformers = pytest.importorskip("transformers")
    whole = {"size": {"shortest_edge": SIDE}, "crop_size": SIDE} | config
    image = noise(width, height, width)
    expected = transformers.CLIPImageProcessorPil(**whole)(image, return_tensors="np")
    with tempfile.TemporaryDirectory() as folder:
        try:
            preprocess = written(config, Path(folder))
        except SimpromptError as error:
            assert "not supported" in str(error)  # noqa: PT017
            sizes = {
                transformers.CLIPImageProcessorPil(**whole)(
                    noise(*side), return_tensors="np"
                ).pixel_values.shape
                for side in ((16, 16), (40, 30), (30, 44))
            }
            assert sizes != {(1, 3, SIDE, SIDE)} or config.get("do_resize") is False
            return
    pixels = preprocess(image).numpy()
    scaled = int(preprocess.scaled * max(width, height) / min(width, height))
    long = preprocess.scaled if preprocess.squashes else scaled
    if (long - SIDE) % 4 == 3 or (preprocess.scaled - SIDE) % 4 == 3:
        return  # OpenAI's pipeline rounds the crop's offset, `transformers` cuts it down
    scale = max(1.0, float(np.abs(pixels).max()))
    assert np.abs(expected.pixel_values[0] - pixels).max() / scale < 1e-5


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False, "size": {"shortest_edge": 16}}, "without a centre crop"),
        ({"size": {"shortest_edge": 14}}, "its size is"),
        ({"size": {"height": 16, "width": 20}}, "its size is"),
        ({"size": {"shortest_edge": 16, "longest_edge": 40}}, "its size is"),
        ({"size": {"shortest_edge": 20000}}, "its size is"),
        ({"crop_size": {"height": 16, "width": 12}}, "its crop_size is"),
        ({"crop_size": 20}, "its crop_size is"),
        ({"resample": 9}, "resample is 9"),
        ({"resample": "bicubic"}, "resample is 'bicubic'"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_mean": [1, 2]}, "image_mean is"),
        ({"image_std": "x"}, "image_std is"),
        ({"do_flip_channel_order": True}, "a step do_flip_channel_order"),
        ({"do_normalize": "no"}, "do_normalize is 'no'"),
        ({"image_processor_type": "ViTImageProcessor", "size": 16}, "lacks image_mean"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(config, what, tmp_path):
    with pytest.raises(SimpromptError, match=what) as caught:
        written(config, tmp_path)
    assert "preprocessor_config.json" in str(caught.value)


def test_a_long_image_with_a_margin_is_what_scaling_all_of_it_gives():
    for size in ((700, 9), (9, 700)):
        image = noise(*size).point(lambda value: 96 + value // 4)
        preprocess = Preprocess(16, OPENAI_MEAN, OPENAI_STD, "bicubic", "shortest:24")
        middle = np.asarray(preprocess.crop(image)).astype(int)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "LONGEST", 1000)
            whole = np.asarray(preprocess.crop(image)).astype(int)
        assert np.abs(middle - whole).max() <= 2


@pytest.mark.skipif(not SHARED, reason="needs photos of DTD below SIMPROMPT_SHARED_DATA")
def test_on_real_photos(record_property):
    size = 224
    processor, preprocess = theirs(size), Preprocess(size, OPENAI_MEAN, OPENAI_STD)
    photos = sorted((Path(SHARED) / "coop_layout/dtd/images").glob("*/*.jpg"))[::25]
    assert len(photos) > 20
    largest, shifted = 0.0, 0
    for path in photos:
        image = Image.open(path)
        assert np.array_equal(np.asarray(preprocess.crop(image)), by_formula(image, size))
        a = processor(image, return_tensors="np").pixel_values[0]
        short, long = sorted(image.size)
        if (int(size * long / short) - size) % 4 == 3:
            shifted += 1
            continue
        largest = max(largest, float(np.abs(a - preprocess(image).numpy()).max()))
    record_property("largest difference on real photos", float(largest))
    record_property("photos whose crop is one pixel off in transformers", shifted)
    print(f"{len(photos)} photos, {shifted} shifted by a pixel, else {largest:.1e}")
    assert largest < 1e-5
