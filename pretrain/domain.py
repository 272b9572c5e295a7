"""What the icon CLIP's drawings look like: `python -m pretrain.domain [FOLDER ...]`.

Writes the statistics that `simprompt.clip.domain` reads, from the training drawings of the eight
icon tasks (their first 400 of each, in a drawn order), and prints the false alarms on the test
drawings, which are of other design families. Each FOLDER of photos is measured and printed, and
changes nothing.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import simprompt
from simprompt.clip import domain
from simprompt.clip.hub import load_clip
from simprompt.clip.model import CLIP
from simprompt.data import icons
from simprompt.data.dataset import Split
from simprompt.data.images import SUFFIXES, read_image

EACH = 400


def of_split(clip: CLIP, split: Split) -> Tensor:
    rows = random.Random(0).sample(range(len(split)), min(EACH, len(split)))
    return domain.statistics(clip, torch.stack([clip.preprocess(split.load(row)) for row in rows]))


def of_folder(clip: CLIP, folder: str) -> Tensor:
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    random.Random(0).shuffle(paths)
    pixels = [clip.preprocess(read_image(path)) for path in paths[:EACH]]
    return domain.statistics(clip, torch.stack(pixels))


def main(folders: Sequence[str]) -> None:
    clip = load_clip("icons")
    tasks = [simprompt.load_dataset(name) for name in icons.tasks()]
    values = torch.cat([of_split(clip, task.all.train) for task in tasks]).double()
    mean = values.mean(0)
    centred = values - mean
    covariance = centred.T @ centred / len(values)
    covariance += 1e-3 * centred.var(0).mean() * torch.eye(len(mean), dtype=torch.float64)
    inverse = torch.linalg.inv(torch.linalg.cholesky(covariance)).half().double()
    plain = domain.Domain(mean, inverse, 0.0)
    threshold = plain.distance(values).quantile(0.99).item()
    known = domain.Domain(mean, inverse, threshold)
    save_file(
        {
            "mean": mean.float(),
            "whitening": inverse.half().contiguous(),
            "threshold": torch.tensor(threshold),
        },
        str(domain.FILE),
    )
    tests = torch.cat([of_split(clip, task.all.test) for task in tasks])
    for name, images in (("test drawings", tests), *((f, of_folder(clip, f)) for f in folders)):
        far = (known.distance(images) > threshold).double()
        sets = far[: len(far) // 20 * 20].view(-1, 20).mean(1) > domain.MANY
        print(
            f"{name}: {100 * far.mean().item():.1f} % of {len(far)} images are far, "
            f"{100 * sets.double().mean().item():.1f} % of sets of 20 are warned about"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
