"""Peak memory and images a second of whole processes: a run with a live image tower, its test
images alone, features, and predict on photos; of this version and of others.

    python benchmarks/image_memory.py [--source src OTHER/src]

Makes small JPEGs of noise, photos of 3 megapixels, and a random CLIP of 224 pixels. Each case is a
process of its own with few and with many images; the difference of the two peaks is what the
images cost. The rate of `run` counts the start, all others only the case itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from images import SMALL_VISION, jpegs

HOST = Path(__file__).parents[1] / "src"

RUN = """
import json, sys, time
from simprompt.utils.memory import peak_mb
from simprompt.cli.main import app
started = time.perf_counter()
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([peak_mb(), time.perf_counter() - started]))
"""

CASE = """
import json, sys, time
from simprompt import learn, load_clip
from simprompt.data.dataset import Split
from simprompt.data.images import FileLoader
from simprompt.features.cache import image_features
from simprompt.utils.memory import peak_mb
from pathlib import Path
case, model, place, method, count = sys.argv[1:]
n, loader = int(count), FileLoader(Path(place))
clip = load_clip(model)
shots = Split(("0.jpg", "1.jpg"), (0, 1), ("cat", "dog"), loader)
prompt = learn(clip, shots, method, training={"epochs": 1, "batch_size": 1})
items = tuple(f"{i}.jpg" for i in range(n))
started = time.perf_counter()
if case == "predict":
    made = prompt.predict([loader.root / item for item in items], ["cat", "dog"])
elif case == "test":
    made = prompt.probabilities(Split(items, (0,) * n, ("cat", "dog"), loader))
else:
    made = image_features(clip, Split(items, (0,) * n, ("cat", "dog"), loader))
assert len(made) == n
print(json.dumps([peak_mb(), time.perf_counter() - started]))
"""


def checkpoint(folder: Path) -> None:
    """A random CLIP of 224 pixels that any version reads, with the icon CLIP's tokenizer."""
    import torch

    from simprompt.clip.hub import load_clip
    from simprompt.clip.layouts.open_clip import save_open_clip
    from simprompt.clip.model import CLIP, CLIPConfig
    from simprompt.clip.text import TextConfig

    tokenizer = load_clip("icons").tokenizer
    torch.manual_seed(0)
    text = TextConfig(
        tokenizer.fast.get_vocab_size(), 77, 64, 2, 4, 32, tokenizer.sot, tokenizer.eot
    )
    folder.mkdir()
    save_open_clip(CLIP(CLIPConfig(text, SMALL_VISION), tokenizer, "small"), folder)


def measured(code: str, words: list[str], source: Path, place: Path) -> tuple[float, float]:
    """(peak in MB, seconds) that a process prints last."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    environment["SIMPROMPT_CACHE"] = str(place / "cache")
    output = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True, cwd=place,
    ).stdout  # fmt: skip
    peak, seconds = json.loads(output.splitlines()[-1])
    return peak, seconds


def tree(place: Path, tests: int) -> Path:
    """A folder of two base and two new classes: 16 images each to learn from, `tests` to test."""
    files = jpegs(place / f"pool{tests}", 200, 256, 256, 200)
    root = place / f"photos{tests}"
    for part, count in (("train", 64), ("test", tests)):
        for i in range(count):
            folder = root / part / ("ant", "bee", "cow", "dog")[i % 4]
            folder.mkdir(parents=True, exist_ok=True)
            data = files.loader.path(files.items[i % 200]).read_bytes()
            # read past the end by no decoder, so that no two files are the same
            (folder / f"{i}.jpg").write_bytes(data + f"{part} {i}".encode())
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, nargs="+", default=[HOST], help="src/ of versions")
    parser.add_argument("--method", default="maple")
    parser.add_argument("--images", type=int, nargs="*", default=(40, 5000), help="of 256 x 256")
    parser.add_argument("--photos", type=int, nargs="*", default=(1, 3000), help="of 3 megapixels")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place, model = Path(scratch), str(Path(scratch, "model"))
        checkpoint(Path(model))
        jpegs(place / "small", max(given.images, default=2), 256, 256, 200)
        jpegs(place / "large", max(given.photos, default=2), 2048, 1536, 8)
        cases: list[tuple[str, int, str, list[str]]] = []
        for n in given.images:
            words = ["run", "--dataset", str(tree(place, n)), "--method", given.method]
            words += [
                "--model",
                model,
                "--set",
                "training.epochs=1",
                "--sar",
                "off",
                "--seeds",
                "1",
            ]
            cases.append((f"run {given.method}, {n:,} test images", n, RUN, words))
        for case, method in (("test", given.method), ("features", "coop")):
            for n in given.images:
                words = [case, model, str(place / "small"), method, str(n)]
                cases.append((f"{case} {method}, {n:,} images", n, CASE, words))
        for method in ("coop", given.method):
            for n in given.photos:
                words = ["predict", model, str(place / "large"), method, str(n)]
                cases.append((f"predict {method}, {n:,} photos", n, CASE, words))
        for what, n, code, words in cases:
            for source in given.source:
                out = tempfile.mkdtemp(dir=place)  # neither finds what the other has kept
                given_out = ["--out", out] if code is RUN else []
                peak, seconds = measured(code, words + given_out, source.resolve(), Path(out))
                rate = n / seconds
                print(f"{what:34} {peak:7,.0f} MB {rate:7,.0f}/s  {source}", flush=True)


if __name__ == "__main__":
    main()
