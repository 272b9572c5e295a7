"""What was learned from somebody's own images, beside what else could be made of them.

Zero-shot, a linear probe and Tip-Adapter see the same shots; all are tested on the same held-out
images, which chose none of their settings. A prompt's merit are the names it was never shown; for
classes with images a classifier of images may be better, and this says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.data.dataset import Dataset, Split, View
from simprompt.data.folder import OwnImages
from simprompt.errors import SimpromptError
from simprompt.evaluate import (
    accuracy,
    class_accuracies,
    macro_accuracy,
    part_interval,
    sign_test,
)
from simprompt.files.spreadsheet import csv_line
from simprompt.prompt import Prompt, prepare, train_alone

OTHERS = ("zero-shot", "linear-probe", "tip-adapter")
SURE = 0.05  # p below which two classifiers differ
HIDDEN = 20.0  # points of accuracy between images and classes that imbalance is worth a word


@dataclass(frozen=True)
class Contender:
    """A classifier's answers to the held-out images."""

    name: str
    probabilities: Tensor


def others(clip: CLIP, shots: Split, template: str, seed: int, without: str) -> list[Prompt]:
    """The classifiers that stand beside a method, learned from the same shots with their own
    settings.

    Args:
        without: the method itself.
    """
    return [
        train_alone(prepare(clip, shots, name, template=template, seed=seed))
        for name in OTHERS
        if name != without
    ]


def table(contenders: Sequence[Contender], labels: Tensor) -> list[dict[str, Any]]:
    """Accuracy over images (micro) and classes (macro) of each, with its 95% interval."""
    rows = []
    for one in contenders:
        right = int((one.probabilities.argmax(-1) == labels).sum())
        low, high = part_interval(right, len(labels))
        rows.append(
            {
                "name": one.name,
                "accuracy": accuracy(one.probabilities, labels),
                "low": low,
                "high": high,
                "macro": macro_accuracy(one.probabilities, labels),
            }
        )
    return rows


def sentences(contenders: Sequence[Contender], labels: Tensor) -> list[str]:
    """Which to take, and why a prompt all the same; the prompt comes first among them."""
    if not len(labels):
        return ["No image was held out, so nothing was measured."]
    prompt, rest = contenders[0], contenders[1:]
    told = []
    for other in rest:
        if other.name == "zero-shot" and (p := _p(prompt, other, labels)) is not None:
            worse = accuracy(prompt.probabilities, labels) < accuracy(other.probabilities, labels)
            if worse:
                sure = "surely" if p < SURE else "maybe by chance"
                told.append(
                    f"The prompt is worse than zero-shot here ({sure}): these images taught it "
                    "nothing that helps; use zero-shot, or give it more images or fewer epochs."
                )
    best = max(contenders, key=lambda one: accuracy(one.probabilities, labels))
    if best is prompt:
        told.append(f"Take the prompt ({prompt.name}): it is best here, and it takes any name.")
    else:
        p = _p(best, prompt, labels)
        sure = "" if p is not None and p < SURE else ", though the difference may be chance"
        told.append(
            f"For these classes alone take {best.name}, which is right more often{sure}. The "
            "prompt's merit are names without images, which "
            + ("zero-shot takes as well." if best.name == "zero-shot" else
               f"{best.name} cannot answer.")
        )  # fmt: skip
    return told


def _p(one: Contender, other: Contender, labels: Tensor) -> float | None:
    a = one.probabilities.argmax(-1) == labels
    b = other.probabilities.argmax(-1) == labels
    return sign_test(int((a & ~b).sum()), int((b & ~a).sum()))


def by_class(probabilities: Tensor, split: Split) -> list[dict[str, Any]]:
    """Images and accuracy of each class of a split."""
    labels = torch.tensor(split.labels)
    return [
        {"name": name, "images": count, "accuracy": own if count else None}
        for name, (own, count) in zip(
            split.classnames, class_accuracies(probabilities, labels), strict=False
        )
    ]


def imbalance(rows: Sequence[dict[str, Any]], micro: float, macro: float) -> str | None:
    """Where a rare class fails behind a good accuracy over images."""
    counted = [row for row in rows if row["images"]]
    if len(counted) < 2:
        return None
    worst = min(counted, key=lambda row: row["accuracy"])
    most = max(row["images"] for row in counted)
    rare = worst["images"] * 4 <= most
    if rare and worst["accuracy"] < micro - HIDDEN:
        return (
            f"{micro:.1f} % of the images are right, but only {worst['accuracy']:.1f} % of "
            f"{worst['name']!r} ({worst['images']} images, where another class has {most}). Over "
            f"classes, each counted alike, it is {macro:.1f} % (macro)."
        )
    return None


