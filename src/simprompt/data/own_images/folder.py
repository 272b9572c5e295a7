"""Your own images as a dataset: the one door for `learn`, `run`, `data check` and Python.

``my_photos/<class>/<image>``, ``my_photos/{train,val,test}/<class>/<image>`` and what people make
of these (see `trees`); a table of labels and paths or images (`tables`); or ``hf:org/name`` for a
dataset of the Hugging Face hub, or a folder that its library wrote with ``save_to_disk`` (`hf`,
needs the ``datasets`` extra).

Class names are made readable, or taken from an override file (`names`). What is not used is listed
by reason; `strict` makes it an error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from simprompt.clip.same_text import canonical_text, class_names, join_names, repeated
from simprompt.config import DEFAULT_TEMPLATE
from simprompt.data import layouts
from simprompt.data.dataset import Dataset
from simprompt.data.images import FileLoader
from simprompt.data.names import (
    Classes,
    classes,
    clean_name,
    nothing_said,
    overrides,
    says_nothing,
)
from simprompt.data.own_images import decodable, duplicates
from simprompt.data.own_images.columns import Columns
from simprompt.data.own_images.duplicates import Twins
from simprompt.data.own_images.encoded import EncodedLoader
from simprompt.data.own_images.rows import (
    EMPTY_CLASS,
    ONLY_TEST,
    PARTS,
    REASONS,
    SYSTEM,
    Reading,
    Row,
    Unused,
    by_reason,
    lines_of,
)
from simprompt.data.split import DatasetError, Split
from simprompt.utils.files.regular import expanded, is_there


@dataclass(frozen=True)
class OwnImages:
    """A dataset of your own, and what was left out of it.

    Args:
        dataset: classes in alphabetical order of their folders or labels, then `new_classes`.
        unused: every file, folder or row that is not used, and why.
        notes: sentences on what was understood.
        untested: names of the classes without a test image.
        digests: SHA-256 of the bytes of each image by item, as a file has them.
        twins: images that are there twice.
        new_classes: names without images, at the end of ``dataset.classnames``.
        held_out: whether the test images were taken from those to learn from, see `load`.
    """

    dataset: Dataset
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)
    twins: Twins = field(default_factory=Twins)
    new_classes: tuple[str, ...] = ()
    held_out: bool = False

    @property
    def known(self) -> tuple[int, ...]:
        """Labels of the classes that have images."""
        return tuple(range(len(self.dataset.classnames) - len(self.new_classes)))

    def facts(self) -> dict[str, Any]:
        """What is understood and what is not used, for a result: plain JSON values."""
        data = self.dataset
        splits = {"train": data.train, "val": data.val, "test": data.test}
        return {
            "images": {
                split_name: len(split) for split_name, split in splits.items() if split is not None
            },
            "class_names": [data.classnames[label] for label in self.known],
            "notes": list(self.notes),
            "unused": [asdict(entry) for entry in self.unused],
            "unused_by_reason": by_reason(self.unused),
            "untested_classes": list(self.untested),
            "tested_and_learned": [list(pair) for pair in self.twins.tested],
            "two_classes": [list(entry) for entry in self.twins.contradictory],
            "one_picture": [list(group) for group in self.twins.pictures],
        }

    def told(self, most: int = 5) -> list[str]:
        """Lines for the screen: what was understood, and how much is not used; of each reason at
        most `most` are named."""
        lines = [*self.notes, *lines_of(self.unused, most, "; result.json lists them all")]
        if self.untested:
            untested_text = ", ".join(self.untested[:most]) + (
                ", ..." if len(self.untested) > most else ""
            )
            lines.append(f"never tested, for want of a second image: {untested_text}")
        return lines


def load(
    source: str | Path,
    *,
    names: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    new_classes: Sequence[str] = (),
    template: str = DEFAULT_TEMPLATE,
    strict: bool = False,
    seed: int = 1,
    hold_out: float = 0.25,
) -> OwnImages:
    """Your own images as a dataset.

    Where the source has no test split, the part `hold_out` of each class (at least one image, if
    there are two and it is not 0) is held out for testing, drawn with `seed`.

    Args:
        source: folder, table file, or ``"hf:org/name"``.
        names: override file: JSON ``{"folder": "class name"}``, or lines ``folder = class name``.
            Folders that get one name are one class.
        image_column, label_column, split_column: of a table or hub dataset; None: guessed.
        new_classes: class names without a single image.
        template: the hand-crafted prompt.
        strict: whatever is not used is an error instead of being left out; files of the operating
            system are not.

    Raises:
        DatasetError: nothing there, no images, two classes that are one text for CLIP, ...
    """
    reading = _read(source, Columns(image_column, label_column, split_column))
    splits_rows, unused, digests, pictures = _readable(reading)
    if not any(splits_rows.values()):
        _refuse_empty(source, unused)
    notes = [*reading.notes, *_join_spellings(splits_rows, names)]
    class_list = classes(
        sorted({row.name for split_name in PARTS for row in splits_rows[split_name]}), names
    )
    unused += _only_tested(splits_rows, class_list)
    if not splits_rows["train"]:
        raise DatasetError(f"{source} has no readable images to learn from, only to test on.")
    label_of, trained_names = _labels(class_list, splits_rows["train"])
    new_names_cleaned = tuple(
        clean_name(n) for n in class_names(new_classes, "new_classes", empty=True)
    )
    _check_new(trained_names, new_names_cleaned)
    silent = [raw for raw in label_of if raw not in class_list.chosen and _silent(class_list, raw)]
    notes += [*class_list.notes, *nothing_said(sorted(silent, key=_by_number))]
    held_out = not splits_rows["test"]
    if held_out:  # copies of an image stay on one side, see `hold_out`
        rows = duplicates.hold_out(splits_rows["train"], label_of, digests, seed, hold_out)
        splits_rows["train"], splits_rows["test"] = rows
    duplicates_found = duplicates.find(_by_class(class_list, splits_rows), digests, pictures)
    notes += duplicates_found.sentences()
    classnames = (*trained_names, *new_names_cleaned)

    def split(rows: Sequence[Row]) -> Split:
        labels = tuple(label_of[row.name] for row in rows)
        return Split(tuple(row.item for row in rows), labels, classnames, reading.loader)

    tested = {label_of[row.name] for row in splits_rows["test"]}
    untested = tuple(name for label, name in enumerate(trained_names) if label not in tested)
    if strict:
        _refuse(source, unused, untested, duplicates_found)
    dataset = Dataset(
        name=f"own/{Path(reading.where).name or 'images'}",
        classnames=classnames,
        templates=(template,),
        train=split(splits_rows["train"]),
        val=split(splits_rows["val"]) if splits_rows["val"] else None,
        test=split(splits_rows["test"]),
        version=hashlib.sha256(reading.where.encode()).hexdigest()[:12],
        notes=(*notes, *(f"not used: {n} x {why}" for why, n in by_reason(unused).items())),
        unused=tuple((u.path, u.reason) for u in unused),
    )
    own = OwnImages(dataset, tuple(unused), tuple(notes), untested, digests, duplicates_found)
    return replace(own, new_classes=new_names_cleaned, held_out=held_out)


def _by_class(class_list: Classes, parts: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Rows with the class's name in the place of their folder's, so that two folders of one class
    do not contradict each other."""
    called = {raw: class_list.names[class_number] for raw, class_number in class_list.of.items()}
    return {
        split_name: [row._replace(name=called[row.name]) for row in parts[split_name]]
        for split_name in PARTS
    }


