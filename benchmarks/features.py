"""Image features a second: ViT-B/16 beside `transformers`, with the same weights and images.

Two cases: from pixels (the image tower alone), and from image files to normalised features, with
decoding and preprocessing. The reference is `CLIPModel` with its Pillow image processor, batch
after batch. Weights are random; the largest difference of the features is printed.

    python benchmarks/features.py [--images FOLDER] [--batch 16] [--count 32]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Row, arguments, compare, device, emit, prepare
from PIL import Image

from simprompt.clip.checkpoints import canonical
from simprompt.clip.layouts.hugging_face import towers_of_hugging_face
from simprompt.clip.model import CLIP
from simprompt.clip.packed import packed
from simprompt.data.images import FileLoader
from simprompt.data.split import Split
from simprompt.features.cache import image_features


class Marks:
    """Stands in for a tokenizer; no text is encoded here."""

    sot, eot = 49406, 49407


def models(tiny: bool) -> tuple[CLIP, Any, Any]:
    """(ours, theirs, their image processor), with the same weights."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    vision = {"patch_size": 16}
    if tiny:
        vision |= {"image_size": 32, "num_hidden_layers": 2, "hidden_size": 64}
        vision |= {"intermediate_size": 256, "num_attention_heads": 4}
    text = {"num_hidden_layers": 1, "vocab_size": 8}  # no text is encoded
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    torch.manual_seed(0)
    theirs = CLIPModel(config).eval().to(device())
    towers = towers_of_hugging_face(config.to_dict() | {"model_type": "clip"}, "random")
    ours = CLIP(towers.config(Marks), Marks)  # type: ignore[arg-type]
    ours.load_state_dict(canonical(theirs.state_dict())[0])
    size = config.vision_config.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    return ours.to(device()), theirs, processor


def photos(folder: Path | None, count: int, scratch: Path) -> tuple[Path, list[str]]:
    """(root, items): image files below a folder, or noise written as JPEGs of 400 x 300."""
    if folder is not None:
        found = sorted(p for p in folder.rglob("*.jpg"))
        step = max(1, len(found) // count)
        return folder, [str(p.relative_to(folder)) for p in found[::step][:count]]
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((400, 300), Image.Resampling.BICUBIC).save(scratch / f"{i}.jpg")
    return scratch, [f"{i}.jpg" for i in range(count)]


def rows(options: argparse.Namespace) -> Iterator[Row]:
    ours, theirs, processor = models(options.tiny)
    with tempfile.TemporaryDirectory() as scratch:
        root, items = photos(options.images, 4 if options.tiny else options.count, Path(scratch))
        split = Split(tuple(items), (0,) * len(items), ("photo",), FileLoader(root))
        pixels = torch.stack([ours.preprocess(split.load(i)) for i in range(len(split))]).to(
            device()
        )

        def their_features(x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                pooled = theirs.vision_model(pixel_values=x.to(device())).pooler_output
                return F.normalize(theirs.visual_projection(pooled), dim=-1).cpu()

        tower = packed(ours.visual)  # as `image_features` does

        def our_tower() -> torch.Tensor:
            parts = [F.normalize(tower(x), dim=-1).cpu() for x in pixels.split(options.batch)]
            return torch.cat(parts)

        def from_files() -> torch.Tensor:
            parts = []
            for start in range(0, len(items), options.batch):
                chunk = [Image.open(root / item) for item in items[start : start + options.batch]]
                parts.append(their_features(processor(chunk, return_tensors="pt").pixel_values))
            return torch.cat(parts)

        for case, mine, reference in (
            ("image tower", our_tower,
             lambda: torch.cat([their_features(x) for x in pixels.split(options.batch)])),
            ("files to features", lambda: image_features(ours, split, batch=options.batch),
             from_files),
        ):  # fmt: skip
            if options.case and options.case not in case:
                continue
            difference = float((mine() - reference()).abs().max())
            calls = {"ours": mine, "reference": reference}
            timings, peaks = compare(calls, options.repeats)
            yield Row(
                f"{case}, {len(items)} images",
                timings["ours"],
                timings["reference"],
                ours_peak_mb=peaks["ours"],
                reference_peak_mb=peaks["reference"],
                more={
                    "ours_a_second": len(items) / timings["ours"].median,
                    "reference_a_second": len(items) / timings["reference"].median,
                    "largest_difference": difference,
                },
            )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=Path, help="a folder of .jpg files")
    parser.add_argument("--count", type=int, default=32, help="images")
    parser.add_argument("--batch", type=int, default=16, help="images a batch, for both")
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "Image features")
