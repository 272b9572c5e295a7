"""Photo tasks from CoOp's Caltech101 and DTD: folders that `--dataset` takes.

    python benchmarks/photo_tasks.py OUT

`$SIMPROMPT_DATA` has both in CoOp's layout, perhaps not all of their images. Each task is a folder
of splits with links to the images that are there. `dtd-10` is the first ten classes of DTD. Three
more are parts of Caltech101, by rules that look at class names alone:

* `animals`: names whose meaning is an animal in WordNet;
* `in-imagenet`: names whose words are all in one of ImageNet's names, or the other way round;
* `not-in-imagenet`: the others.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from pathlib import Path

from simprompt.data.catalogue import load
from simprompt.data.images import FileLoader
from simprompt.data.split import Split
from simprompt.novel.nouns import synsets
from simprompt.novel.wordnet import look_up


def words(name: str) -> frozenset[str]:
    """Of a name, in lower case."""
    return frozenset(re.findall(r"[a-z]+", name.lower()))


def animals(names: list[str]) -> set[str]:
    """Those whose meaning is one of WordNet's animals."""
    graph = synsets()
    return {name for name, meaning in look_up(names).items() if graph[meaning].kind == "animal"}


def in_imagenet(names: list[str]) -> set[str]:
    """Those that are, word for word, in a name of ImageNet's 1,000, or that hold one."""
    file = resources.files("simprompt.data") / "classnames" / "imagenet.json"
    known = [words(name) for name in json.loads(file.read_text(encoding="utf-8"))["names"]]
    return {n for n in names if any(words(n) <= other or other <= words(n) for other in known)}


def write(split: Split, part: str, chosen: set[str], folder: Path) -> None:
    """Links to the images of the chosen classes, in class folders."""
    assert isinstance(split.loader, FileLoader)
    for item, label in zip(split.items, split.labels, strict=True):
        name = split.classnames[label]
        if name in chosen:
            source = split.loader.path(str(item))
            place = folder / part / name / f"{source.parent.name}-{source.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file() and not place.exists():
                place.symlink_to(source.resolve())


def main() -> None:
    """Command line."""
    out = Path(sys.argv[1])
    objects, textures = load("caltech101"), load("dtd")
    names = list(objects.classnames)
    known = in_imagenet(names)
    tasks = {
        "dtd-10": (textures, set(textures.classnames[:10])),
        "animals": (objects, animals(names)),
        "in-imagenet": (objects, known),
        "not-in-imagenet": (objects, set(names) - known),
    }
    for task, (data, chosen) in tasks.items():
        for part in ("train", "val", "test"):
            if (split := getattr(data, part)) is not None:
                write(split, part, chosen, out / task)
        print(f"{task}: {len(chosen)} classes: {', '.join(sorted(chosen))}")


if __name__ == "__main__":
    main()