def _refuse_empty(source: str | Path, unused: Sequence[Unused]) -> NoReturn:
    """What is expected of a source, and the first thing that is wrong with this one.

    Raises:
        DatasetError: always.
    """
    expected = "Expected rows with a label and an image each."
    if Path(source).is_dir():
        expected = (
            "Expected folders named like your classes with images in them, or such folders inside "
            "train/ and test/."
        )
    raise DatasetError(
        f"{source} holds no readable images. {expected}"
        f"{' First problem: ' + str(unused[0]) if unused else ''}"
    )


def _labels(class_list: Classes, train: Sequence[Row]) -> tuple[dict[str, int], tuple[str, ...]]:
    """(the label of each folder or label of the source, the class name of each label); classes
    without a training image have none."""
    trained = sorted({class_list.of[row.name] for row in train})
    label_of = {
        raw: trained.index(class_number)
        for raw, class_number in class_list.of.items()
        if class_number in trained
    }
    return label_of, tuple(class_list.names[class_number] for class_number in trained)


def _read(source: str | Path, wanted: Columns) -> Reading:
    if str(source).startswith("hf:"):
        return layouts.read(str(source), wanted)
    path = expanded(source)
    if not is_there(path):
        raise DatasetError(
            f"There is no folder or file at {path}. Check the path; `simprompt list datasets` "
            "shows the datasets that have a name."
        )
    try:
        return layouts.read(str(path), wanted)
    except OSError as error:
        raise DatasetError(f"{error.filename or path} cannot be read: {error.strerror}.") from error


def _check_new(shown: Sequence[str], new: Sequence[str]) -> None:
    """Whether new classes are none of those with images, nor there twice.

    Raises:
        DatasetError: they are one text for CLIP.
    """
    for positions in repeated([*shown, *new]):
        clashing = [(*shown, *new)[position] for position in positions]
        if positions[0] < len(shown):
            raise DatasetError(
                f"{join_names(clashing[1:2])}: named as a new class, but there are images of it."
            )
        raise DatasetError(
            f"A new class is named twice: {join_names(clashing)} are one text for CLIP."
        )


