"""`simprompt run` on a model and a dataset that it has to fetch: both come from a loopback hub.

The fast test uses a small model; the slow one has ViT-B/16's shape, real EuroSAT images where
`SIMPROMPT_SHARED_DATA` names them, and is killed in the middle of its download.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from simprompt.clip.checkpoints import save_open_clip
from simprompt.data import coop

MODEL_REPO = "timm/vit_base_patch16_clip_224.openai"
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
        sys.executable, "-c", "from simprompt.cli import main; main()", "run",
        "--model", "ViT-B-16/openai", "--dataset", "eurosat", "--out", str(out), "--json", *more,
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
        env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "eurosat" in json.dumps(json.loads(done.stdout))
    assert "a mirror" in done.stderr  # says that this is not the published archive
    assert (tmp_path / "cache" / "data" / "eurosat" / "downloaded_from.json").is_file()
    assert list((tmp_path / "cache" / "features").rglob("*.safetensors"))
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
@pytest.mark.skipif(not SHARED, reason="SIMPROMPT_SHARED_DATA names no folder")
def test_the_real_shapes_killed_and_resumed(hub, tmp_path):
    pytest.importorskip("instant_clip_tokenizer")
    from simprompt.clip.checkpoints import OPENAI_MODELS, openai_towers
    from simprompt.clip.model import CLIP
    from simprompt.clip.tokenizer import BundledTokenizer

    shape = next(s for s, name in OPENAI_MODELS.items() if name == "ViT-B-16")
    words = BundledTokenizer()
    torch.manual_seed(0)
    clip = CLIP(openai_towers(shape).config(words), words)
    save_open_clip(clip.half(), tmp_path / "written")
    files = {p.name: p for p in (tmp_path / "written").iterdir()}
    hub.repos[MODEL_REPO] = files
    hub.repos[DATA_REPO] = {"eurosat.zip": real_eurosat(tmp_path)}
    size = files["open_clip_model.safetensors"].stat().st_size
    more = ["--seeds", "1", "--sar", "off", "--set", "training.epochs=2",
            "--max-test-per-class", "20"]  # fmt: skip
    blobs = tmp_path / "hf" / "hub" / f"models--{MODEL_REPO.replace('/', '--')}" / "blobs"
    hub.slow = 0.005
    first = subprocess.Popen(command(tmp_path / "runs", *more), env=environment(tmp_path),
                             stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    for _ in range(6000):
        parts = list(blobs.glob("*.part")) if blobs.is_dir() else []
        if parts and parts[0].stat().st_size > size // 3:
            break
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    hub.slow = 0
    have = parts[0].stat().st_size
    assert size // 3 < have < size
    hub.log.clear()
    started = time.perf_counter()
    done = subprocess.run(command(tmp_path / "runs", *more), env=environment(tmp_path),
                          capture_output=True, text=True, timeout=1800, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    ranges = [r for _, path, r in hub.log if "storage" in path and "safetensors" in path]
    assert ranges == [f"bytes={have}-"]
    print(f"resumed at {have:,} of {size:,} bytes; {time.perf_counter() - started:.0f} s")
    print(done.stdout[:600])
