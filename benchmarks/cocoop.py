"""CoCoOp, whose every image has its own prompts: a step beside the straightforward one.

A text tower of ViT-B/16's shape (context 77, random weights), the 24 base classes of a set such as
DTD, batches of 4 and 8 images. The reference is the published loop: for each image one pass over
all classes at 77 tokens, the logits stacked, one backward pass. Ours encodes the images' prefixes
together and behind each only the class names' tokens. Time is forward, backward and optimiser;
memory is what the step adds to the resident peak. Gradients of all that is learned are compared
in the same run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from common import Call, Names, Row, arguments, compare, emit, prepare, random_clip
from reference import FullLength, published_loss
from torch import Tensor

from simprompt import methods
from simprompt.config import Training
from simprompt.methods.base import Batch


def rows(options: argparse.Namespace) -> Iterator[Row]:
    clip = random_clip(tiny=options.tiny)
    kind = methods.find("cocoop")
    names = Names.make(options.classes)
    learner = kind(clip, names, "a photo of a {}.", kind.Config(init="random"), seed=0)
    tower = FullLength(clip)
    tokens = tower.tokens(learner.base, 1 + len(learner.ctx))
    optimiser = learner.optimiser(Training(lr=1e-6))
    for size in options.batch:
        case = f"batch {size}, {len(names)} classes"
        if options.case and options.case not in case:
            continue
        generator = torch.Generator().manual_seed(size)
        images = F.normalize(torch.randn(size, clip.embed_dim, generator=generator), dim=-1)
        labels = torch.randint(len(names), (size,), generator=generator)
        batch = Batch(images.to(clip.device), labels.to(clip.device))

        def ours(batch: Batch = batch) -> Tensor:
            return learner.loss(batch)

        def reference(batch: Batch = batch) -> Tensor:
            return published_loss(tower, learner, tokens, batch.images, batch.labels)

        def step(loss) -> None:
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()

        # gradients first: a step moves the parameters
        here = torch.autograd.grad(ours(), list(learner.parameters()))
        there = torch.autograd.grad(reference(), list(learner.parameters()))
        largest = max(g.abs().max().item() for g in there)
        apart = max((a - b).abs().max().item() for a, b in zip(here, there, strict=True))
        calls: dict[str, Call] = {"ours": lambda: step(ours), "reference": lambda: step(reference)}
        times, peaks = compare(calls, options.repeats)
        yield Row(
            case,
            times["ours"],
            times["reference"],
            ours_peak_mb=peaks["ours"],
            reference_peak_mb=peaks["reference"],
            more={
                "memory_ratio": peaks["reference"] / peaks["ours"],
                "gradient_difference": apart / largest,
            },
        )


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "A CoCoOp step beside one text pass an image")
