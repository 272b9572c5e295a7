"""The feature cache: same numbers as encoding directly, computed once, resumable, keyed."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from simprompt import load_clip
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.preprocess import Preprocess
from simprompt.clip.text import TextConfig
from simprompt.clip.vision import VisionConfig
from simprompt.data.dataset import Dataset
from simprompt.data.split import Origin, Split
from simprompt.errors import SimpromptError
from simprompt.features import cache as F
from simprompt.features import store
from simprompt.utils.progress import listening


class NoTokenizer:
    sot, eot = 0, 1


def tiny_clip(seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    text = TextConfig(10, 8, 16, 1, 2, 8, 0, 1)
    vision = VisionConfig(16, 8, 16, 2, 2, 8)
    return CLIP(CLIPConfig(text, vision), NoTokenizer(), "tiny")  # type: ignore[arg-type]


class Pictures:
    """Item "7" is a noisy picture made from seed 7; keeps what is asked, by any thread."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fail_at: str | None = None

    def __call__(self, item: str) -> Image.Image:
        self.asked.append(item)
        if item == self.fail_at:
            raise OSError("image file is truncated")
        rng = random.Random(item)
        return Image.frombytes("RGB", (20, 24), rng.randbytes(20 * 24 * 3))


def split_of(loader, items, dataset="toy") -> Split:
    origin = Origin(dataset, "1", ("a {}.",)) if dataset else None
    return Split(tuple(items), (0,) * len(items), ("thing",), loader, origin=origin)


def test_features_equal_direct_encoding_and_are_computed_once(tmp_path):
    clip, loader = tiny_clip(), Pictures()
    split = split_of(loader, [str(i) for i in range(7)])
    direct = clip.encode_images([loader(item) for item in split.items])
    loader.asked.clear()
    first = F.image_features(clip, split, batch=3, cache=tmp_path)
    assert first.dtype == torch.float32
    assert torch.allclose(first, direct, atol=1e-6)
    assert len(loader.asked) == 7
    # Another order, a repetition, and one new image: only the new one is read.
    again = F.image_features(clip, split_of(loader, ["3", "0", "3", "9"]), cache=tmp_path)
    assert len(loader.asked) == 8
    assert torch.equal(again[:3], first[[3, 0, 3]])
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_image_has_the_same_bits_whoever_computes_its_features():
    """On any number of threads, in batches of any size, in any company. The embedded CLIP: in the
    tiny one no sum is long enough to have another order."""
    clip = load_clip("icons")
    split = Split(tuple(map(str, range(18))), (0,) * 18, ("x",), noise)

    def features(threads: int, batch: int | None, rows: list[int]) -> torch.Tensor:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            made = F._features(clip, split.take(rows), 0, 0, batch, None)
            assert torch.get_num_threads() == threads
            return made
        finally:
            torch.set_num_threads(before)

    rows = list(range(18))
    expected = features(1, None, rows)
    assert torch.equal(features(1, 5, rows[::-1]), expected.flip(0))
    assert torch.equal(features(3, None, rows), expected)
    assert torch.equal(features(2, None, [17]), expected[[17]])


def noise(item: str) -> Image.Image:
    rng = np.random.default_rng(int(item))
    return Image.fromarray(rng.integers(0, 256, (60, 60, 3), np.uint8))


def test_threads_that_begin_after_an_extraction_have_as_many_as_before():
    clip, counts = tiny_clip(), []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        F._features(clip, split_of(Pictures(), ["1", "2"], ""), 0, 0, None, None)
        other = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert counts == [2]
    finally:
        torch.set_num_threads(before)