def wrong(probabilities: Tensor, split: Split) -> list[dict[str, Any]]:
    """Every wrong answer, the surest first: path, truth, answer, probability."""
    confidence, answers = probabilities.max(-1)
    rows = [
        {
            "path": split.items[i],
            "truth": split.classnames[split.labels[i]],
            "answer": split.classnames[int(answers[i])],
            "probability": round(confidence[i].item(), 4),
        }
        for i in range(len(split))
        if int(answers[i]) != split.labels[i]
    ]
    return sorted(rows, key=lambda row: -row["probability"])


def confusions(rows: Sequence[dict[str, Any]], most: int = 10) -> list[dict[str, Any]]:
    """Pairs that are taken for one another, the commonest first, with example files."""
    counts = Counter((row["truth"], row["answer"]) for row in rows)
    return [
        {
            "truth": truth,
            "answer": answer,
            "count": count,
            "examples": [
                row["path"] for row in rows if (row["truth"], row["answer"]) == (truth, answer)
            ][:3],
        }
        for (truth, answer), count in counts.most_common(most)
    ]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """`wrong` as a table."""
    columns = ["path", "truth", "answer", "probability"]
    lines = [csv_line(columns), *(csv_line([row[name] for name in columns]) for row in rows)]
    return "".join(lines)


def measured(
    prompt: Prompt, beside: list[Prompt], known: View, own: OwnImages, unseen: Dataset | None
) -> dict[str, Any]:
    """What the held-out images say of the prompt and of what stands beside it, as JSON values.

    Args:
        beside: see `others`.
        known: the classes with images.
        unseen: images of new classes, to be tested on; None: there are none.

    Raises:
        SimpromptError: `unseen` has images of known classes.
    """
    test = known.test
    labels = torch.tensor(test.labels, dtype=torch.long)
    everyone = [prompt, *beside]
    answers = [Contender(_label(one), one.probabilities(test).float().cpu()) for one in everyone]
    mine = answers[0].probabilities
    rows = by_class(mine, test)
    mistakes = wrong(mine, test)
    rows_of_all = table(answers, labels) if len(test) else []
    correct = {"among your classes": {row["name"]: row["accuracy"] for row in rows_of_all}}
    told = sentences(answers, labels)
    if rows_of_all:
        first = rows_of_all[0]
        if hidden := imbalance(rows, first["accuracy"], first["macro"]):
            told.append(hidden)
    open_ones = [one for one in everyone if one.learner.new_classes]
    if own.new_classes and len(test):
        correct["with the new classes added"] = _correct(open_ones, test, own.dataset.classnames)
    if unseen is not None:
        correct |= _on_new(open_ones, known, own, unseen)
    return {
        "accuracy": correct if len(test) else {},
        "contenders": rows_of_all,
        "verdict": told,
        "by_class": rows,
        "confusions": confusions(mistakes),
        "wrong": mistakes,
    }


def _label(prompt: Prompt) -> str:
    return prompt.card["method"] + ("+sar" if prompt.card.get("sar") else "")


def _correct(prompts: list[Prompt], split: Split, names: Sequence[str]) -> dict[str, float]:
    """Percent correct of a split's images among `names`, the split's classes first in them."""
    labels = torch.tensor([names.index(split.classnames[label]) for label in split.labels])
    return {_label(one): accuracy(one.probabilities(split, names).cpu(), labels) for one in prompts}


def _on_new(
    prompts: list[Prompt], known: View, own: OwnImages, unseen: Dataset
) -> dict[str, dict[str, float]]:
    """Percent correct of images of new classes, among the new ones and among all."""
    if both := sorted(set(unseen.classnames) & set(known.classnames)):
        raise SimpromptError(
            f"--new-images has images of {', '.join(both)}, which the prompt was learned on: give "
            "images of new classes alone."
        )
    parts = [part for part in (unseen.train, unseen.val, unseen.test) if part is not None]
    images = Split(
        tuple(item for part in parts for item in part.items),
        tuple(label for part in parts for label in part.labels),
        unseen.classnames, unseen.test.loader, origin=unseen.all.test.origin,
    )  # fmt: skip
    new = list(dict.fromkeys([*unseen.classnames, *own.new_classes]))
    return {
        f"on {len(images)} images of new classes, among the new": _correct(prompts, images, new),
        f"on {len(images)} images of new classes, among all": _correct(
            prompts, images, [*new, *known.classnames]
        ),
    }
