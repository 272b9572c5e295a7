"""`simprompt run` on a model and a dataset that it has to fetch: both come from a loopback hub.

The fast test uses a small model; the slow one has ViT-B/16's shape, real EuroSAT images where
`SIMPROMPT_SHARED_DATA` names them, and is killed in the middle of its download.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from simprompt.clip.layouts.open_clip import save_open_clip
from simprompt.data import coop

pytestmark = pytest.mark.integration

MODEL_REPO = "timm/vit_base_patch16_clip_224.metaclip_400m"
DATA_REPO = "zhengli97/prompt_learning_dataset"
SHARED = os.environ.get("SIMPROMPT_SHARED_DATA")


def small_eurosat() -> bytes:
    """An archive in the mirror's layout: ten colours for ten kinds of land."""
    names, split = coop.class_names("eurosat"), {"train": [], "val": [], "test": []}
    archive = io.BytesIO()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(archive, "w") as zipped:
        for label, name in enumerate(names):
            for i in range(6):
                item = f"Class{label}/{i}.jpg"
                colour = np.array([25 * label, 255 - 25 * label, 40 * (label % 5)])
                pixels = np.clip(colour + rng.integers(-30, 30, (64, 64, 3)), 0, 255)
                file = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG")
                zipped.writestr(f"eurosat/2750/{item}", file.getvalue())
                split[("train", "train", "train", "val", "test", "test")[i]].append(
                    [item, label, name]
                )
        zipped.writestr("eurosat/split_zhou_EuroSAT.json", json.dumps(split))
    return archive.getvalue()


def command(out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-c", "from simprompt.cli.main import main; main()", "run",
        "--model", "ViT-B-16/metaclip_400m",
        "--dataset", "eurosat", "--out", str(out), "--json", *more,
    ]  # fmt: skip


def environment(tmp_path: Path) -> dict[str, str]:
    own = {"SIMPROMPT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "2"}
    kept = {k: v for k, v in os.environ.items() if k not in ("SIMPROMPT_DATA", "HF_HUB_CACHE")}
    return kept | own


def test_run_downloads_what_it_needs(hub, tmp_path, make_clip):
    save_open_clip(make_clip(text={"context_length": 77}), tmp_path / "written")
    hub.repos[MODEL_REPO] = {p.name: p for p in (tmp_path / "written").iterdir()}
    hub.repos[DATA_REPO] = {"eurosat.zip": small_eurosat()}
    done = subprocess.run(
        command(tmp_path / "runs", "--seeds", "1", "--shots", "2", "--sar", "off",
                "--set", "training.epochs=2", "--max-test-per-class", "1"),
        env=environment(tmp_path), capture_output=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "eurosat" in json.dumps(json.loads(done.stdout))
    assert "a mirror" in done.stderr  # says that this is not the published archive
    assert (tmp_path / "cache" / "data" / "eurosat" / "downloaded_from.json").is_file()
    # 2 shots of 5 base classes, one test image of 10 classes: no other image was encoded
    shards = list((tmp_path / "cache" / "features").rglob("*.safetensors"))
    assert sum(len(read_keys(shard)) for shard in shards) == 2 * 5 + 10
    fetched = [path for method, path, _ in hub.log if method == "GET"]
    assert sum("open_clip_model.safetensors" in p and "storage" in p for p in fetched) == 1
    assert sum("eurosat.zip" in p and "storage" in p for p in fetched) == 1


def real_eurosat(folder: Path) -> Path:
    """The shared copy of EuroSAT as the mirror's archive."""
    source = Path(SHARED) / "coop_layout" / "eurosat"
    archive = folder / "eurosat.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
        for path in sorted(source.rglob("*")):
            if path.is_file():
                zipped.write(path, f"eurosat/{path.relative_to(source)}")
    return archive


@pytest.mark.slow
@pytest.mark.skipif(not SHARED, reason="needs images of EuroSAT below SIMPROMPT_SHARED_DATA")
def test_the_real_shapes_killed_and_resumed(hub, tmp_path, capsys):
    pytest.importorskip("instant_clip_tokenizer")
    from simprompt.clip.layouts.openai import OPENAI_MODELS, openai_towers
    from simprompt.clip.model import CLIP
    from simprompt.clip.tokenizer import BundledTokenizer

    began = time.perf_counter()

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"{time.perf_counter() - began:5.0f} s  {text}", flush=True)

    shape = next(s for s, name in OPENAI_MODELS.items() if name == "ViT-B-16")
    words = BundledTokenizer()
    torch.manual_seed(0)
    clip = CLIP(openai_towers(shape).config(words, Path("x")), words)
    save_open_clip(clip.half(), tmp_path / "written")
    files = {p.name: p for p in (tmp_path / "written").iterdir()}
    hub.repos[MODEL_REPO] = files
    hub.repos[DATA_REPO] = {"eurosat.zip": real_eurosat(tmp_path)}
    size = files["open_clip_model.safetensors"].stat().st_size
    say(f"serving a random ViT-B/16 of {size:,} bytes and EuroSAT's real images")
    asked = command(
        tmp_path / "runs", "--seeds", "1", "--sar", "off", "--set", "training.epochs=2",
        "--set", f"threads={os.cpu_count()}", "--max-test-per-class", "20",
    )  # fmt: skip
    settings = environment(tmp_path) | {"OMP_NUM_THREADS": str(os.cpu_count())}
    blobs = tmp_path / "hf" / "hub" / f"models--{MODEL_REPO.replace('/', '--')}" / "blobs"

    hub.slow = 0.005
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(asked, env=settings, **quiet)
    limit = time.monotonic() + 300
    while time.monotonic() < limit and first.poll() is None:
        part = next(blobs.glob("*.part"), None)
        if part and part.stat().st_size > size // 3:
            break
        time.sleep(0.02)
    first.kill()
    first.wait()
    have = part.stat().st_size
    assert size // 3 < have < size
    say(f"killed at {have:,} bytes")

    hub.slow = 0
    hub.log.clear()
    again = subprocess.Popen(asked, env=settings, encoding="utf-8",
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    lines = []
    for line in again.stderr:
        lines.append(line)
        if "MB" not in line or line.split(":")[-1].split()[0] == line.split()[-2]:
            say(line.strip())
    answer = again.stdout.read()
    assert again.wait() == 0, "".join(lines)
    ranges = [r for _, path, r in hub.log if "storage" in path and "safetensors" in path]
    assert ranges == [f"bytes={have}-"]
    say(f"resumed at {have:,} of {size:,} bytes, and finished")
    assert "eurosat" in answer
    (found,) = (tmp_path / "runs").rglob("result.json")
    result = json.loads(found.read_text(encoding="utf-8"))
    # 16 shots of 5 base classes, 20 test images of 10 classes: no other image was encoded
    encoded = set().union(
        *(read_keys(f) for f in (tmp_path / "cache" / "features").rglob("*.safetensors"))
    )
    assert len(encoded) == 16 * 5 + 20 * 10
    rest = result["seconds"] - result["train_seconds"]
    say(
        f"{len(encoded)} images and the tests {rest:.0f} s, training {result['train_seconds']:.0f} "
        f"s; base {result['base']:.1f} %, new {result['new']:.1f} % (random weights: chance is 20)"
    )


def read_keys(shard: Path) -> set[str]:
    with safe_open(str(shard), "pt") as opened:
        return set(json.loads(opened.metadata()["items"]))
