"""One training step of the text side: ours beside the published way.

A text tower of ViT-B/16's shape with random weights, image features given, batch 32. "Ours" is
`simprompt.train.train` itself, so drawing, packing, loss, backward pass and optimiser are all in
it. The reference (`reference.py`) has CE and, where the method adds one, its own loss, but never
SAR: a CoOp+SAR row compares our step with SAR to theirs without.

Where 77 tokens for every class are too many to wait for, the reference runs with 100 classes and
is multiplied; its time is linear in the classes, and such rows say "scaled".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from common import (
    IMAGENET_TOKENS,
    NAME_TOKENS,
    Call,
    Names,
    Row,
    Timing,
    arguments,
    emit,
    interleave,
    peak_increase_mb,
    prepare,
    random_clip,
)
from reference import FullLength

from simprompt import methods
from simprompt.clip.model import CLIP
from simprompt.config import SAR, Training
from simprompt.methods.base import PromptLearner
from simprompt.sar import Regulariser
from simprompt.train import train

REFERENCE_CLASSES = 100  # with more, the reference is measured at these and multiplied
TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Case:
    """A step to measure: a method, with SAR or not, on so many classes."""

    name: str
    method: str = "coop"
    base: int = 50
    novel: int = 200
    sar: bool = False
    n_ctx: int = 4
    batch: int = 32
    options: dict[str, Any] = field(default_factory=dict)
    counts: tuple[int, ...] = NAME_TOKENS
    model: str = "random"


CASES = (
    Case("coop"),
    Case("coop+sar", sar=True),
    Case("coop, 16 context tokens", n_ctx=16),
    Case("coop+sar, 16 context tokens", n_ctx=16, sar=True),
    Case("kgcoop", "kgcoop"),
    Case("maple, text side", "language", n_ctx=2, options={"depth": 9}),
    Case("maple+sar, text side", "language", n_ctx=2, options={"depth": 9}, sar=True),
    Case("cocoop, batch 4", "cocoop", batch=4),
    Case("coop, 500 classes", base=500, counts=IMAGENET_TOKENS),
    Case("coop+sar, 500 classes", base=500, counts=IMAGENET_TOKENS, sar=True),
    Case("icons: coop, 40 classes", base=40, model="icons", options={"n_ctx": 4}),
    Case("icons: coop+sar, 40 + 40 classes", base=40, model="icons", sar=True),
)


def learner_of(case: Case, clip: CLIP) -> PromptLearner:
    learner = methods.find(case.method)
    options = {"n_ctx": case.n_ctx, "init": "random", **case.options}
    names = names_of(case)[: case.base]
    return learner(clip, names, TEMPLATE, learner.Config(**options), seed=0)


def names_of(case: Case) -> list[str]:
    """Base names, then novel ones: real ones for the icon CLIP, else of real lengths."""
    if case.model != "icons":
        return list(Names.make(case.base + case.novel))
    from simprompt.data import icons

    names: dict[str, None] = {}
    for task in icons.tasks():
        data = icons.load(task)
        names |= dict.fromkeys((*data.base.classnames, *data.new.classnames))
    return list(names)[: case.base + case.novel]


def ours(case: Case, clip: CLIP, steps: int = 1) -> Call:
    """`steps` steps of `train`; teacher and prompts are made beforehand, as in a run."""
    learner = learner_of(case, clip)
    images, labels = batch_of(case, clip, steps)
    plug = None
    if case.sar:
        everyone = names_of(case)
        teacher = learner.teacher(everyone)
        plug = Regulariser(SAR(sample=64), teacher, case.base, 0), learner.prompts(everyone)
    settings = Training(epochs=1, batch_size=case.batch)

    def run() -> None:
        train(learner, images, labels, settings, 0, plug)

    return run


def batch_of(case: Case, clip: CLIP, steps: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random image features [N, 1, E] and labels [N] for so many steps."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(case.batch * steps, 1, clip.embed_dim, generator=generator)
    labels = torch.randint(case.base, (case.batch * steps,), generator=generator)
    return F.normalize(images, dim=-1).to(clip.device), labels.to(clip.device)


def reference(case: Case, clip: CLIP) -> tuple[Call, float]:
    """One step in the published way, and the factor for classes that were left out."""
    learner = learner_of(case, clip)
    tower = FullLength(clip)
    few = min(case.base, REFERENCE_CLASSES)
    tokens = tower.tokens(learner.prompts(names_of(case)[:few]), 1 + case.n_ctx)
    images, labels = batch_of(case, clip)
    images, labels = images[:, 0], labels % few
    optimiser = learner.optimiser(Training())
    fixed = learner.teacher(names_of(case)[:few]) if case.method == "kgcoop" else None
    deep = getattr(learner, "deep", None)

    def loss() -> torch.Tensor:
        sot = clip.embed_prefix()
        if case.method == "cocoop":  # every image has a context of its own
            shifted = learner.ctx + learner.meta_net(images)[:, None]
            logits = torch.stack(
                [
                    clip.scale * image @ tower(torch.cat([sot, ctx]), tokens).T
                    for image, ctx in zip(images, shifted, strict=True)
                ]
            )
            return F.cross_entropy(logits, labels)
        text = tower(torch.cat([sot, learner.ctx]), tokens, deep)
        ce = F.cross_entropy(clip.scale * images @ text.T, labels)
        return ce if fixed is None else ce + 8 * (1 - (text * fixed).sum(-1).mean())

    def run() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
        return value.detach()

    return run, case.base / few


def measure(cases: Sequence[Case], options: argparse.Namespace, repeats: int = 0) -> list[Row]:
    """Time and peak memory of cases that have one reference, all in turn."""
    clip = model_of(cases[0], options.tiny)
    half = getattr(options, "bfloat16", False)
    if half:
        clip.text.to(torch.bfloat16)
    steps = 4 if cases[0].model == "icons" else 1
    calls = {case.name: ours(case, clip, steps) for case in cases}
    compared = not (half or getattr(options, "no_reference", False))
    scale = 1.0
    if compared:
        calls["reference"], scale = reference(cases[0], clip)
    peaks = {name: peak_increase_mb(call) for name, call in calls.items()}  # and the warm-up
    found = interleave(calls, repeats or options.repeats, warmups=0)
    return [
        Row(
            case.name,
            Timing([s / steps for s in found[case.name].seconds]),
            found.get("reference"),
            scale,
            peaks[case.name],
            peaks["reference"] * scale if compared else None,
        )
        for case in cases
    ]


def reference_of(case: Case) -> tuple[object, ...]:
    """Cases for which this is equal are compared with the same reference."""
    return case.method, case.base, case.n_ctx, case.counts, case.model


def model_of(case: Case, tiny: bool) -> CLIP:
    if case.model == "icons":
        from simprompt.clip.hub import load_clip

        return load_clip("icons")
    return random_clip(case.counts, tiny)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    wanted = [case for case in CASES if not options.case or options.case in case.name]
    for _, group in groupby(wanted, key=reference_of):
        yield from measure(list(group), options)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--no-reference", action="store_true", help="ours alone")
    parser.add_argument(
        "--bfloat16", action="store_true", help="ours alone, with the frozen towers in bfloat16"
    )
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "One step of the text side")
