"""Images that are there twice, by the bytes of their files, and files that are one picture.

A copy of a training image in the test set is an answer that was seen; a copy under another class is
a label that is wrong one way or the other. Copies are told by SHA-256, so an image that was saved
again, cut or scaled is not found.

Different files that are the same picture once they are read are reported, and treated as different:
they are mostly the sign that something was lost on the way (ink on a layer that was not exported,
pictures that failed to render), and no method can learn from them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simprompt.data.images import THUMBNAIL
from simprompt.data.own_images.rows import Row


@dataclass(frozen=True)
class Twins:
    """What is there twice.

    Attributes:
        tested: (item to test on, its copy among those to learn from).
        contradictory: (item, class, its copy, that one's class).
        pictures: groups of items whose files differ and which are the same picture after reading,
            the largest group first.
        images: how many images there are.
    """

    tested: tuple[tuple[str, str], ...] = ()
    contradictory: tuple[tuple[str, str, str, str], ...] = ()
    pictures: tuple[tuple[str, ...], ...] = ()
    images: int = 0

    def sentences(self) -> list[str]:
        """What the user is told."""
        told = []
        if self.tested:
            images = "image is" if len(self.tested) == 1 else "images are"
            told.append(
                f"{len(self.tested)} test {images} among the training images as well, so the "
                f"accuracy is too high: {self.tested[0][0]} is {self.tested[0][1]}, for one."
            )
        if self.contradictory:
            item, label, other_item, its = self.contradictory[0]
            count = len(self.contradictory)
            told.append(
                f"{count} {'image lies' if count == 1 else 'images lie'} under two classes: {item} "
                f"({label}) is {other_item} ({its}), for one."
            )
        if self.pictures:
            group = self.pictures[0]
            extra_groups = len(self.pictures) - 1
            others_text = f" There are {extra_groups} more such groups." if extra_groups else ""
            told.append(
                f"{len(group)} of {self.images} images are identical after reading, though their "
                f"files differ ({group[0]} and {group[1]}, for example): scaled to "
                f"{THUMBNAIL} x {THUMBNAIL} pixels they are the same picture, so no method can "
                f"tell them apart.{others_text} Open two of them in a viewer, and export again "
                "what was "
                "lost or remove the copies; `simprompt check` lists how each file is read."
            )
        return told


def find(
    parts: Mapping[str, Sequence[Row]],
    digests: Mapping[str, str],
    pictures: Mapping[str, str] | None = None,
) -> Twins:
    """Compare all images whose digest is known.

    Args:
        parts: rows by split; those of ``train`` are learned from.
        digests: SHA-256 of the bytes by item.
        pictures: digests of what the bytes show, by item; see `images.check_image`.
    """
    trained_on: dict[str, str] = {}
    first_rows: dict[str, Row] = {}
    contradictory = []
    for split_name in ("train", "val", "test"):
        for row in parts[split_name]:
            digest = digests.get(row.item)
            if digest is None:
                continue
            if split_name == "train":
                trained_on.setdefault(digest, row.item)
            twin = first_rows.setdefault(digest, row)
            if twin.name != row.name:
                contradictory.append((row.item, row.name, twin.item, twin.name))
    tested = [
        (row.item, trained_on[digest])
        for row in parts["test"]
        if (digest := digests.get(row.item, "")) in trained_on
    ]
    items = [row.item for split_name in ("train", "val", "test") for row in parts[split_name]]
    return Twins(
        tuple(tested),
        tuple(contradictory),
        same_picture(items, digests, pictures or {}),
        len(set(items)),
    )


def same_picture(
    items: Iterable[str], digests: Mapping[str, str], pictures: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """Groups of items that are one picture of two or more files of different bytes, the largest
    first; see `Twins`."""
    groups: dict[str, list[str]] = {}
    for item in dict.fromkeys(items):
        if picture := pictures.get(item):
            groups.setdefault(picture, []).append(item)
    several = [
        tuple(group)
        for group in groups.values()
        if len({digests.get(item, item) for item in group}) > 1
    ]
    return tuple(sorted(several, key=len, reverse=True))


def hold_out(
    rows: Sequence[Row],
    label_of: Mapping[str, int],
    digests: Mapping[str, str],
    seed: int,
    part: float = 0.25,
) -> tuple[list[Row], list[Row]]:
    """(train, test): this part of each class's images to test, one at least if there are two, and
    none of any class for 0.

    Copies count as one image and stay together. An image that lies under two classes is never
    tested on, for one of its labels is wrong. So every class keeps an image to learn from.

    Args:
        rows: all labelled images.
        label_of: the label of each row's class name.
        digests: by item; an item without one is an image of its own.
    """
    rng = random.Random(seed)
    classes: dict[int, dict[str, Row]] = {}  # of each class, one row an image
    labels: dict[str, set[int]] = {}
    for row in rows:
        image, label = digests.get(row.item, row.item), label_of[row.name]
        classes.setdefault(label, {}).setdefault(image, row)
        labels.setdefault(image, set()).add(label)
    aside: set[str] = set()
    for label in sorted(classes):
        images = list(classes[label])
        single_label = [image for image in images if len(labels[image]) == 1]
        target = int(part * len(images)) or (1 if part and len(images) > 1 else 0)
        target = min(target, len(images) - 1)
        aside.update(rng.sample(single_label, min(target, len(single_label))))
    test = [row for row in rows if digests.get(row.item, row.item) in aside]
    return [row for row in rows if digests.get(row.item, row.item) not in aside], test
