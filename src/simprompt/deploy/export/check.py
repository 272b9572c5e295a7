"""What 8-bit weights change, measured on images: accuracy, or how often the answers agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simprompt.clip.same_text import match_names
from simprompt.data.images import FileLoader
from simprompt.data.names import clean_name
from simprompt.data.own_images import folder
from simprompt.data.own_images.trees import images_below
from simprompt.deploy.export.runtime.predict import BATCH, Predictor
from simprompt.errors import SimpromptError
from simprompt.utils.files.regular import expanded


@dataclass(frozen=True)
class Images:
    """Images to compare two towers on.

    Attributes:
        labels: the number of each image's class among the exported names; None without.
        no_labels: why there are none.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    no_labels: str = ""


def images(source: str | Path, names: Sequence[str]) -> Images:
    """The images of a folder of class folders or a table, as `learn` reads them, or of a folder of
    files.

    Raises:
        SimpromptError: no readable images there.
    """
    path = expanded(source)
    if path.is_dir() and not any(entry.is_dir() for entry in path.iterdir()):
        files, _ = images_below(path)
        if not files:
            raise SimpromptError(f"{source} holds no images to compare the towers on.")
        return Images(tuple(path / file for file in files), None, "they lie in no class folders.")
    dataset = folder.load(source).dataset
    labels, paths = [], []
    for split in (dataset.train, dataset.val, dataset.test):
        if split is not None:
            if not isinstance(split.loader, FileLoader):
                raise SimpromptError(
                    f"--int8-eval takes a folder of images or a table, not {source}."
                )
            paths += [split.loader.path(item) for item in split.items]
            labels += [dataset.classnames[label] for label in split.labels]
    classes = sorted(set(labels))
    matches = match_names(classes, [clean_name(name) for name in names])
    number = dict(zip(classes, matches, strict=True))
    numbers = [number[label] for label in labels]
    if None in numbers:
        unmatched = labels[numbers.index(None)]
        return Images(tuple(paths), None, f"{unmatched!r} for one is no exported class.")
    return Images(tuple(paths), tuple(n for n in numbers if n is not None))


def compare(exported: Path, given: Images) -> dict[str, Any]:
    """Answers of the exported towers, float and 8 bits, on the same images, each on one thread.

    Returns:
        images; agreement, percent of images with the same likeliest class; largest_difference of a
        probability; ms_per_image of each tower, reading not counted; the accuracy of each, in
        percent, or why there is none.
    """
    plain, small = (Predictor(exported, int8=int8, threads=1) for int8 in (False, True))
    answers: dict[str, list[np.ndarray]] = {"float": [], "int8": []}
    seconds = dict.fromkeys(answers, 0.0)
    for start in range(0, len(given.paths), BATCH):
        pixels = plain.pixels(given.paths[start : start + BATCH])
        for name, predictor in (("float", plain), ("int8", small)):
            began = time.perf_counter()
            answers[name].append(predictor.answer(pixels))
            seconds[name] += time.perf_counter() - began
    rows_of = {name: np.concatenate(chunks) for name, chunks in answers.items()}
    answers_of = {name: rows.argmax(axis=1) for name, rows in rows_of.items()}
    n = len(given.paths)
    result: dict[str, Any] = {
        "images": n,
        "agreement": 100.0 * float((answers_of["float"] == answers_of["int8"]).mean()),
        "largest_difference": float(np.abs(rows_of["float"] - rows_of["int8"]).max()),
        "ms_per_image": {name: 1000 * spent / n for name, spent in seconds.items()},
    }
    if given.labels is None:
        result["no_accuracy"] = given.no_labels
    else:
        right = np.array(given.labels)
        result["accuracy"] = {k: 100.0 * float((b == right).mean()) for k, b in answers_of.items()}
    return result
