"""`learn` on many images of your own: reading the tree, decoding and hashing, features.

Makes CLASSES folders of JPEGs (256 x 256) in a temporary folder, with a cache of its own; says for
each step its seconds and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from simprompt.utils.memory import peak_mb, reset_peak

SIZE = 256


def make(root: Path, images: int, classes: int) -> None:
    """Coloured noise of low frequency, which compresses about as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(images):
        place = root / f"class {number % classes:03}"
        place.mkdir(exist_ok=True, parents=True)
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        small.resize((SIZE, SIZE), Image.Resampling.BILINEAR).save(place / f"{number}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--model", default="icons")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[tuple[str, float, float]] = []

    @contextmanager
    def step(name: str) -> Iterator[None]:
        reset_peak()
        started = time.perf_counter()
        yield
        rows.append((name, time.perf_counter() - started, peak_mb()))
        if not given.json:
            print(f"{name:42} {rows[-1][1]:8.1f} s   peak {rows[-1][2]:6.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as place:
        os.environ["SIMPROMPT_CACHE"] = f"{place}/cache"
        root = Path(place, "images")
        make(root, given.images, given.classes)
        from simprompt.clip.hub import load_clip
        from simprompt.data.own_images import folder, trees
        from simprompt.features.cache import image_features

        with step("read the tree"):
            trees.read(root)
        with step("first load: decode and hash every file"):
            data = folder.load(root).dataset
        with step("later load: stamps alone"):
            folder.load(root)
        with step("load the model"):
            clip = load_clip(given.model)
        with step("features of all images"):
            image_features(clip, data.all.train)
            image_features(clip, data.all.test)
    if given.json:
        print(json.dumps([{"step": n, "seconds": s, "peak_mb": m} for n, s, m in rows], indent=2))


if __name__ == "__main__":
    main()
