"""Peak memory of a run with a live image tower, and of predict on many photos, each a process.

    python benchmarks/image_memory.py [--source OTHER/src]

Makes small JPEGs of noise, photos of 3 megapixels, and a random CLIP of 224 pixels; then a process
of its own makes the run, another learns a prompt and predicts. `--source` is another checkout's
src/, to measure that one. What is printed of each: its peak, that of the same with few images, and
seconds. The difference of the two peaks is what the images cost.
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
from simprompt.memory import peak_mb
from simprompt.cli import app
started = time.perf_counter()
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([peak_mb(), time.perf_counter() - started]))
"""

PREDICT = """
import json, sys, time
from simprompt import learn, load_clip
from simprompt.data.dataset import Split
from simprompt.data.images import FileLoader
from simprompt.memory import peak_mb
from pathlib import Path
model, photos, method, count = sys.argv[1:]
paths = sorted(Path(photos).glob("*.jpg"))[:int(count)]
shots = Split(("0.jpg", "1.jpg"), (0, 1), ("cat", "dog"), FileLoader(Path(photos)))
prompt = learn(load_clip(model), shots, method, training={"epochs": 1, "batch_size": 1})
started = time.perf_counter()
assert len(prompt.predict(paths, ["cat", "dog"])) == len(paths)
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
            (folder / f"{i}.jpg").write_bytes(data + str(i).encode())
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, default=HOST, help="src/ of the version to measure")
    parser.add_argument("--method", default="maple")
    parser.add_argument("--tests", type=int, nargs=2, default=(40, 5000), help="test images")
    parser.add_argument("--photos", type=int, nargs=2, default=(1, 3000), help="of 3 megapixels")
    given = parser.parse_args()
    source = given.source.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        checkpoint(place / "model")
        rows = []
        for tests in filter(None, given.tests):
            words = ["run", "--dataset", str(tree(place, tests)), "--method", given.method]
            words += ["--model", str(place / "model"), "--out", str(place / f"runs{tests}")]
            words += ["--set", "training.epochs=1", "--sar", "off", "--seeds", "1"]
            rows.append((f"run, {tests:,} test images", measured(RUN, words, source, place)))
            print_row(*rows[-1])
        jpegs(place / "large", max(given.photos), 2048, 1536, 8)
        for count in filter(None, given.photos):
            for method in ("coop", given.method):
                words = [str(place / "model"), str(place / "large"), method, str(count)]
                what = f"predict with {method}, {count:,} photos"
                print_row(what, measured(PREDICT, words, source, place))


def print_row(what: str, result: tuple[float, float]) -> None:
    print(f"{what:34} peak {result[0]:7,.0f} MB  {result[1]:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
