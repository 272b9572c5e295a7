"""`simprompt check`: whether every image of a dataset can be read, and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from simprompt.cli.options import Json, with_options
from simprompt.utils.options import ImageOptions
from simprompt.utils.terminal import say

if TYPE_CHECKING:
    from simprompt.data.own_images.check import Report
    from simprompt.data.own_images.folder import OwnImages

T = TypeVar("T")


@with_options
def check(
    name: Annotated[
        str, typer.Argument(help="Your own images, or a name from `simprompt list datasets`")
    ],
    images: ImageOptions,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of datasets. Default: $SIMPROMPT_DATA")
    ] = None,
    limit: Annotated[int, typer.Option(help="Lines of each kind; 0: all", min=0)] = 100,
    json_: Json = False,
) -> None:
    """Decode every image; exit with 1 if any is missing, unreadable or there twice."""
    from simprompt.data import catalogue, coop
    from simprompt.data.images import FileLoader
    from simprompt.data.own_images.check import check_dataset, check_folder
    from simprompt.data.own_images.hf import is_saved
    from simprompt.errors import SimpromptError
    from simprompt.utils.files.regular import expanded

    spec = coop.specs().get(name)
    if spec is None and catalogue.is_own(name):
        own = _understood(name, images, json_)
        if expanded(name).is_dir() and not is_saved(expanded(name)):
            report = _checked(check_folder, expanded(name))
        else:
            if own is None:
                raise typer.Exit(1)
            report = _checked(check_dataset, own.dataset)
        _print(report, limit, json_, own)
        if own is None or not report.ok:
            raise typer.Exit(1)
        return
    else:
        if spec is not None and coop.find(spec, data_root) is None:
            raise SimpromptError(
                f"{name} is not below {data_root or coop.data_root()}; `simprompt download {name}` "
                "gets it, --data-root names another folder."
            )
        dataset = catalogue.load(name, data_root)
        if not isinstance(dataset.train.loader, FileLoader):
            say(f"{name} has no image files: nothing to check.")
            return
        for note in dataset.notes:
            say(f"note: {note}")
        report = _checked(check_dataset, dataset)
    _print(report, limit, json_)
    if not report.ok:
        raise typer.Exit(1)


def _understood(name: str, images: ImageOptions, quiet: bool) -> OwnImages | None:
    """Say how somebody's own images are understood, and what is not used; None: they are not."""
    from simprompt.data.own_images import folder
    from simprompt.data.split import DatasetError

    try:
        own = folder.load(name, strict=images.strict, **images.reading)
    except DatasetError as error:
        if images.strict:
            raise
        say(f"cannot be learned from: {error}", err=quiet)
        return None
    if not quiet:
        counts = f"{len(own.dataset.train):,} to learn from, {len(own.dataset.test):,} to test on"
        say(f"{len(own.known)} classes, {counts}")
        for line in own.told():
            say(line)
    return own


def _checked(look: Callable[[T], Report], images: T) -> Report:
    from simprompt.utils.progress import progress_shown

    with progress_shown():
        return look(images)


def _print(report: Report, limit: int, as_json: bool, own: OwnImages | None = None) -> None:
    from dataclasses import asdict

    if as_json:
        document = asdict(report) | {"ok": report.ok}
        if own is not None:
            document["own"] = own.facts()
        say(json.dumps(document, indent=2))
        return
    counts = ", ".join(f"{n:,} {split}" for split, n in report.counts.items())
    say(f"{counts}; {report.readable:,} files decode")
    for kind in ("missing", "unreadable", "duplicate", "note"):
        problems = report.of_kind(kind)
        if not problems:
            continue
        say(f"\n{kind}: {len(problems):,}")
        folders: dict[str, int] = {}
        for finding in problems[: limit or None]:
            say(f"  {finding.item}: {finding.what}")
        for finding in problems[limit:] if limit else []:
            folder = finding.item.rpartition("/")[0] or "."
            folders[folder] = folders.get(folder, 0) + 1
        for folder, count in folders.items():
            say(f"  {folder}/: {count:,} more (--limit 0 names each)")
    if report.ok:
        say("whole: nothing missing, unreadable or double")
