"""Splits without a published split file: CoOp's rules, and lists of the datasets' authors."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simprompt.data.specs import Rows, Spec, package_json
from simprompt.data.split import DatasetError
from simprompt.utils.files.regular import TABLE, is_file, read_text

RULE_SEED = 1
"""Seed of the split that stands in where the published split file is missing."""


def _files(folder: Path) -> list[str]:
    return sorted(f.name for f in os.scandir(folder) if not f.name.startswith("."))


def _shares(by_label: dict[int, list[str]]) -> tuple[Rows, Rows, Rows]:
    """Half of each class to train, a fifth to val, the rest to test, shuffled."""
    rng = random.Random(RULE_SEED)
    train, val, test = Rows(), Rows(), Rows()
    for label, items in by_label.items():
        items = list(items)
        rng.shuffle(items)
        a = round(len(items) * 0.5)
        b = a + round(len(items) * 0.2)
        for split_name, chosen in ((train, items[:a]), (val, items[a:b]), (test, items[b:])):
            split_name += [(item, label) for item in chosen]
    return train, val, test


def _fifth(trainval: Rows) -> tuple[Rows, Rows]:
    """A fifth of each class of an official training list to val, shuffled."""
    rng = random.Random(RULE_SEED)
    by_label: dict[int, list[str]] = {}
    for item, label in trainval:
        by_label.setdefault(label, []).append(item)
    train, val = Rows(), Rows()
    for label, items in by_label.items():
        rng.shuffle(items)
        n = round(len(items) * 0.2)
        val += [(item, label) for item in items[:n]]
        train += [(item, label) for item in items[n:]]
    return train, val


_LEFT_OUT = {"BACKGROUND_Google", "Faces_easy"}  # of Caltech101


def _by_folders(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    classes = [name for name in _files(images) if name not in _LEFT_OUT]
    if len(classes) != spec.classes:
        raise DatasetError(
            f"{images} has {len(classes)} class folders, {spec.name} has {spec.classes}. Without "
            f"{spec.split} all of them are needed."
        )
    return _shares({y: [f"{c}/{f}" for f in _files(images / c)] for y, c in enumerate(classes)})


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path, TABLE).splitlines() if line.strip()]


def _pets(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    def rows(name: str) -> Rows:
        fields = (line.split() for line in _lines(folder / "annotations" / name))
        return [
            (f"{fields_of_line[0]}.jpg", int(fields_of_line[1]) - 1) for fields_of_line in fields
        ]

    return *_fifth(rows("trainval.txt")), rows("test.txt")


def _mat(path: Path) -> dict[str, Any]:
    if not is_file(path):
        raise FileNotFoundError(2, "missing", str(path))
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DatasetError(
            f"{path} is a MATLAB file, which needs scipy (`pip install scipy`). With the split "
            "file in place it is not needed."
        ) from None
    return dict(loadmat(path))


def _cars(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    def rows(file: str, where: str) -> Rows:
        table = _mat(folder / file)["annotations"][0]
        return [(f"{where}/{r['fname'][0]}", int(r["class"][0, 0]) - 1) for r in table]

    trainval = rows("devkit/cars_train_annos.mat", "cars_train")
    return *_fifth(trainval), rows("cars_test_annos_withlabels.mat", "cars_test")


def _flowers(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    by_label: dict[int, list[str]] = {}
    for number, label in enumerate(_mat(folder / "imagelabels.mat")["labels"][0]):
        by_label.setdefault(int(label) - 1, []).append(f"image_{number + 1:05d}.jpg")
    return _shares(by_label)


def _aircraft(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    label_of = {name: label for label, name in enumerate(_lines(folder / "variants.txt"))}

    def rows(part: str) -> Rows:
        pairs = (line.split(" ", 1) for line in _lines(folder / f"images_variant_{part}.txt"))
        return [(f"{image}.jpg", label_of[name]) for image, name in pairs]

    return rows("train"), rows("val"), rows("test")


def _sun397(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    label_of = {name: label for label, name in enumerate(_lines(folder / "ClassName.txt"))}

    def rows(name: str) -> Rows:
        lines = _lines(folder / name)
        return [(line.lstrip("/"), label_of[line.rpartition("/")[0]]) for line in lines]

    return *_fifth(rows("Training_01.txt")), rows("Testing_01.txt")


def _ucf101(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    lists = folder / "ucfTrainTestlist"
    pairs = (line.split() for line in _lines(lists / "classInd.txt"))
    label_of = {name: int(number) - 1 for number, name in pairs}

    def rows(name: str) -> Rows:
        table = Rows()
        for line in _lines(lists / name):
            action, video = line.split()[0].split("/")
            words = "_".join(re.findall("[A-Z][^A-Z]*", action))
            table.append((f"{words}/{video.removesuffix('.avi')}.jpg", label_of[action]))
        return table

    return *_fifth(rows("trainlist01.txt")), rows("testlist01.txt")


def _list(images: Path, folders: Iterable[str], prefix: str = "") -> Rows:
    return [
        (f"{prefix}{folder}/{file}", label)
        for label, folder in enumerate(folders)
        for file in _files(images / folder)
    ]


def _imagenet(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    wnids = package_json("classnames/imagenet.json")["wnids"]
    return (
        _list(images / "train", wnids, "train/"),
        Rows(),  # CoOp validates on the test images; nothing here selects on them
        _list(images / "val", wnids, "val/"),
    )


def _wnids(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    wordnet_ids = set(package_json("classnames/imagenet.json")["wnids"])
    present = [name for name in _files(images) if name in wordnet_ids]
    if len(present) != spec.classes:
        raise DatasetError(
            f"{images} has {len(present)} of the {spec.classes} class folders of {spec.name} (they "
            "are named by WordNet ids such as n01440764)."
        )
    return Rows(), Rows(), _list(images, present)


def _numbered(spec: Spec, folder: Path, images: Path) -> tuple[Rows, Rows, Rows]:
    return Rows(), Rows(), _list(images, [str(label) for label in range(spec.classes)])
