"""Images named on a command line, and what becomes of their predictions in files."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from simprompt.data.image_files import ImageError
from simprompt.data.own_images.rows import Unused
from simprompt.data.own_images.trees import images_below
from simprompt.errors import SimpromptError
from simprompt.features.digests import safe_name
from simprompt.prompt.prompt import Prediction
from simprompt.utils.files.atomic import replacing
from simprompt.utils.files.csv import csv_line
from simprompt.utils.files.regular import is_there
from simprompt.utils.terminal import printable, visible

NONE = "none of these"


def listed(sources: Sequence[str], lines: TextIO | None = None) -> tuple[list[str], list[Unused]]:
    """The files that these mean: files, folders (with all images below), patterns, "-".

    What is no folder and no pattern is taken as it stands, there or not, so that its row can say
    what is wrong with it. Below a folder lie the images that `data.trees` would learn from.

    Args:
        lines: what "-" reads, one path a line.

    Returns:
        paths, each once; what lies in the folders and is not used.

    Raises:
        SimpromptError: nothing is left, a pattern that means nothing, or a folder that may not be
            read.
    """
    paths: list[str] = []
    unused: list[Unused] = []
    for source in sources:
        if source == "-":
            stdin_paths = (line.rstrip("\r\n") for line in lines or ())
            paths += [line for line in stdin_paths if line]
        elif os.path.isdir(source):
            paths += _below(source, unused)
        elif not is_there(source) and glob.has_magic(source):
            matches = sorted(glob.glob(source, recursive=True))
            if not matches:
                raise SimpromptError(
                    f"No file matches the pattern {source}. Check its folder, and quote it so that "
                    "the shell leaves it alone."
                )
            for match in matches:
                paths += _below(match, unused) if os.path.isdir(match) else [match]
        else:
            paths.append(source)
    if not paths:
        raise SimpromptError(
            f"There are no images in {', '.join(sources)[:500]}. Name image files, folders that "
            "hold some, or patterns."
        )
    return list(dict.fromkeys(paths)), list(dict.fromkeys(unused))


def _below(folder: str, unused: list[Unused]) -> list[str]:
    try:
        images, unusable = images_below(Path(folder))
    except OSError as error:
        raise SimpromptError(
            f"{error.filename or folder} cannot be read: {error.strerror}."
        ) from error
    unused += [replace(entry, path=os.path.join(folder, entry.path)) for entry in unusable]
    return [os.path.join(folder, image) for image in images]


class Row(dict[str, Any]):
    """What is printed of one image: path, class, probability, the `top` likeliest, or an error."""


def row_of(
    path: str, made: Prediction | ImageError, names: Sequence[str], top: int, unknown: float
) -> Row:
    """The row of an image; below the threshold `unknown` its class is `NONE`."""
    if isinstance(made, ImageError):
        return Row(path=path, error=str(made))
    certainty = made.probability if made.certainty is None else made.certainty
    order = sorted(range(len(names)), key=lambda i: -made.probabilities[i])[:top]
    return Row(
        path=path,
        name=NONE if certainty < unknown else made.name,
        probability=round(made.probability, 6),
        top=[[names[i], round(made.probabilities[i], 6)] for i in order],
    )


def texts(rows: Iterable[Row], form: str, top: int) -> Iterator[str]:
    """The rows as they are printed, piece by piece; `form`: text, csv, json, jsonl.

    A name or path in a CSV that a spreadsheet would take for a formula gets an apostrophe.
    """
    if form == "csv":
        yield csv_line(["path", "class", "probability", *_columns(top), "error"])
    is_first = True
    for row in rows:
        if form == "jsonl":
            yield visible(json.dumps(row, ensure_ascii=False)) + "\n"
        elif form == "json":
            yield ("[" if is_first else ",") + "\n  " + visible(json.dumps(row, ensure_ascii=False))
        elif form == "csv":
            top_cells = [row.get("name", ""), row.get("probability", "")]
            further_cells = [cell for choice in row.get("top", [])[1:] for cell in choice]
            further_cells += [""] * (2 * (top - 1) - len(further_cells))
            yield csv_line([row["path"], *top_cells, *further_cells, row.get("error", "")])
        elif "error" in row:
            yield f"{printable(row['path'])}\t-\t{printable(row['error'])}\n"
        else:
            cells = [f"{name} {100 * p:.1f} %" for name, p in row["top"]]
            if row["name"] == NONE:
                cells = [NONE, *cells]
            yield "\t".join(map(printable, [row["path"], *cells])) + "\n"
        is_first = False
    if form == "json":
        yield "[]\n" if is_first else "\n]\n"


def _columns(top: int) -> list[str]:
    return [f"{kind}_{rank}" for rank in range(2, top + 1) for kind in ("class", "probability")]


def copy_to(folder: Path, row: Row) -> None:
    """Copy an image into a folder of its class's name below `folder`; never over another file.

    Raises:
        SimpromptError: it cannot be written.
    """
    if "error" in row:
        return
    source = Path(row["path"])
    place = folder / safe_name(row["name"])
    try:
        place.mkdir(parents=True, exist_ok=True)
        target, number = place / source.name, 2
        while target.exists():
            if target.samefile(source) or target.read_bytes() == source.read_bytes():
                return
            target = place / f"{source.stem} ({number}){source.suffix}"
            number += 1
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
    except OSError as error:
        raise SimpromptError(
            f"{source} cannot be copied into {place}: {error}. Choose another folder for --copy-to."
        ) from error
