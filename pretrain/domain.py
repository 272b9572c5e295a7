"""What the icon CLIP's drawings look like: `python -m pretrain.domain [FOLDER ...]`.

Writes the statistics that `simprompt.clip.domain` reads, from the training drawings of the eight
icon tasks (400 of each, drawn), and prints the false alarms on the test drawings, which are of
other design families: all, each family alone, and strongly restyled. Each FOLDER of photos is
measured and printed, and changes nothing.
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
from simprompt.data.image_files import SUFFIXES
from simprompt.data.images import read_image
from simprompt.data.split import Split

EACH = 400


def drawn(split: Split) -> list[int]:
    return random.Random(0).sample(range(len(split)), min(EACH, len(split)))


def of_split(clip: CLIP, split: Split) -> Tensor:
    return of_rows(clip, split, drawn(split))


def of_rows(clip: CLIP, split: Split, rows: Sequence[int]) -> Tensor:
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
    families: dict[str, list[Tensor]] = {}
    tests = []
    for task in tasks:
        split = task.all.test
        rows = drawn(split)
        tests.append(of_rows(clip, split, rows))
        for row, one in zip(rows, tests[-1], strict=True):
            families.setdefault(split.items[row].partition("/")[0], []).append(one)
    strong = [simprompt.load_dataset(f"{task.name}@strong") for task in tasks]
    groups = {
        "test drawings": torch.cat(tests),
        **{name: torch.stack(own) for name, own in sorted(families.items()) if len(own) >= 100},
        "strongly restyled": torch.cat([of_split(clip, task.all.test) for task in strong]),
        **{folder: of_folder(clip, folder) for folder in folders},
    }
    for name, images in groups.items():
        far = (known.distance(images) > threshold).double()
        sets = far[: len(far) // 20 * 20].view(-1, 20).mean(1) > domain.MANY
        print(
            f"{name}: {100 * far.mean().item():.1f} % of {len(far)} images are far, "
            f"{100 * sets.double().mean().item():.1f} % of sets of 20 are warned about"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
