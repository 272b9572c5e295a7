"""Images a second and peak memory: live image towers, features, predict, and what reads images.

The reference of each case is the plain way: all images decoded one after the other and stacked to
one tensor before the tower sees the first (live towers, predict); a batch decoded while the one
before is encoded, and no image more (features); one thread, or as many processes (reading); the
formula step by step in PyTorch (normalise). The numbers that come out are compared, and their
largest difference is printed.

    python benchmarks/images.py [--images FOLDER] [--count 1000] [--photos 100]

The tower is a small ViT of 224 pixels, so that reading decides; `--tower b16` takes ViT-B/16's.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from common import TEXT_B16, VISION_B16, Names, Row, arguments, compare, device, emit, prepare
from PIL import Image

from simprompt import methods
from simprompt.clip.model import CLIP, CLIPConfig
from simprompt.clip.packed import packed
from simprompt.clip.preprocess import Preprocess
from simprompt.clip.text import TextConfig
from simprompt.clip.vision import VisionConfig
from simprompt.config import Training
from simprompt.data.images import FileLoader, read_image
from simprompt.data.split import Split
from simprompt.features.cache import image_features
from simprompt.prompt.prompt import Prompt
from simprompt.training.loop import train
from simprompt.training.views import training_views
from simprompt.utils.prefetch import read_ahead, threads

CLASSES = tuple(Names.make(10))
SMALL_TEXT = TextConfig(49408, 77, 64, 2, 4, 32, Names.sot, Names.eot)
SMALL_VISION = VisionConfig(224, 32, 64, 2, 4, 32)
BATCH = 64

Numbers = Callable[[], torch.Tensor]


def clip_of(tower: str) -> CLIP:
    """A CLIP with random weights."""
    vision = {"small": SMALL_VISION, "b16": VISION_B16}[tower]
    torch.manual_seed(0)
    config = CLIPConfig(TEXT_B16 if tower == "b16" else SMALL_TEXT, vision)
    return CLIP(config, Names(), tower).to(device())  # type: ignore[arg-type]


def jpegs(folder: Path, count: int, width: int, height: int, different: int) -> Split:
    """Noise of low frequency, which compresses about as photographs do; `different` of `count`
    files differ, and every one is decoded."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    files = []
    for i in range(min(different, count)):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{i}.jpg", quality=90)
        files.append((folder / f"{i}.jpg").read_bytes())
    for i in range(different, count):
        (folder / f"{i}.jpg").write_bytes(files[i % different])
    items = tuple(f"{i}.jpg" for i in range(count))
    return split_of(folder, items)


def split_of(root: Path, items: tuple[str, ...]) -> Split:
    labels = tuple(i % len(CLASSES) for i in range(len(items)))
    return Split(items, labels, CLASSES, FileLoader(root, upright=True))


def learner_of(clip: CLIP) -> methods.base.PromptLearner:
    kind = methods.find("maple")
    return kind(clip, CLASSES, "a photo of a {}.", kind.Config(), 1)


# ---- what is compared


def stacked(clip: CLIP, split: Split) -> torch.Tensor:
    """Pixels [N, 3, S, S] of all images."""
    return torch.stack([clip.preprocess(split.load(row)) for row in range(len(split))])


def tested(clip: CLIP, split: Split) -> tuple[Numbers, Numbers]:
    """Test images of MaPLe."""
    prompt = Prompt(learner_of(clip), {})
    learner = prompt.learner
    return (
        lambda: prompt.probabilities(split),
        lambda: learner.predict(stacked(clip, split).to(clip.device), CLASSES),
    )


def trained(clip: CLIP, shots: Split) -> tuple[Numbers, Numbers]:
    """MaPLe, two epochs."""
    settings = Training(epochs=2, batch_size=4, warmup_lr=0.01)
    labels = torch.tensor(shots.labels)

    def made(all_at_once: bool) -> torch.Tensor:
        learner = learner_of(clip)
        images = (
            stacked(clip, shots) if all_at_once else training_views(learner, shots, settings, 1)
        )
        train(learner, images, labels, settings, 1)
        return learner.ctx.detach().clone()

    return lambda: made(False), lambda: made(True)


def encoded(clip: CLIP, split: Split) -> tuple[Numbers, Numbers]:
    """Features; the cache is left out, as `split` says no source."""
    return lambda: image_features(clip, split, batch=BATCH), lambda: batch_by_batch(clip, split)


def batch_by_batch(clip: CLIP, split: Split) -> torch.Tensor:
    """Features, a batch being read in threads while the one before is encoded."""
    tower, parts = packed(clip.visual), []
    with ThreadPoolExecutor(threads()) as pool:

        def submitted(start: int) -> list:
            rows = range(start, min(start + BATCH, len(split)))
            return [pool.submit(lambda r: by_formula_of(clip, split.load(r)), r) for r in rows]

        waiting = submitted(0)
        for start in range(0, len(split), BATCH):
            loaded = [future.result() for future in waiting]
            waiting = submitted(start + BATCH)
            with torch.no_grad():
                parts.append(tower(torch.stack(loaded).to(clip.device)).float().cpu())
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1)


