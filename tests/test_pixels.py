"""Pixels that are made when they are asked for: the same numbers as one tensor of them all."""

from __future__ import annotations

import gc
import random
import threading
import weakref

import pytest
import torch
from PIL import Image

from simprompt.config import Training
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.features import pixels as pixels_module
from simprompt.features.cache import images_of
from simprompt.features.pixels import Pixels, in_order, picked, view_rng
from simprompt.prompt.learn import learn, prepare
from simprompt.prompt.prompt import Prompt
from simprompt.training.loop import train
from simprompt.training.views import training_views
from simprompt.utils.progress import listening

LIVE = ("vpt", "maple", "ivlp", "promptsrc", "vpt+text")
SHORT = {"epochs": 3, "batch_size": 4, "lr": 0.01, "warmup_lr": 0.01}


class Pictures:
    """Item "7" is a picture of noise from seed 7; says how many are being read, and were read."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = ""

    def __call__(self, item: str) -> Image.Image:
        self.asked.append(item)
        if item == self.broken:
            raise OSError("image file is truncated")
        rng = random.Random(item)
        return Image.frombytes("RGB", (20, 24), rng.randbytes(20 * 24 * 3))


def split_of(loader: Pictures, n: int) -> Split:
    return Split(tuple(map(str, range(n))), tuple(i % 2 for i in range(n)), ("cat", "dog"), loader)


def naive(clip, split: Split, views: int | None, seed: int = 0) -> torch.Tensor:
    """All views of all images as one tensor [N, M, 3, S, S]."""
    see = clip.preprocess
    rows = []
    for row, item in enumerate(split.items):
        image = split.load(row)
        if views is None:
            rows.append(torch.stack([see(image)]))
        else:
            rows.append(
                torch.stack(
                    [see.view(image, random.Random(f"{seed}/{item}/{m}")) for m in range(views)]
                )
            )
    return torch.stack(rows)


@pytest.mark.parametrize("views", [None, 1, 3])
@pytest.mark.parametrize("keep", [False, True])
def test_what_is_picked_is_what_a_tensor_of_all_views_has_there(tiny_clip, views, keep):
    split = split_of(Pictures(), 9)
    whole = naive(tiny_clip, split, views, seed=4)
    lazy = Pixels(tiny_clip.preprocess, split, views, seed=4, keep=keep)
    assert lazy.shape == whole.shape
    assert len(lazy) == len(whole)
    rng = torch.Generator().manual_seed(0)
    sizes = (4, 1, 9, 0, 3)
    picks = [
        (torch.randperm(9, generator=rng)[:n], torch.randint(views or 1, (n,), generator=rng))
        for n in sizes
        if n
    ]
    for _ in range(2):
        for one, (rows, which) in zip(lazy.picked(picks), picks, strict=True):
            assert torch.equal(one, whole[rows, which])
    for mine, theirs in zip(picked(lazy, picks), picked(whole, picks), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(torch.cat([*in_order(lazy)]), torch.cat([*in_order(whole)]))


def test_a_photo_is_decoded_once_for_all_its_views(tiny_clip):
    """Where its views come one after the other, be it in several batches."""
    loader = Pictures()
    lazy = Pixels(tiny_clip.preprocess, split_of(loader, 5), 7)
    parts = [*lazy.in_order(most=3)]
    assert sorted(loader.asked) == list("01234")
    assert {len(part) for part in parts} <= {2, 3}
    assert torch.equal(torch.cat(parts), naive(tiny_clip, lazy.split, 7).flatten(0, 1))


@pytest.mark.parametrize("method", LIVE)
@pytest.mark.parametrize("views", [None, 2, "random"])
def test_a_live_tower_learns_the_bits_that_a_tensor_of_all_views_gives(tiny_clip, method, views):
    split, settings = split_of(Pictures(), 10), Training(views=views, **SHORT)
    options = {"templates": ["a photo of a {}."]} if method == "promptsrc" else None
    streamed = learn(
        tiny_clip, split, method, training=settings, options=options, seed=5, progress=False
    )
    plain = prepare(tiny_clip, split, method, training=settings, options=options, seed=5)
    seed, m = (5, SHORT["epochs"]) if views == "random" else (0, views)
    whole = naive(tiny_clip, split, m, seed)
    train(plain.run.learner, whole, torch.tensor(split.labels), settings, 5)
    state = plain.run.learner.state_dict()
    for name, value in streamed.learner.state_dict().items():
        assert torch.equal(value, state[name]), name
    started = prepare(tiny_clip, split, method, training=settings, options=options, seed=5)
    before = started.run.learner.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in state.items())


def test_a_fresh_view_each_epoch_is_what_live_says(tiny_clip):
    """Epoch e of a live tower sees view e of each image, drawn with the run's seed."""
    split = split_of(Pictures(), 4)
    learner = prepare(tiny_clip, split, "vpt", training=Training(**SHORT)).run.learner
    views = training_views(learner, split, Training(views="random", **SHORT), 7)
    assert views.shape[:2] == (4, 3)
    rows = torch.arange(4)
    seen = [next(picked(views, [(rows, torch.full((4,), epoch))])) for epoch in range(3)]
    for epoch, batch in enumerate(seen):
        for row, item in enumerate(split.items):
            expected = tiny_clip.preprocess.view(split.load(row), view_rng(7, item, epoch))
            assert torch.equal(batch[row], expected)
    assert not torch.equal(seen[0], seen[1])


