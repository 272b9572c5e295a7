"""What was learned from somebody's own images, beside what else could be made of them.

Zero-shot, class means, a linear probe and Tip-Adapter see the same shots; all are tested on the
same held-out images, which chose none of their settings. For classes with images a classifier of
images may be better than a prompt, and this says so. What it says of names without images follows
from what the method can do (`PromptLearner.new_classes`) and from the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simprompt.clip.model import CLIP
from simprompt.clip.same_text import match_names, new_names
from simprompt.data.dataset import Dataset, View
from simprompt.data.own_images.folder import OwnImages
from simprompt.data.split import Split
from simprompt.errors import SimpromptError
from simprompt.metrics import accuracy, class_accuracies, macro_accuracy
from simprompt.prompt.learn import prepare, train_alone
from simprompt.prompt.prompt import Prompt
from simprompt.utils.files.csv import csv_line
from simprompt.utils.statistics import part_interval, sign_test

OTHERS = ("zero-shot", "class-means", "linear-probe", "tip-adapter")
SURE = 0.05  # p below which two classifiers differ
RARE = 4  # a class is rare where another has so many times its images
LOSS = 5.0  # points of accuracy that new names as candidates may cost without a word
HIDDEN = 20.0  # points of accuracy between images and classes that imbalance is worth a word


@dataclass(frozen=True)
class Baseline:
    """A classifier's answers to the held-out images.

    Args:
        any_name: whether it takes names that it was not learned on.
    """

    name: str
    probabilities: Tensor
    any_name: bool = True


def train_baselines(
    clip: CLIP, shots: Split, template: str, seed: int, without: str
) -> tuple[list[Prompt], list[str]]:
    """The classifiers that stand beside a method, learned from the same shots with their own
    settings, and a sentence on each that could not be learned.

    Args:
        without: the method itself.
    """
    prompts, failed = [], []
    for name in OTHERS:
        if name == without:
            continue
        try:
            prompts.append(train_alone(prepare(clip, shots, name, template=template, seed=seed)))
        except SimpromptError as error:  # the prompt is learned; it can do without this one
            failed.append(f"{name} could not be learned beside it: {error}")
    return prompts, failed


def table(contenders: Sequence[Baseline], labels: Tensor) -> list[dict[str, Any]]:
    """Accuracy over images (micro) and classes (macro) of each, with its 95% interval."""
    rows = []
    for contender in contenders:
        right = int((contender.probabilities.argmax(-1) == labels).sum())
        low, high = part_interval(right, len(labels))
        rows.append(
            {
                "name": contender.name,
                "accuracy": accuracy(contender.probabilities, labels),
                "low": low,
                "high": high,
                "macro": macro_accuracy(contender.probabilities, labels),
            }
        )
    return rows


def sentences(
    contenders: Sequence[Baseline], labels: Tensor, new_names: Sequence[str] = ()
) -> list[str]:
    """Which to take; the prompt comes first among the contenders.

    That one is better is only said for sure where McNemar's exact test on the same images says so.

    Args:
        new_names: what the figures say against the prompt's answers for names without images, see
            `against_new_names`; then these answers are no reason to take it.
    """
    if not len(labels):
        return ["No image was held out, so nothing was measured."]
    prompt, rivals = contenders[0], contenders[1:]
    sentences_list = []
    merit = prompt.any_name and not new_names
    if zero := next((one for one in rivals if one.name == "zero-shot"), None):
        nothing = _names_say_nothing(zero, labels)
        merit = merit and not nothing
        sentences_list += nothing + _beside_zero_shot(prompt, zero, labels)
    leader = max(contenders, key=lambda one: accuracy(one.probabilities, labels))
    if leader is prompt:
        sentences_list.append(_take_the_prompt(prompt, rivals, labels, merit))
    else:
        sentences_list.append(_take_another(leader, prompt, labels, merit))
    return [*sentences_list, *new_names]


def surely_better(contenders: Sequence[Baseline], labels: Tensor) -> str | None:
    """The method that is right more often than the prompt, the first of them, beyond chance."""
    if not len(labels):
        return None
    leader = max(contenders, key=lambda one: accuracy(one.probabilities, labels))
    return leader.name if _p(leader, contenders[0], labels) < SURE else None


def _take_another(best: Baseline, prompt: Baseline, labels: Tensor, merit: bool) -> str:
    rates = [accuracy(contender.probabilities, labels) for contender in (best, prompt)]
    chance = "" if _p(best, prompt, labels) < SURE else ", though the difference may be chance"
    text = (
        f"For these classes alone take {best.name}, which is right more often "
        f"({rates[0]:.1f} % against {rates[1]:.1f} %){chance}."
    )
    if not merit:
        return text
    if best.any_name:
        return f"{text} It takes names without images as well."
    return f"{text} Keep the prompt for names without images, which {best.name} cannot answer."


def _names_say_nothing(zero: Baseline, labels: Tensor) -> list[str]:
    """That the hand-crafted prompt may as well guess, where that is so."""
    right = int((zero.probabilities.argmax(-1) == labels).sum())
    low, _ = part_interval(right, len(labels))
    chance = 100 / zero.probabilities.shape[-1]
    if low > chance:
        return []
    return [
        f"Zero-shot is right on {100 * right / len(labels):.1f} % of these images, and guessing "
        f"on {chance:.1f} %: these names mean little to this model. Answers for names without "
        "images are then worth little, too."
    ]


def _beside_zero_shot(prompt: Baseline, zero: Baseline, labels: Tensor) -> list[str]:
    """That learning has done harm, where it has."""
    lost_points = accuracy(zero.probabilities, labels) - accuracy(prompt.probabilities, labels)
    if lost_points <= 0:
        return []
    start = f"The prompt is {lost_points:.1f} points worse than zero-shot here"
    if _p(prompt, zero, labels) < SURE:
        return [
            f"{start}: learning did harm. Use zero-shot, or learn from more images or for fewer "
            "epochs."
        ]
    return [f"{start}, which on {len(labels)} images may be chance: learning did not help."]


def _take_the_prompt(
    prompt: Baseline, rest: Sequence[Baseline], labels: Tensor, merit: bool
) -> str:
    close = [rival.name for rival in rest if _p(prompt, rival, labels) >= SURE]
    addition = ", and it takes names without images as well" if merit else ""
    if not close:
        return f"Take the prompt ({prompt.name}): it is best here{addition}."
    names = " and ".join([", ".join(close[:-1])] * (len(close) > 1) + close[-1:])
    return (
        f"Take the prompt ({prompt.name}): none is right more often here{addition}. "
        f"On {len(labels)} images {names} may be as good."
    )


def against_new_names(
    alone: Baseline,
    with_new: Baseline | None,
    labels: Tensor,
    labels_with_new: Tensor,
    on_new: Sequence[tuple[str, Sequence[Baseline], Tensor]] = (),
) -> list[str]:
    """What the figures say against a prompt's answers for names without images.

    Args:
        alone: the prompt's answers to the held-out images among the classes with images.
        with_new: and with the new names as candidates; None where there are none.
        labels, labels_with_new: of these images, in the two lists of names.
        on_new: (candidates, answers of the prompt and of others, labels) of new classes' images.
    """
    sentences_list = []
    if with_new is not None and len(labels):
        before = alone.probabilities.argmax(-1) == labels
        after = with_new.probabilities.argmax(-1) == labels_with_new
        rates = [100 * right.double().mean().item() for right in (before, after)]
        p = sign_test(int((before & ~after).sum()), int((after & ~before).sum()))
        if rates[0] - rates[1] >= LOSS and p < SURE:
            sentences_list.append(
                f"With the new names as candidates the prompt is right on {rates[1]:.1f} % of "
                f"these images instead of {rates[0]:.1f} %: it takes images of your classes for "
                "new ones."
            )
    for candidates, answers, truth in on_new:
        prompt, zero = answers[0], next((x for x in answers[1:] if x.name == "zero-shot"), None)
        if zero is None or not len(truth):
            continue
        rates = [accuracy(contender.probabilities, truth) for contender in (prompt, zero)]
        if rates[0] < rates[1]:
            is_sure = _p(prompt, zero, truth) < SURE
            sentences_list.append(
                f"On images of new classes, among {candidates}, zero-shot is right more often "
                f"({rates[1]:.1f} % against {rates[0]:.1f} %)"
                + (
                    ": use zero-shot for names without images."
                    if is_sure
                    else ", though the difference may be chance."
                )
            )
    return sentences_list


def _p(one: Baseline, other: Baseline, labels: Tensor) -> float:
    a = one.probabilities.argmax(-1) == labels
    b = other.probabilities.argmax(-1) == labels
    return sign_test(int((a & ~b).sum()), int((b & ~a).sum()))


def by_class(probabilities: Tensor, split: Split) -> list[dict[str, Any]]:
    """Images and accuracy of each class of a split."""
    labels = torch.tensor(split.labels)
    return [
        {"name": name, "images": count, "accuracy": percent if count else None}
        for name, (percent, count) in zip(
            split.classnames, class_accuracies(probabilities, labels), strict=False
        )
    ]


def imbalance(rows: Sequence[dict[str, Any]], micro: float, macro: float) -> str | None:
    """Where a rare class fails behind a good accuracy over images."""
    most_images = max((row["images"] for row in rows), default=0)
    rare = [row for row in rows if 0 < RARE * row["images"] <= most_images]
    if not rare:
        return None
    worst = min(rare, key=lambda row: row["accuracy"])
    if worst["accuracy"] >= micro - HIDDEN:
        return None
    return (
        f"{micro:.1f} % of the images are right, but only {worst['accuracy']:.1f} % of "
        f"{worst['name']!r} ({worst['images']} {'image' if worst['images'] == 1 else 'images'}, "
        f"where another class has {most_images}). Over classes, each counted alike, it is "
        f"{macro:.1f} % (macro)."
    )


def wrong(probabilities: Tensor, split: Split, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every wrong answer among `names`, the surest first: path, truth, answer, probability."""
    confidence, answers = probabilities.max(-1)
    truth = match_names(split.classnames, names)
    rows = [
        {
            "path": split.items[i],
            "truth": split.classnames[split.labels[i]],
            "answer": names[int(answers[i])],
            "probability": round(confidence[i].item(), 4),
        }
        for i in range(len(split))
        if int(answers[i]) != truth[split.labels[i]]
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


def as_csv(comparison: Mapping[str, Any]) -> str:
    """All wrong answers of `compare` as a table."""
    columns = ["path", "truth", "answer", "probability"]
    lines = [csv_line([*columns, "among"])]
    for key, among in (("wrong", "your classes"), ("wrong_with_new", "with the new classes")):
        lines += [csv_line([*(row[name] for name in columns), among]) for row in comparison[key]]
    return "".join(lines)


def compare(
    prompt: Prompt, beside: list[Prompt], known: View, own: OwnImages, unseen: OwnImages | None
) -> dict[str, Any]:
    """What the held-out images say of the prompt and of what stands beside it, as JSON values.

    Args:
        beside: see `train_baselines`.
        known: the classes with images.
        unseen: images of new classes, to be tested on, see `check_unseen`; None: there are none.
    """
    test = known.test
    labels = torch.tensor(test.labels, dtype=torch.long)
    everyone = [prompt, *beside]
    answers = _answers(everyone, test)
    mine = answers[0].probabilities
    rows = by_class(mine, test)
    mistakes = wrong(mine, test, test.classnames)
    beyond: list[dict[str, Any]] = []
    rows_of_all = table(answers, labels) if len(test) else []
    correct: dict[str, dict[str, float]] = {}
    if rows_of_all:
        correct["among your classes"] = {row["name"]: row["accuracy"] for row in rows_of_all}
    predicted = rows_of_all
    open_ones = [classifier for classifier in everyone if classifier.learner.new_classes]
    among_all: list[Baseline] = []
    everything, labels_of_all = own.dataset.classnames, labels
    if own.new_classes and len(test):
        if prompt.learner.new_classes:
            everything = prompt.classes  # as `predict` takes them
        among_all = _answers(open_ones, test, everything)
        labels_of_all = _labels_among(test, everything)
        correct["with the new classes added"] = _correct(among_all, labels_of_all)
        if prompt.learner.new_classes:
            predicted = table(among_all, labels_of_all)
            beyond = wrong(among_all[0].probabilities, test, everything)
    on_new = [] if unseen is None else _on_new(open_ones, known, own, unseen.dataset)
    for candidates, answers_on_new, truth in on_new:
        title = f"on {len(truth)} images of new classes, among {candidates}"
        correct[title] = _correct(answers_on_new, truth)
    new_names: list[str] = []
    if prompt.learner.new_classes:
        with_new = among_all[0] if among_all else None
        new_names = against_new_names(answers[0], with_new, labels, labels_of_all, on_new)
    sentences_list = sentences(answers, labels, new_names)
    if rows_of_all:
        first_row = rows_of_all[0]
        if hidden := imbalance(rows, first_row["accuracy"], first_row["macro"]):
            sentences_list.append(hidden)
    return {
        "accuracy": correct,
        "contenders": rows_of_all,
        "predicted": predicted,
        "verdict": sentences_list,
        "take": surely_better(answers, labels),
        "by_class": rows,
        "confusions": confusions(mistakes),
        "wrong": mistakes,
        "wrong_with_new": beyond,
    }


def _label(prompt: Prompt) -> str:
    method: str = prompt.card["method"]
    return method + ("+sar" if prompt.card.get("sar") else "")


def _answers(
    prompts: Sequence[Prompt], split: Split, names: Sequence[str] | None = None
) -> list[Baseline]:
    """What each says of a split's images among `names`; None: the split's own."""
    return [
        Baseline(
            _label(prompt), prompt.probabilities(split, names).float(), prompt.learner.new_classes
        )
        for prompt in prompts
    ]


def _labels_among(split: Split, names: Sequence[str]) -> Tensor:
    """The labels [N] of a split's images in a list of names."""
    indices = match_names(split.classnames, names)
    return torch.tensor([indices[label] for label in split.labels])


def _correct(answers: Sequence[Baseline], labels: Tensor) -> dict[str, float]:
    """Percent of images that are right."""
    return {answer.name: accuracy(answer.probabilities, labels) for answer in answers}


def check_unseen(unseen: OwnImages, own: OwnImages) -> None:
    """Whether images of new classes are of new classes.

    Raises:
        SimpromptError: they are of a class that is learned from, or are learned from themselves.
    """
    data = own.dataset
    known_names = [data.classnames[label] for label in own.known]
    new_names_list = new_names(unseen.dataset.classnames, known_names)
    if both := [name for name in unseen.dataset.classnames if name not in new_names_list]:
        raise SimpromptError(
            f"--new-test-images has images of {', '.join(both)}, which the prompt is learned on: "
            "give images of new classes alone."
        )
    trained_items = {own.digests.get(item): item for item in data.train.items}
    trained_items.pop(None, None)
    if copies := [item for item, digest in unseen.digests.items() if digest in trained_items]:
        raise SimpromptError(
            f"--new-test-images has {len(copies)} images that the prompt is learned on: "
            f"{copies[0]} is {trained_items[unseen.digests[copies[0]]]}, for one. Give other "
            "images."
        )


def _on_new(
    prompts: list[Prompt], known: View, own: OwnImages, unseen: Dataset
) -> list[tuple[str, list[Baseline], Tensor]]:
    """Answers to images of new classes, among the new names and among all: (which candidates,
    the answers, the labels)."""
    images = unseen.all.images
    new_candidates = [*unseen.classnames, *new_names(own.new_classes, unseen.classnames)]
    lists = {"the new": new_candidates, "all": [*new_candidates, *known.classnames]}
    return [
        (candidates, _answers(prompts, images, names), _labels_among(images, names))
        for candidates, names in lists.items()
    ]
