"""Which predictor to take, chosen on somebody's own images: `--method auto`.

All candidates are forms of the method `images+text`: what tells classes with images apart (a linear
probe, class means, text alone), how much text has a say in it, and whether an image map stands in
front of text. So each takes any name, is calibrated and saved in the same way, and costs no
training. What is chosen, on the training images alone:

- *how classes with images are told apart*, by cross-validation over these images (`folds`);
- where there are names without images, *whether the map stands before their text*, by halves of
  the classes that play the new ones (`PLAYS`). No name and no image of a new class is looked at.

Of candidates that are not told from the best by one standard error of the paired difference the
first in the list is taken: the ones at its head join both sources of knowledge, and assume least
about which of them is right for these images.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.data.split import Split
from simprompt.features.cache import image_features
from simprompt.methods.closed_form import Fit, Form, drawn_halves, mean_of_views
from simprompt.methods.images_with_text import ImagesWithTextConfig
from simprompt.methods.teacher import Teacher
from simprompt.recipes.plan import ANSWER
from simprompt.utils.progress import report_progress
from simprompt.utils.statistics import part_interval

FOLDS = 4
"""Groups of images; each is answered for by what was learned from the others."""
REPEATS = 2
"""Draws of these groups."""
PLAYS = 16
"""Halves of the classes that play the new ones, at most."""
FORMS: tuple[Form, ...] = (
    Form("probe", 0.3),
    Form("probe", 1.0),
    Form("probe", 3.0),
    Form("probe", 0.0),
    Form("means", 0.0),
    Form("text", 1.0),
)
"""How classes with images are told apart, in the order in which a tie is broken."""


@dataclass(frozen=True)
class Measured:
    """A candidate's answers to images that it was not fitted to.

    Attributes:
        form: the candidate.
        right: of each image, the part of its answers that is right, [N] float64.
    """

    form: Form
    right: Tensor

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100 * self.right.mean().item()

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of it, an observation an image."""
        return part_interval(self.right.sum().item(), len(self.right))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen from.

    Attributes:
        form: the choice.
        known: the candidates for classes with images, in their order; empty where no class has two
            images.
        new: those of text for names without images, by pseudo-new classes; empty where none was
            asked for or there are too few classes.
        images: how many images had a say.
    """

    form: Form
    known: tuple[Measured, ...]
    new: tuple[Measured, ...]
    images: int

    @property
    def options(self) -> dict[str, Any]:
        """The settings of `images+text` that are this choice."""
        form = self.form
        return ImagesWithTextConfig(
            known=form.known, share=form.share, ridge=form.ridge, map_new=form.map_new
        ).model_dump(exclude_defaults=True)

    @property
    def sentence(self) -> str:
        """The choice, the runner-up and their difference."""
        if not self.known:
            return (
                f"Chosen: {label(self.form)}, as always where no class has two images to learn "
                "from and to measure on."
            )
        return " ".join(
            [
                f"Chosen on {self.images} images by cross-validation: "
                + _compared(self.known, lambda one: one == replace(self.form, map_new=True), label)
            ]
            + (
                [
                    "Names without images are answered by "
                    + _compared(self.new, lambda one: one.map_new == self.form.map_new, text_label)
                ]
                if self.new
                else []
            )
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "method": ANSWER,
            "options": self.options,
            "sentence": self.sentence,
            "images": self.images,
            "known": [_row(one, label) for one in self.known],
            "new": [_row(one, text_label) for one in self.new],
        }


def label(form: Form) -> str:
    """What tells classes with images apart, in words."""
    text = text_label(Form(ridge=form.ridge))
    if form.known == "text":
        return text
    name = {"probe": "linear probe", "means": "class means"}[form.known]
    return f"{name} + {form.share:g} x {text}" if form.share else name


def text_label(form: Form) -> str:
    """What answers for names without images, in words."""
    mapped = form.ridge is not None and form.map_new
    return "text behind an image map" if mapped else "zero-shot text"


def _row(one: Measured, name: Callable[[Form], str]) -> dict[str, Any]:
    low, high = one.interval
    return {"name": name(one.form), "accuracy": one.accuracy, "low": low, "high": high}


def _compared(
    rows: Sequence[Measured], is_chosen: Callable[[Form], bool], name: Callable[[Form], str]
) -> str:
    """ "A, right on 80.0 % [70, 88]; next B, 78.0 % (difference +2.0 +- 1.5 points)." """
    taken = next(row for row in rows if is_chosen(row.form))
    low, high = taken.interval
    text = f"{name(taken.form)}, right on {taken.accuracy:.1f} % [{low:.0f}, {high:.0f}]"
    others = [row for row in rows if row is not taken]
    if not others:
        return f"{text}."
    second = max(others, key=lambda row: row.accuracy)
    gap, error = difference(taken, second)
    tie = ", a tie" if abs(gap) <= error else ""
    return (
        f"{text}; next {name(second.form)}, {second.accuracy:.1f} % (difference {gap:+.1f} +- "
        f"{error:.1f} points{tie})."
    )


def choose(clip: CLIP, shots: Split, template: str, seed: int, new_names: bool) -> Choice:
    """Choose among the candidates.

    Args:
        shots: the training images; nothing else is looked at.
        template: the hand-crafted prompt.
        seed: of the folds and of the halves.
        new_names: whether the answers are for names without images as well.

    Returns:
        The same for the same images, seed and threads, to the bit on a CPU.
    """
    images = mean_of_views(image_features(clip, shots)[:, None])
    labels = torch.tensor(shots.labels)
    text = Teacher(clip, [template], names=shots.classnames)(shots.classnames).cpu().double()
    whole = Fit(images, labels, text, clip.scale, ImagesWithTextConfig().penalty)
    new: tuple[Measured, ...] = ()
    known = _by_folds(whole, FORMS, shots.groups, seed)
    form = best(known).form if known else FORMS[0]
    if new_names and len(text) > 3:
        new = _by_plays(whole, seed)
        form = replace(form, map_new=best(new).form.map_new)
    return Choice(form, known, new, len(known[0].right) if known else 0)


def best(rows: Sequence[Measured]) -> Measured:
    """The first that is not told from the best by one standard error."""
    leader = max(rows, key=lambda row: row.accuracy)
    for row in rows:
        gap, error = difference(leader, row)
        if gap <= error:
            return row
    return leader


def difference(one: Measured, other: Measured) -> tuple[float, float]:
    """(mean, standard error) of the paired difference in accuracy, in points."""
    gaps = 100 * (one.right - other.right)
    error = gaps.std().item() / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
    return gaps.mean().item(), error


def _by_folds(
    whole: Fit, forms: Sequence[Form], groups: Sequence[str] | None, seed: int
) -> tuple[Measured, ...]:
    """Each form on images that were left out; () where none can be."""
    right = torch.zeros(len(forms), len(whole.labels), dtype=torch.float64)
    counts = torch.zeros(len(whole.labels), dtype=torch.float64)
    for repeat in range(REPEATS):
        fold_of = folds(whole.labels.tolist(), groups, seed + 1000 * repeat)
        for fold in range(FOLDS):
            report_progress("candidates measured", repeat * FOLDS + fold, REPEATS * FOLDS)
            left_out = fold_of == fold
            if not left_out.any():
                continue
            part = _part(whole, ~left_out)
            counts += left_out
            for row, form in enumerate(forms):
                answers = part.by_known(form, whole.images[left_out]).argmax(1)
                right[row, left_out] += (answers == whole.labels[left_out]).double()
    report_progress("candidates measured", REPEATS * FOLDS, REPEATS * FOLDS)
    tested = counts > 0
    if not tested.any():
        return ()
    return tuple(
        Measured(form, right[row, tested] / counts[tested]) for row, form in enumerate(forms)
    )


def _part(whole: Fit, rows: Tensor) -> Fit:
    return Fit(whole.images[rows], whole.labels[rows], whole.text, whole.scale, whole.penalty)


def folds(labels: Sequence[int], groups: Sequence[str] | None, seed: int) -> Tensor:
    """The fold [N] of each image, -1 for one that is always learned from.

    Of a class, images of one group stay together; a class of one group is always learned from.
    """
    rng = random.Random(seed)
    fold_of = torch.full((len(labels),), -1)
    for label in sorted(set(labels)):
        members: dict[Any, list[int]] = {}
        for row, own in enumerate(labels):
            if own == label:
                members.setdefault(row if groups is None else groups[row], []).append(row)
        names = sorted(members)
        rng.shuffle(names)
        first = rng.randrange(FOLDS)
        if len(names) < 2:
            continue
        for number, name in enumerate(names):
            fold_of[members[name]] = (first + number) % FOLDS
    return fold_of


def _by_plays(whole: Fit, seed: int) -> tuple[Measured, ...]:
    """Text with and without the map on images of classes that play the new ones; with it first, so
    that in a tie both kinds of names are compared behind one map."""
    ridge = FORMS[0].ridge
    ridges = {True: ridge, False: None}
    like = whole.images.new_zeros(len(whole.labels), len(whole.text))
    right = torch.zeros(len(ridges), len(whole.labels), dtype=torch.float64)
    counts = torch.zeros(len(whole.labels), dtype=torch.float64)
    for new in drawn_halves(like, seed)[:PLAYS]:
        known = ~new[whole.labels]
        numbers = (~new).long().cumsum(0) - 1
        part = Fit(
            whole.images[known],
            numbers[whole.labels[known]],
            whole.text[~new],
            whole.scale,
            whole.penalty,
        )
        truth = (new.long().cumsum(0) - 1)[whole.labels[~known]]
        counts += ~known
        for row, own in enumerate(ridges.values()):
            answers = part.by_text(own, whole.images[~known], whole.text[new]).argmax(1)
            right[row, ~known] += (answers == truth).double()
    tested = counts > 0
    return tuple(
        Measured(Form("text", 1.0, ridge, map_new), right[row, tested] / counts[tested])
        for row, map_new in enumerate(ridges)
    )
