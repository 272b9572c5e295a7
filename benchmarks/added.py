"""Ten images of a class that had only a name: accuracy before and after, and the seconds of it.

    python benchmarks/added.py icons/animals caltech101 --photos caltech101

Each of some classes in turn has only its name; then ten images of it are added. All names compete.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from simprompt.clip.hub import load_clip
from simprompt.data.catalogue import load
from simprompt.data.split import Split
from simprompt.prompt.added import with_images, with_names
from simprompt.prompt.learn import learn
from simprompt.utils.statistics import mean

SHOTS, TURNS = 10, 5


def of_classes(split: Split, taken: set[int]) -> Split:
    """The images of some classes, with all names."""
    return split.take([i for i, label in enumerate(split.labels) if label in taken])


def ten_of_each(split: Split) -> Split:
    """Of the field's draw of 16 images a class, the first ten."""
    seen: Counter[int] = Counter()
    rows = []
    for row, label in enumerate(split.labels):
        seen[label] += 1
        rows += [row] if seen[label] <= SHOTS else []
    return split.take(rows)


def renamed(split: Split, names: tuple[str, ...]) -> Split:
    labels = tuple(names.index(split.classnames[label]) for label in split.labels)
    return Split(split.items, labels, names, split.loader, origin=split.origin)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--photos", nargs="*", default=[], help="datasets of the model photos")
    given = parser.parse_args()
    print("| dataset | the class: before | after | all: before | after | seconds |")
    print("|---|---|---|---|---|---|")
    for name in given.datasets:
        clip = load_clip("photos" if name in given.photos else "icons")
        view = load(name).base
        shots, everyone = ten_of_each(view.few_shot(16, seed=1)), set(range(len(view.classnames)))
        rows = []
        for new in sorted(everyone)[:: max(1, len(everyone) // TURNS)][:TURNS]:
            others = tuple(n for i, n in enumerate(view.classnames) if i != new)
            known = renamed(of_classes(shots, everyone - {new}), others)
            prompt = learn(clip, known, method="images+text", sar=False, seed=1)
            prompt = with_names(prompt, [view.classnames[new]])
            own = of_classes(view.test, {new})
            before = prompt.accuracy(own), prompt.accuracy(view.test)
            added = renamed(of_classes(shots, {new}), (view.classnames[new],))
            started = time.perf_counter()
            grown = with_images(prompt, added)
            seconds = time.perf_counter() - started
            rows.append((*before, grown.accuracy(own), grown.accuracy(view.test), seconds))
        of_class, of_all, class_after, all_after, seconds = (
            mean(list(column)) for column in zip(*rows, strict=True)
        )
        print(
            f"| {name} | {of_class:.1f} | {class_after:.1f} | {of_all:.1f} | {all_after:.1f} | "
            f"{seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