def test_probabilities_are_those_of_one_tensor_of_all_images(tiny_clip, monkeypatch):
    monkeypatch.setattr(pixels_module, "MOST", 4)
    split = split_of(Pictures(), 13)
    prompt = learn(tiny_clip, split, "maple", training=Training(**SHORT), progress=False)
    told = []
    with listening(lambda *one: told.append(one)):
        made = prompt.probabilities(split)
    whole = naive(tiny_clip, split, None)[:, 0]
    assert torch.allclose(made, prompt.learner.predict(whole, split.classnames), atol=1e-6)
    assert told == [("images of images", done, 13) for done in (0, 4, 7, 10, 13)]
    parts = [len(part) for part in images_of(prompt.learner, split)]
    assert parts == [4, 3, 3, 3]  # never a single image
    assert prompt.probabilities(split.take([])).shape == (0, 2)


def test_an_image_that_cannot_be_read_is_named_where_it_is_needed(tiny_clip):
    loader = Pictures()
    split = split_of(loader, 8)
    prompt = learn(tiny_clip, split, "vpt", training=Training(**SHORT), progress=False)
    loader.broken, before = "6", set(threading.enumerate())
    with pytest.raises(SimpromptError, match=r"image '6' of this split .*truncated"):
        prompt.probabilities(split)
    with pytest.raises(SimpromptError, match=r"image '6' of this split .*truncated"):
        learn(tiny_clip, split, "vpt", training=Training(**SHORT), progress=False)
    assert set(threading.enumerate()) == before


def test_training_images_are_decoded_once_if_their_views_fit(tiny_clip, monkeypatch):
    """Once while they fit into `KEPT`, else at each epoch; never kept for a fresh view each."""

    def decoded(views=None) -> int:
        loader = Pictures()
        settings = Training(views=views, **SHORT)
        learn(tiny_clip, split_of(loader, 8), "vpt", training=settings, progress=False)
        return len(loader.asked)

    assert decoded() == 8
    assert decoded("random") == 3 * 8
    monkeypatch.setattr(pixels_module, "KEPT", 8 * 3 * 16 * 16 - 1)
    assert decoded() == 3 * 8


def test_few_images_are_read_before_they_are_needed(tiny_clip):
    """Of 1,000 test images those of a batch, and a few for each thread, are read at the start."""
    loader = Pictures()
    batches = iter(Pixels(tiny_clip.preprocess, split_of(loader, 1000)).in_order())
    first = next(batches)
    del batches
    assert len(first) <= pixels_module.MOST
    assert len(loader.asked) <= 2 * len(first) + 2 * pixels_module.threads()


class Photos(Pictures):
    """Counts how many of the photos that it has made are in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, item: str) -> Image.Image:
        photo = super().__call__(item)
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(photo, self.gone)
        return photo

    def gone(self) -> None:
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("method", ["maple", "coop", "promptsrc"])
def test_photos_are_let_go_as_soon_as_they_are_pixels(tiny_clip, method):
    """A photo for each thread, whatever is asked of 300 of them."""
    photos = Photos()
    split = split_of(photos, 300)
    prompt = learn(tiny_clip, split.take(range(40)), method, training=Training(**SHORT))
    prompt.probabilities(split)
    gc.collect()
    assert len(photos.asked) >= 300
    assert photos.most <= pixels_module.threads() + 2


def test_predict_takes_photos_of_a_generator_as_it_needs_them(tiny_clip):
    photos = Photos()
    prompt = learn(tiny_clip, split_of(Pictures(), 8), "maple", training=Training(**SHORT))
    made = prompt.stream((photos(str(i)) for i in range(300)), batch=8)
    for number, _ in enumerate(made):
        assert len(photos.asked) <= number + 2 * 8 + 1
    assert len(photos.asked) == 300
    assert photos.most <= 2 * 8 + 1
    rows = [one.probabilities for one in prompt.predict(photos(str(i)) for i in range(20))]
    whole = naive(tiny_clip, split_of(Pictures(), 20), None)[:, 0]
    expected = prompt.learner.predict(whole, prompt.classes)
    assert torch.allclose(torch.tensor(rows), expected, atol=1e-6)


def test_a_prompt_of_a_live_tower_is_kept_with_the_views_it_saw(tiny_clip):
    prompt = learn(
        tiny_clip, split_of(Pictures(), 8), "maple", training=Training(views="random", **SHORT),
        progress=False,
    )  # fmt: skip
    assert isinstance(prompt, Prompt)
    assert prompt.card["training"]["views"] == "random"