def test_features_keep_the_length_the_tower_gave_them(tmp_path):
    clip, loader = tiny_clip(), Pictures()
    split = split_of(loader, [str(i) for i in range(5)])
    direct = clip.encode_images([loader(item) for item in split.items], unnormalized=True)
    assert direct.norm(dim=1).std() > 1e-3
    F.image_features(clip, split, cache=tmp_path)  # kept by a learner that normalises
    loader.asked.clear()
    kept = F.image_features(clip, split, cache=tmp_path, unnormalized=True)
    assert not loader.asked
    assert torch.allclose(kept, direct, atol=1e-6)
    views = F.view_features(clip, split, 2, cache=tmp_path, unnormalized=True)
    assert views.norm(dim=-1).std() > 1e-3
    unit = torch.nn.functional.normalize(views, dim=-1)
    assert torch.equal(F.view_features(clip, split, 2, cache=tmp_path), unit)


def test_key_holds_model_source_and_preprocessing(tmp_path):
    a, b = tiny_clip(0), tiny_clip(1)
    split = split_of(Pictures(), ["1"])
    folders = {
        F.store_folder(a, split, cache=tmp_path),
        F.store_folder(b, split, cache=tmp_path),
        F.store_folder(a, split_of(Pictures(), ["1"], "toy@2"), cache=tmp_path),
        F.store_folder(a, split, views=8, cache=tmp_path),
        F.store_folder(a, split, views=8, seed=1, cache=tmp_path),
        F.store_folder(tiny_clip(0).bfloat16(), split, cache=tmp_path),
    }
    a.preprocess = Preprocess(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    folders.add(F.store_folder(a, split, cache=tmp_path))
    assert len(folders) == 7


def test_preprocessings_do_not_share_a_store(tmp_path):
    clip = tiny_clip()
    p = clip.preprocess
    split = split_of(Pictures(), ["1", "2"])
    ways = {
        "as it is": p,
        "bilinear": replace(p, interpolation="bilinear"),
        "squash": replace(p, resize_mode="squash"),
    }
    found = {}
    for name, way in ways.items():
        clip.preprocess = way
        found[name] = F.image_features(clip, split, cache=tmp_path)
        direct = clip.encode_images([split.load(i) for i in range(len(split))])
        assert torch.allclose(found[name], direct, atol=1e-6)
    assert (found["as it is"] - found["bilinear"]).abs().max() > 1e-4
    assert (found["as it is"] - found["squash"]).abs().max() > 1e-4


# ------------------------------------------------------------------------- damage


def rewrite(path: Path, change, checksum: bool = False) -> None:
    """A shard with other features; with the checksum of these, or the old one."""
    with safe_open(str(path), "pt") as shard:
        features, written = shard.get_tensor("features").clone(), shard.metadata()
    features = change(features)
    if checksum:
        written["checksum"] = store._checksum(features)
    save_file({"features": features}, str(path), metadata=written)


def replaced(path: Path, content: bytes) -> None:
    """Clocks of file systems tick in milliseconds; what changes later has another time."""
    later = path.stat().st_mtime_ns + 10**9
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def flipped_bytes(path: Path) -> None:
    """Of the last number only: the header and all that could be noticed by parsing stay."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x7F
    replaced(path, content)


def flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    replaced(path, content)


def short(path: Path) -> None:
    rewrite(path, lambda f: f[:-2])


def short_with_checksum(path: Path) -> None:
    rewrite(path, lambda f: f[:-2], checksum=True)


def not_finite(path: Path) -> None:
    rewrite(path, lambda f: f.index_fill(0, torch.tensor([1]), float("inf")), checksum=True)


def no_checksum(path: Path) -> None:
    with safe_open(str(path), "pt") as shard:
        features, written = shard.get_tensor("features").clone(), shard.metadata()
    save_file({"features": features}, str(path), metadata={"items": written["items"]})


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = [flipped_bytes, flipped_bit, short, short_with_checksum, not_finite, no_checksum, half]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_shard_is_said_and_made_again(tmp_path, damage):
    clip, loader = tiny_clip(), Pictures()
    first, rest = split_of(loader, ["1", "2", "3"]), split_of(loader, ["4", "5"])
    both = split_of(loader, ["1", "2", "3", "4", "5"])
    F.image_features(clip, first, cache=tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    F.image_features(clip, rest, cache=tmp_path)
    good = F.image_features(clip, both, cache=tmp_path)
    loader.asked.clear()
    damage(shard)
    with pytest.warns(UserWarning, match=f"{shard.name} are damaged.*made again"):
        again = F.image_features(clip, both, cache=tmp_path)
    assert torch.equal(again, good)
    assert sorted(loader.asked) == ["1", "2", "3"], "what is whole is kept"
    loader.asked.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(F.image_features(clip, both, cache=tmp_path), good)
    assert loader.asked == []


def test_a_shard_that_cannot_be_deleted_is_not_believed(tmp_path, monkeypatch):
    clip, loader = tiny_clip(), Pictures()
    split = split_of(loader, ["1", "2", "3"])
    good = F.image_features(clip, split, cache=tmp_path)
    (shard,) = tmp_path.rglob("*.safetensors")
    flipped_bytes(shard)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(F.image_features(clip, split, cache=tmp_path), good)
    assert len(loader.asked) == 6
    with warnings.catch_warnings():  # another shard has them; which is looked at first is chance
        warnings.simplefilter("ignore", UserWarning)
        assert torch.equal(F.image_features(clip, split, cache=tmp_path), good)
    assert len(loader.asked) == 6


def test_a_checksum_is_looked_at_once_a_process(tmp_path, monkeypatch):
    clip = tiny_clip()
    split = split_of(Pictures(), ["1", "2"])
    F.image_features(clip, split, cache=tmp_path)
    counted = []
    real = store._checksum
    monkeypatch.setattr(store, "_checksum", lambda f: counted.append(len(f)) or real(f))
    monkeypatch.setattr(store, "_checked", set())
    for _ in range(3):
        F.image_features(clip, split, cache=tmp_path)
    assert counted == [2]


# ------------------------------------------------------------------------- several at once

FILL = """
import sys
import torch
from simprompt import load_clip
from simprompt.features import cache as F
from tests.test_features import Pictures, split_of, tiny_clip
cache, me = sys.argv[1], int(sys.argv[2])
clip, loader = tiny_clip(), Pictures()
items = [str(i) for i in range(30)]
split = split_of(loader, items if me % 2 else items[::-1])
print("ready", flush=True)
sys.stdin.readline()
features = F.image_features(clip, split, batch=4 + me, cache=cache)
torch.save(features if me % 2 else features.flip(0), f"{cache}/{me}.pt")
print(len(loader.asked), flush=True)
"""


def test_processes_that_fill_one_store_end_with_one_result(tmp_path):
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FILL, str(tmp_path), str(i)],
            encoding="utf-8",
            env=environment,
            **pipe,
        )
        for i in range(2)
    ]
    for p in processes:
        assert p.stdout.readline() == "ready\n"
    for p in processes:
        p.stdin.write("go\n")
        p.stdin.flush()
    said = [p.communicate() for p in processes]
    assert [p.returncode for p in processes] == [0, 0], said
    assert sum(int(out) for out, _ in said) == 30, "each image was computed once"
    assert torch.equal(*(torch.load(tmp_path / f"{i}.pt") for i in range(2)))


def test_an_interrupted_extraction_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(F, "SHARD", 4)
    monkeypatch.setattr(F, "CHUNK", 2)
    clip, loader = tiny_clip(), Pictures()
    split = split_of(loader, [str(i) for i in range(10)])
    loader.fail_at = "9"
    with pytest.raises(SimpromptError, match="'9' of toy@1"):
        F.image_features(clip, split, batch=2, cache=tmp_path)
    loader.fail_at = None
    loader.asked.clear()
    # A killed writer leaves a half-written file behind; a damaged shard is not believed.
    folder = F.store_folder(clip, split, cache=tmp_path)
    (folder / "half.tmp").write_bytes(b"half")
    (folder / "damaged.safetensors").write_bytes(b"\x00" * 20)
    with pytest.warns(UserWarning, match=r"damaged\.safetensors are damaged"):
        whole = F.image_features(clip, split, batch=2, cache=tmp_path)
    assert set(loader.asked) == {"8", "9"}
    anew = F.image_features(clip, split_of(loader, split.items, ""))
    assert torch.allclose(whole, anew, atol=1e-6)


def test_a_changed_file_is_read_again(tmp_path):
    class Stamped(Pictures):
        stamps: dict[str, str] = {}  # noqa: RUF012

        def stamp(self, item: str) -> str:
            return self.stamps.get(item, "old")

    loader = Stamped()
    split = split_of(loader, ["1", "2"])
    F.image_features(tiny_clip(), split, cache=tmp_path)
    loader.stamps["2"] = "new"
    F.image_features(tiny_clip(), split, cache=tmp_path)
    assert sorted(loader.asked) == ["1", "2", "2"]


def test_views_are_normalised_reproducible_and_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(F, "CHUNK", 1)
    clip = tiny_clip()
    split = split_of(Pictures(), ["1", "2", "3"])
    views = F.view_features(clip, split, 4, batch=8, cache=tmp_path)
    assert views.shape == (3, 4, 8)
    assert torch.allclose(views.norm(dim=-1), torch.ones(3, 4), atol=1e-6)
    turned = split_of(Pictures(), ["3", "1"], dataset="")
    assert torch.allclose(F.view_features(clip, turned, 4), views[[2, 0]], atol=1e-6)
    assert (views[:, 0] - views[:, 1]).abs().max() > 1e-3
    told: list[tuple[str, int, int]] = []
    with listening(lambda *said: told.append(said)):
        F.view_features(clip, turned, 2, batch=2)
        F.view_features(clip, split, 4, batch=8, cache=tmp_path)  # kept: there is nothing to tell
    assert told == [("image views of images", done, 2) for done in range(3)]


def test_features_that_are_no_numbers_are_neither_kept_nor_given(tmp_path, monkeypatch):
    """The tower overflows at one image alone; it is named, and the cache has no trace of it."""

    class Dazzling(Pictures):
        def __call__(self, item: str) -> Image.Image:
            return Image.new("RGB", (16, 16), (255,) * 3) if item == "4" else super().__call__(item)

    def overflow(module, inputs, output):
        return torch.where(inputs[0].amin((1, 2, 3))[:, None] > 1.9, torch.inf, output)

    clip, split = tiny_clip(), split_of(Dazzling(), "12345")
    clip.visual.register_forward_hook(overflow)
    monkeypatch.setattr(F, "packed", lambda tower: tower)  # which copies the weights, not the hook
    what = "features of the image '4' hold NaN or infinity, as the image tower of tiny"
    for make in (F.image_features, F.view_features):
        with pytest.raises(SimpromptError, match=what):
            make(clip, split, batch=2, cache=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_random_crops_lie_inside_and_cover_what_they_should():
    from simprompt.clip.preprocess import _random_crop

    rng = random.Random(0)
    for width, height in ((64, 64), (300, 20), (20, 300), (1, 1), (333, 250)):
        for _ in range(200):
            left, top, wide, high = _random_crop(width, height, rng)
            assert left >= 0
            assert top >= 0
            assert left + wide <= width
            assert top + high <= height
            assert wide >= 1
            assert high >= 1
    areas = [w * h / 1e6 for _, _, w, h in (_random_crop(1000, 1000, rng) for _ in range(2000))]
    assert 0.079 < min(areas) < 0.09
    assert max(areas) > 0.9
    assert 0.45 < sum(areas) / len(areas) < 0.57  # uniform in 0.08 .. 1, the widest rejected


def test_training_sees_what_views_says(tiny_clip, tmp_path, monkeypatch):
    from simprompt.config import Training
    from simprompt.prompt.learn import learn
    from simprompt.training.views import training_views

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    loader = Pictures()
    shots = Split(tuple("123456"), (0, 1) * 3, ("cat", "dog"), loader)
    short = {"epochs": 3, "batch_size": 4}
    prompts = {}
    for views in (None, 4, "random"):
        settings = Training(views=views, **short)
        prompts[views] = learn(tiny_clip, shots, training=settings)
        assert prompts[views].card["training"]["views"] == views
    learner = prompts[None].learner
    shape = {
        views: tuple(training_views(learner, shots, Training(views=views, **short), 1).shape)
        for views in prompts
    }
    assert shape == {None: (6, 1, 24), 4: (6, 4, 24), "random": (6, 3, 24)}
    contexts = [p.learner.ctx for p in prompts.values()]
    assert (contexts[0] - contexts[1]).abs().max() > 1e-7
    assert (contexts[1] - contexts[2]).abs().max() > 1e-7
    again = learn(tiny_clip, shots, training=Training(views="random", **short))
    assert torch.equal(again.learner.ctx, contexts[2])


def test_a_natural_learner_is_given_natural_features(tiny_clip, tmp_path, monkeypatch):
    from simprompt.config import Training
    from simprompt.prompt.learn import learn
    from simprompt.training.views import training_views

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    loader = Pictures()
    shots = Split(tuple("123456"), (0, 1) * 3, ("cat", "dog"), loader)
    short = Training(epochs=2, batch_size=4)
    prompt = learn(tiny_clip, shots, "dept", options={"host_options": {}}, training=short)
    pictures = [loader(item) for item in shots.items]
    unnormalized = tiny_clip.encode_images(pictures, unnormalized=True)
    for views in (None, 2, "random"):
        wanted = Training(views=views, epochs=2, batch_size=4)
        seen = training_views(prompt.learner, shots, wanted, 1)
        assert (seen.norm(dim=-1) - 1).abs().max() > 1e-2
    assert torch.allclose(
        training_views(prompt.learner, shots, short, 1)[:, 0], unnormalized, atol=1e-5
    )
    rows = torch.tensor([one.probabilities for one in prompt.predict(pictures, ["cat", "dog"])])
    assert torch.allclose(rows, prompt.probabilities(shots), atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--batch-size", "0"], r"--batch-size.*greater than or equal to 1"),
        (["--views", "-1"], r"--views.*greater than or equal to 0"),
        (["--seeds", "1,two"], r"--seeds takes whole numbers.*'1,two'"),
    ],
)
def test_the_command_says_what_is_wrong_with_an_option(wrong, said):
    from shell import in_process  # the processes above have no such module

    done = in_process("encode", "icons/places", *wrong)
    assert done.returncode == 2
    assert re.search(said, " ".join(done.stderr.replace("│", " ").split()))


@pytest.fixture
def toy(monkeypatch) -> None:
    """`simprompt encode toy` finds three pictures."""
    from simprompt.clip import hub
    from simprompt.data import catalogue

    split = replace(split_of(Pictures(), "123"), origin=None)
    data = Dataset("toy", split.classnames, ("a {}.",), split, None, split.take([0]), "1")
    monkeypatch.setattr(hub, "load_clip", lambda *_, **__: tiny_clip())
    monkeypatch.setattr(catalogue, "load", lambda *_, **__: data)


def test_the_command_writes_lines_into_a_log(toy, tmp_path, monkeypatch):
    """Where stderr is no terminal, and nothing for kept ones."""
    from simprompt.cli.main import app

    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path))
    monkeypatch.setattr("simprompt.utils.progress.ProgressLog.EVERY", 0.0)
    first, again = (CliRunner().invoke(app, ["encode", "toy"]) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    assert "image features of toy: 3 of 3 " in first.stderr
    assert again.stderr == ""
    assert f"in {tmp_path}" in first.stdout


def test_the_command_does_not_name_a_cache_that_keeps_nothing(toy, tmp_path, monkeypatch):
    from simprompt.cli.main import app

    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("SIMPROMPT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="The cache cannot be written"):
        said = CliRunner().invoke(app, ["encode", "toy"])
    assert said.exit_code == 0
    assert said.stdout.count("not kept") == 2
    assert str(tmp_path) not in said.stdout
