"""One training step of the text side: ours beside the published way.

A text tower of ViT-B/16's shape with random weights, image features given, batch 32. "Ours" is
`simprompt.training.loop.train`, so drawing, packing, loss, backward pass and optimiser are all in
it: the time of a training of five steps less that of one, over four, so that what a training does
once (its closing check) is not. The reference (`reference.py`) never has SAR: a CoOp+SAR row
compares our step with SAR to theirs without, and `over_coop` is our step with SAR over our own
without, from the same rounds.

CoOp at 77 tokens is the same work whatever the number of context tokens, and KgCoOp adds little to
it; one reference is measured for all of them, and rows say so. Where 77 tokens for every class are
too many to wait for, the reference runs with 100 classes and is multiplied; its time is linear in
the classes, and such rows say "scaled".
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
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
    compare,
    device,
    emit,
    prepare,
    random_clip,
)
from reference import FullLength, published_loss

from simprompt import methods, recipes, regularisers
from simprompt.clip.model import CLIP
from simprompt.config import SARPlus, Training
from simprompt.methods.base import PromptLearner
from simprompt.training.loop import train
from simprompt.utils.checkpoint import Checkpoint

SHORT, LONG = 1, 5  # steps of the two trainings whose difference is measured
REFERENCE_CLASSES = 100  # with more, the reference is measured at these and multiplied
TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Case:
    """A step to measure: a method, with SAR or not, on so many classes; `form` has SAR's settings
    beside the paper's."""

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
    form: dict[str, Any] = field(default_factory=dict)


def light() -> dict[str, Any]:
    """SAR's settings in the recipe sar@light."""
    settings: dict[str, Any] = recipes.load("sar@light")["sar"]
    return settings


LIGHTER: dict[str, dict[str, Any]] = {
    "K 16": {"classes_per_step": 16},
    "K 8": {"classes_per_step": 8},
    "light": light(),
}
EUROSAT = 5  # base classes

CASES = (
    Case("coop"),
    Case("coop+sar", sar=True),
    Case("coop, 16 context tokens", n_ctx=16),
    Case("coop+sar, 16 context tokens", n_ctx=16, sar=True),
    *(Case(f"coop+sar, {name}", sar=True, form=form) for name, form in LIGHTER.items()),
    Case("kgcoop", "kgcoop"),
    Case("maple, text side", "language", n_ctx=2, options={"depth": 9}),
    Case("maple+sar, text side", "language", n_ctx=2, options={"depth": 9}, sar=True),
    Case("cocoop, batch 4", "cocoop", batch=4),
    Case("coop, 500 classes", base=500, counts=IMAGENET_TOKENS),
    Case("coop+sar, 500 classes", base=500, counts=IMAGENET_TOKENS, sar=True),
    Case("coop, 5 classes", base=EUROSAT),
    Case("coop+sar, 5 classes", base=EUROSAT, sar=True),
    *(
        Case(f"coop+sar, 5 classes, {name}", base=EUROSAT, sar=True, form=form)
        for name, form in LIGHTER.items()
    ),
    Case("icons: coop, 40 classes", base=40, model="icons"),
    Case("icons: coop+sar, 40 + 200 classes", base=40, model="icons", sar=True),
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


def ours(case: Case, clip: CLIP, steps: int = 1, place: Path | None = None) -> Call:
    """`steps` steps of `train`, kept at `place`; teacher and prompts are made beforehand, as in a
    run."""
    learner = learner_of(case, clip)
    images, labels = batch_of(case, clip, steps)
    plug = None
    if case.sar:
        everyone = names_of(case)
        settings = SARPlus(**{"classes_per_step": 64, **case.form}).plain()
        plug = regularisers.build(settings, learner, everyone), learner.prompts(everyone)
    training = Training(epochs=1, batch_size=case.batch)

    def run() -> None:
        kept = Checkpoint(place, [case.name]) if place else None
        if kept:
            kept.remove()
        train(learner, images, labels, training, 0, plug, checkpoint=kept)

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

    def run() -> torch.Tensor:
        optimiser.zero_grad()
        value = published_loss(tower, learner, tokens, images, labels, fixed)
        value.backward()
        optimiser.step()
        return value.detach()

    return run, case.base / few


def measure(cases: Sequence[Case], options: argparse.Namespace, repeats: int) -> list[Row]:
    """Time and peak memory of cases that have one reference, all in turn."""
    clip = model_of(cases[0], options.tiny)
    half = getattr(options, "bfloat16", False)
    if half:
        clip.text.to(torch.bfloat16)
    calls = {
        f"{case.name}, {steps} steps": ours(case, clip, steps)
        for case in cases
        for steps in (SHORT, LONG)
    }
    compared = not (half or getattr(options, "no_reference", False))
    scale = 1.0
    if compared:
        calls["reference"], scale = reference(cases[0], clip)
    found, peaks = compare(calls, repeats)
    for case in cases:
        short, long = (found[f"{case.name}, {steps} steps"] for steps in (SHORT, LONG))
        found[case.name] = Timing([(s - short.median) / (LONG - SHORT) for s in long.seconds])
    made = []
    for case in cases:
        row = Row(case.name, found[case.name], ours_peak_mb=peaks[f"{case.name}, {LONG} steps"])
        if compared:
            row.reference, row.reference_scale = found["reference"], scale
            row.reference_peak_mb = peaks["reference"] * scale
            row.note = note_of(case, cases[0], scale)
        for plain in cases:
            if case.sar and plain == replace(case, name=plain.name, sar=False, form={}):
                row.more["over_coop"] = row.ours.median / found[plain.name].median
        made.append(row)
    return made


def note_of(case: Case, measured: Case, scale: float) -> str:
    """What the reference is, where it is not this very case."""
    notes = []
    if case.sar:
        notes.append("without SAR")
    if case.method != measured.method or case.n_ctx != measured.n_ctx:
        notes.append(f"that of {measured.name!r}")
    if scale != 1:
        notes.append(f"scaled from {round(measured.base / scale)} classes")
    return f"reference {', '.join(notes)}" if notes else ""


def reference_of(case: Case) -> tuple[object, ...]:
    """Cases for which this is equal are compared with the same reference."""
    return "coop" if case.method == "kgcoop" else case.method, case.base, case.counts, case.model


def model_of(case: Case, tiny: bool) -> CLIP:
    if case.model == "icons":
        from simprompt.clip.hub import load_clip

        return load_clip("icons", device=device())
    return random_clip(case.counts, tiny)


def rows(options: argparse.Namespace) -> Iterator[Row]:
    wanted = [case for case in CASES if not options.case or options.case in case.name]
    for _, group in groupby(wanted, key=reference_of):
        yield from measure(list(group), options, options.repeats)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--no-reference", action="store_true", help="ours alone")
    parser.add_argument(
        "--bfloat16", action="store_true", help="ours alone, with the frozen towers in bfloat16"
    )
    given = parser.parse_args()
    prepare(given)
    emit(rows(given), given, "One step of the text side")
