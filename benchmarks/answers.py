"""`--method auto` beside every method that it could have been, in a user's three questions.

    python -m benchmarks.answers --dataset icons --shots 4,8,16 --seeds 1,2,3 --csv answers.csv
    python -m benchmarks.answers --dataset TASKS/animals --model photos --methods all

The questions: *known*, images of the base classes among these; *new*, images of the new classes
among those; *all*, both kinds among all names, the mean of the two accuracies. `auto` chooses for
the first question without new names and for the others with them, as `simprompt learn` does
without and with `--new-classes`. The names, the images and the accuracy of new classes are looked
at by nothing here but the test.

Images of a dataset that are not on this disk are left out. Beside it stands scikit-learn's
LogisticRegression on the same features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import simprompt
from simprompt.clip.model import CLIP
from simprompt.data.catalogue import listed
from simprompt.data.dataset import Dataset
from simprompt.data.images import FileLoader
from simprompt.data.split import Split
from simprompt.experiments.protocols.common import limit
from simprompt.features.cache import image_features
from simprompt.metrics import accuracy
from simprompt.prompt.choice import choose
from simprompt.prompt.learn import learn
from simprompt.prompt.prompt import Prompt
from simprompt.recipes.plan import ANSWER
from simprompt.utils.files.atomic import write_text
from simprompt.utils.files.csv import csv_line

QUESTIONS = ("known", "new", "all")
QUICK: dict[str, dict[str, Any]] = {
    "zero-shot": {"method": "zero-shot", "sar": False},
    "class-means": {"method": "class-means", "sar": False},
    "linear-probe": {"method": "linear-probe", "sar": False},
    "image-map": {
        "method": "image-map",
        "sar": False,
        "options": {"host": "zero-shot"},
        "training": {"epochs": 1},
    },
    "means + mapped text": {
        "method": ANSWER,
        "sar": False,
        "options": {"known": "means", "share": 0.0},
    },
}
TRAINED: dict[str, dict[str, Any]] = {
    "coop": {"method": "coop", "sar": False},
    "coop+sar": {"method": "coop", "sar": True},
    "means+text+sar": {"method": "means+text", "sar": True},
}
SKLEARN = "LogisticRegression"
COLUMNS = ("dataset", "shots", "seed", "method", *QUESTIONS, "seconds", "chosen")
TEXTURES = "{} texture."  # the hand-crafted prompt of the task dtd-10, as in photo_frontier.py


def present(split: Split) -> Split:
    """The rows of a split whose images are on this disk."""
    loader = split.loader
    if not isinstance(loader, FileLoader):
        return split
    return split.take(
        row for row in range(len(split)) if Path(loader.path(split.items[row])).is_file()
    )


def task(name: str) -> Dataset:
    """A dataset without the images that are not there."""
    data = simprompt.load_dataset(name)
    templates = (TEXTURES,) if Path(name).name == "dtd-10" else data.templates
    return replace(
        data,
        train=present(data.train),
        test=present(data.test),
        val=None,
        templates=templates,
    )


def answers(
    known: Prompt | None, other: Prompt | None, parts: tuple[Split, Split]
) -> dict[str, float | None]:
    """Percent right in each question, by one prompt for the first and one for the others."""
    base, new = parts
    found: dict[str, float | None] = dict.fromkeys(QUESTIONS)
    if known is not None:
        found["known"] = known.accuracy(base)
    if other is not None and other.learner.new_classes:
        everyone = [*base.classnames, *new.classnames]
        found["new"] = other.accuracy(new)
        both = [
            accuracy(other.probabilities(split, everyone), torch.tensor(split.labels) + first)
            for split, first in ((base, 0), (new, len(base.classnames)))
        ]
        found["all"] = sum(both) / 2
    return found


def by_sklearn(clip: CLIP, shots: Split, parts: tuple[Split, Split]) -> dict[str, Any]:
    """LogisticRegression at its defaults on the same features."""
    from sklearn.linear_model import LogisticRegression

    images = image_features(clip, shots).numpy()
    started = time.perf_counter()
    model = LogisticRegression(max_iter=1000).fit(images, shots.labels)
    seconds = time.perf_counter() - started
    right = 100 * model.score(image_features(clip, parts[0]).numpy(), parts[0].labels)
    return {"known": float(right), "new": None, "all": None, "seconds": seconds}


def rows_of(
    clip: CLIP, data: Dataset, shots: int, seed: int, methods: Iterable[str], most: int
) -> list[dict[str, Any]]:
    """All methods on one draw; `most` test images a class."""
    parts = (limit(data.base.test, most), limit(data.new.test, most))
    draw = data.base.few_shot(shots, seed)
    template = data.templates[0]
    image_features(clip, draw)  # no method's seconds are those of encoding
    found: list[dict[str, Any]] = []

    def add(method: str, make: Callable[[], tuple[Prompt, Prompt, str]]) -> None:
        started = time.perf_counter()
        known, other, chosen = make()
        seconds = time.perf_counter() - started
        figures = answers(known, other, parts)
        found.append({"method": method, **figures, "seconds": seconds, "chosen": chosen})

    def auto() -> tuple[Prompt, Prompt, str]:
        prompts, chosen = [], []
        for new_names in (False, True):
            choice = choose(clip, draw, template, seed, new_names)
            prompts.append(
                learn(
                    clip,
                    draw,
                    ANSWER,
                    False,
                    options=choice.options,
                    template=template,
                    seed=seed,
                    progress=False,
                )
            )
            form = choice.form
            chosen.append(f"{form.known} {form.share:g} {form.map_new}")
        return prompts[0], prompts[1], " | ".join(chosen)

    def fixed(settings: dict[str, Any]) -> tuple[Prompt, Prompt, str]:
        prompt = learn(clip, draw, **settings, template=template, seed=seed, progress=False)
        return prompt, prompt, ""

    add("auto", auto)
    for method in methods:
        settings = (QUICK | TRAINED)[method]
        add(method, lambda settings=settings: fixed(settings))  # type: ignore[misc]
    found.append({"method": SKLEARN, **by_sklearn(clip, draw, parts), "chosen": ""})
    return [{"dataset": data.name, "shots": shots, "seed": seed, **row} for row in found]


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Means over all draws, and how far `auto` is from the best method that is not it."""
    lines = [f"{'method':22}" + "".join(f"{q:>9}" for q in QUESTIONS) + f"{'seconds':>9}"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        cells = []
        for question in (*QUESTIONS, "seconds"):
            values = [row[question] for row in mine if row[question] is not None]
            cells.append(f"{sum(values) / len(values):9.1f}" if values else f"{'':9}")
        lines.append(f"{method:22}" + "".join(cells))
    for question in QUESTIONS:
        gaps = [gap for group in groups(rows) if (gap := _gap(group, question)) is not None]
        if gaps:
            near = 100 * sum(gap <= 1 for gap in gaps) / len(gaps)
            lines.append(
                f"{question}: auto within one point of the best in {near:.0f} % of {len(gaps)}, "
                f"at worst {max(gaps):.1f} below, on average {-sum(gaps) / len(gaps):+.1f}"
            )
    return "\n".join(lines)


def groups(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each draw."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["dataset"], row["shots"], row["seed"]), []).append(row)
    return list(found.values())


def _gap(group: Sequence[dict[str, Any]], question: str) -> float | None:
    """Points by which the best other method is above `auto`."""
    values = {row["method"]: row[question] for row in group if row[question] is not None}
    mine = values.pop("auto", None)
    return None if mine is None or not values else max(values.values()) - mine


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows, a header first."""

    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)

    lines = [csv_line(list(COLUMNS))]
    lines += [csv_line([cell(row[column]) for column in COLUMNS]) for row in rows]
    return "".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dataset", action="append", required=True, help="repeatable")
    parser.add_argument("--model", default="icons")
    parser.add_argument("--shots", default="16")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--methods", default="quick", help="quick, all, or names with commas")
    parser.add_argument("--max-test-per-class", type=int, default=20)
    parser.add_argument("--csv", type=Path, help="where the rows are written")
    given = parser.parse_args()
    sets = {"quick": list(QUICK), "all": [*QUICK, *TRAINED]}
    methods = sets.get(given.methods) or given.methods.split(",")
    clip = simprompt.load_clip(given.model)
    rows: list[dict[str, Any]] = []
    for name in listed(given.dataset):
        data = task(name)
        for shots in map(int, given.shots.split(",")):
            for seed in map(int, given.seeds.split(",")):
                rows += rows_of(clip, data, shots, seed, methods, given.max_test_per_class)
                if given.csv:
                    write_text(given.csv, as_csv(rows))
        print(name, flush=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