def _silent(made: Classes, raw: str) -> bool:
    return says_nothing(made.names[made.of[raw]])


def _by_number(name: str) -> tuple[int, str]:
    """Names in the order of the numbers in them: 2 before 10."""
    digits = "".join(c for c in name if c.isdecimal())
    return int(digits or 0), name


def _readable(
    reading: Reading,
) -> tuple[dict[str, list[Row]], list[Unused], dict[str, str], dict[str, str]]:
    """(rows whose images decode, everything that is not used, digests of the bytes and of the
    pictures by item)."""
    unused = list(reading.unused)
    assert isinstance(reading.loader, FileLoader | EncodedLoader)
    items = dict.fromkeys(row.item for split_name in PARTS for row in reading.parts[split_name])
    looks = decodable.check_files(reading.loader, list(items))
    unused += [Unused(i, check.reason, check.detail) for i, check in looks.items() if check.reason]
    kept_parts = {
        split_name: [row for row in reading.parts[split_name] if not looks[row.item].reason]
        for split_name in PARTS
    }
    before = Counter(row.name for split_name in PARTS for row in reading.parts[split_name])
    lost_names = before.keys() - {
        row.name for split_name in PARTS for row in kept_parts[split_name]
    }
    unused += [
        Unused(name, EMPTY_CLASS, f"{name}: none of its images ({before[name]}) can be read.")
        for name in sorted(lost_names)
    ]
    intact = {item: seen for item, seen in looks.items() if seen.digest}
    return (
        kept_parts,
        unused,
        {item: seen.digest for item, seen in intact.items()},
        {item: seen.picture for item, seen in intact.items()},
    )


def _join_spellings(parts: dict[str, list[Row]], names: str | Path | None) -> list[str]:
    """Give classes of val and test the spelling that train has, where only case, or what is read
    as a blank, differs and one class of train alone is meant; says which. Spellings of a class that
    train has none of become one as well: its images are left out, and no reason to stop.

    Names that an override file renames are left as they are.
    """
    overridden = overrides(Path(names)) if names else {}
    trained = {row.name for row in parts["train"]}
    spellings: dict[str, list[str]] = {}
    for name in sorted(trained):
        spellings.setdefault(canonical_text(clean_name(name)), []).append(name)
    joined_names: dict[str, str] = {}
    for split_name in ("val", "test"):
        for name in sorted({row.name for row in parts[split_name]} - trained - overridden.keys()):
            group = spellings.setdefault(canonical_text(clean_name(name)), [name])
            if len(group) == 1 and group != [name]:
                joined_names[name] = group[0]
        parts[split_name] = [
            row._replace(name=joined_names.get(row.name, row.name)) for row in parts[split_name]
        ]
    merged = sorted(name for name in joined_names if joined_names[name] in trained)
    notes = [f"{name} and {joined_names[name]} are one class." for name in merged]
    return notes if len(notes) <= 6 else [*notes[:5], f"So are {len(notes) - 5} more pairs."]


def _only_tested(parts: dict[str, list[Row]], made: Classes) -> list[Unused]:
    """Take out the images of classes that train has none of."""
    trained = {made.of[row.name] for row in parts["train"]}
    if not trained:
        return []
    left_out = []
    for split_name in ("val", "test"):
        left_out += [row for row in parts[split_name] if made.of[row.name] not in trained]
        parts[split_name] = [row for row in parts[split_name] if made.of[row.name] in trained]
    return [
        Unused(row.item, ONLY_TEST, f"{row.item}: no training images of the class {row.name}.")
        for row in left_out
    ]


def _refuse(
    source: str | Path, unused: Sequence[Unused], untested: Sequence[str], same: Twins
) -> None:
    """What `strict` stops at, in one sentence.

    Raises:
        DatasetError: something is not used that its owner may have meant to be, or is there twice.
    """
    if told := same.sentences():
        raise DatasetError(f"{source}: {' '.join(told)} Without --strict this is said, no more.")
    unused = [u for u in unused if u.reason != SYSTEM]
    counts = [f"{count} {reason}" for reason, count in by_reason(unused).items()]
    if untested:
        counts.append(f"{len(untested)} without an image to test on ({', '.join(untested[:5])})")
    if counts:
        worst = min(unused, key=lambda u: REASONS.index(u.reason), default=None)
        first_text = f" First: {worst}" if worst else ""
        raise DatasetError(
            f"{source} is not used in full: {'; '.join(counts)}.{first_text} Without --strict "
            "they are "
            "left out and listed."
        )