def predicted(clip: CLIP, split: Split) -> tuple[Numbers, Numbers]:
    """Photos by `Prompt.predict`, and by reading them all first."""
    prompt = Prompt(learner_of(clip), {})
    paths = [split.loader.path(item) for item in split.items]

    def theirs() -> torch.Tensor:
        pictures = [read_image(path, upright=True) for path in paths]
        pixels = torch.stack([clip.preprocess(picture) for picture in pictures])
        return prompt.learner.predict(pixels.to(clip.device), CLASSES)

    return (
        lambda: torch.tensor([one.probabilities for one in prompt.predict(paths, CLASSES)]),
        theirs,
    )


def by_formula(preprocess: Preprocess, crop: np.ndarray) -> torch.Tensor:
    """(value / 255 - mean) / std of 8 bits [S, S, 3], as [3, S, S]."""
    x = torch.from_numpy(np.array(crop)).movedim(-1, -3).float().div_(255)
    mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
    return x.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def by_formula_of(clip: CLIP, image: Image.Image) -> torch.Tensor:
    return by_formula(clip.preprocess, np.asarray(clip.preprocess.crop(image)))


def normalised(clip: CLIP, split: Split) -> tuple[Numbers, Numbers]:
    """From 8-bit crops to pixels, `len(split)` times."""
    crop = np.asarray(clip.preprocess.crop(split.load(0)))

    def repeated(one: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
        for _ in range(len(split)):
            pixels = one(crop)
        return pixels

    return (
        lambda: repeated(clip.preprocess.normalise),
        lambda: repeated(partial(by_formula, clip.preprocess)),
    )


def read_and_cut(loader: FileLoader, preprocess: Preprocess, item: str) -> np.ndarray:
    """An image's 8-bit crop [S, S, 3]."""
    return np.asarray(preprocess.crop(loader(item)))


def read_by_threads(clip: CLIP, split: Split) -> tuple[Numbers, Numbers]:
    """Read and cut: threads, and one after the other."""
    one = partial(read_and_cut, split.loader, clip.preprocess)
    return (
        lambda: total(read_ahead(one, split.items, BATCH)),
        lambda: total(map(one, split.items)),
    )


def read_by_processes(
    clip: CLIP, split: Split, pool: ProcessPoolExecutor
) -> tuple[Numbers, Numbers]:
    """Read and cut: threads, and as many processes that are there already."""
    one = partial(read_and_cut, split.loader, clip.preprocess)
    list(pool.map(one, split.items[:BATCH]))

    def in_processes() -> torch.Tensor:
        waiting, items = [], iter(split.items)
        waiting = [pool.submit(one, item) for item in itertools.islice(items, BATCH)]
        crops = 0
        while waiting:
            crops += int(waiting.pop(0).result().sum(dtype=np.int64))
            waiting.extend(pool.submit(one, item) for item in itertools.islice(items, 1))
        return torch.tensor(crops)

    return lambda: total(read_ahead(one, split.items, BATCH)), in_processes


def total(crops: Iterator[np.ndarray]) -> torch.Tensor:
    return torch.tensor(sum(int(crop.sum(dtype=np.int64)) for crop in crops))


# ---- rows


def rows(options: argparse.Namespace) -> Iterator[Row]:
    clip = clip_of("small" if options.tiny else options.tower)
    count, photos, shots = (8, 2, 8) if options.tiny else (options.count, options.photos, 160)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if options.images:
            found = sorted(p.relative_to(options.images) for p in options.images.rglob("*.jpg"))
            small = split_of(options.images, tuple(map(str, found[:count])))
        else:
            small = jpegs(place / "small", count, 256, 256, 200)
        large = jpegs(place / "large", photos, 2048, 1536, 8)
        cases = {
            f"test maple, {len(small)} images": (tested, small),
            f"train maple, {min(shots, len(small))} images": (
                trained,
                small.take(range(min(shots, len(small)))),
            ),
            f"features, {len(small)} images": (encoded, small),
            f"predict, {photos} photos of 3 MP": (predicted, large),
            f"normalise, {len(small)} images": (normalised, small),
            f"read {len(small)} images, threads": (read_by_threads, small),
            f"read {photos} photos, threads": (read_by_threads, large),
        }
        with ProcessPoolExecutor(threads(), get_context("spawn")) as pool:
            processes = partial(read_by_processes, pool=pool)
            cases[f"read {len(small)} images, processes"] = (processes, small)
            cases[f"read {photos} photos, processes"] = (processes, large)
            for case, (make, split) in cases.items():
                if (options.case or "") in case:
                    yield row(case, *make(clip, split), len(split), options)


def row(case: str, mine: Numbers, theirs: Numbers, n: int, options: argparse.Namespace) -> Row:
    made: dict[str, torch.Tensor] = {}

    def kept(name: str, call: Numbers) -> None:
        made[name] = call()

    calls = {"ours": partial(kept, "ours", mine), "reference": partial(kept, "reference", theirs)}
    timings, peaks = compare(calls, options.repeats)
    return Row(
        case,
        timings["ours"],
        timings["reference"],
        ours_peak_mb=peaks["ours"],
        reference_peak_mb=peaks["reference"],
        more={
            "ours_a_second": n / timings["ours"].median,
            "reference_a_second": n / timings["reference"].median,
            "largest_difference": float((made["ours"] - made["reference"]).abs().max()),
            "threads": threads(),
        },
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=Path, help="a folder of .jpg files")
    parser.add_argument("--count", type=int, default=1000, help="small images")
    parser.add_argument("--photos", type=int, default=60, help="photos of 3 megapixels")
    parser.add_argument("--tower", choices=["small", "b16"], default="small")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "Images")
